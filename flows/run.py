"""A whole run: every question that its config asks, then the report."""

from collections.abc import Sequence

from prefect import flow

from flows.activations import activations
from flows.decomposition import decomposition
from flows.interpretation import interpretation
from flows.report import report
from flows.session import Given, run_name, session_of
from flows.tracing import tracing


@flow(name="run", flow_run_name=run_name, validate_parameters=False)
def run(config: Given, overrides: Sequence[str] = ()) -> str:
    """Answer the questions of a config and return where the report begins."""
    with session_of(config, overrides) as here:
        activations(config, overrides)
        if here.plan.config.interpretation is not None:
            interpretation(config, overrides)
        if here.plan.config.decomposition is not None:
            decomposition(config, overrides)
        if here.plan.config.tracing is not None:
            tracing(config, overrides)
        return report(config, overrides)
