"""Question 2: which few features decide each class?"""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="decomposition", flow_run_name=run_name, validate_parameters=False)
def decomposition(config: Given, overrides: Sequence[str] = ()) -> None:
    """Count each class's strongest features, keep the most frequent, test the head made of them, train it further."""
    with session_of(config, overrides) as here:
        make_stages(here, "decomposition")
