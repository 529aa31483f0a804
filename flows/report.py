"""The report: one static site per run, made from finished stages."""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, run_name, session_of
from tasks.steps.runner import run_report


@flow(name="report", flow_run_name=run_name, validate_parameters=False)
def report(config: Given, overrides: Sequence[str] = ()) -> str:
    """Write the report of a run whose stages are complete, and return where it begins."""
    with session_of(config, overrides) as here:
        return run_report(here.job, here.plan.answers(), here.reused)
