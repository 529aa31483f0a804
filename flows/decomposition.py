"""Question 2: which few features decide each class?"""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="decomposition", flow_run_name=run_name, validate_parameters=False)
def decomposition(config: Given, overrides: Sequence[str] = ()) -> None:
    """Count the top-k features of each class, keep the most frequent, evaluate their head and train it further."""
    with session_of(config, overrides) as here:
        make_stages(here, "decomposition")
