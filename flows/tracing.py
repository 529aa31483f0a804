"""Question 4: who taught the network that?"""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="tracing", flow_run_name=run_name, validate_parameters=False)
def tracing(config: Given, overrides: Sequence[str] = ()) -> None:
    """Record trainings, project every update on the queries, sum over examples and classes, evaluate the answers."""
    with session_of(config, overrides) as here:
        make_stages(here, "tracing")
