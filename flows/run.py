"""The flow of a whole run: every question of its config, then the report."""

from collections.abc import Sequence
from importlib import import_module

from prefect import flow

from flows.report import report
from flows.session import Given, run_name, session_of, tagged
from flows.training import training


@flow(name="run", flow_run_name=run_name, validate_parameters=False)
def run(config: Given, overrides: Sequence[str] = ()) -> str:
    """Train the networks, answer the questions of a config, and return the report's first page."""
    with session_of(config, overrides) as here:
        training(config, overrides)
        for name in here.plan.answers:  # the flow of a question has the question's name
            with tagged(here.plan.config, name):
                getattr(import_module(f"flows.{name}"), name)(config, overrides)
        return report(config, overrides)
