"""The flow of the report: one static site for each run, made from finished stages."""

from collections.abc import Sequence
from functools import partial

from prefect import flow

from flows.session import Given, run_name, session_of
from tasks.engine.runner import run_report
from tasks.steps.report import report_is_current, report_path, write_report


@flow(name="report", flow_run_name=run_name, validate_parameters=False)
def report(config: Given, overrides: Sequence[str] = ()) -> str:
    """Write the report of a run with complete stages, unless it is current, and return its first page."""
    with session_of(config, overrides) as here:
        made, store = here.plan.made(), here.job.store
        if here.whole and report_is_current(store, made):
            return store.path(report_path(made.config))
        return run_report(here.job, made.config.name, partial(write_report, store, made, reused=here.reused))
