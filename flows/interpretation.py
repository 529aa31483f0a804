"""Question 1: what are the relevant features, from how little data?"""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="interpretation", flow_run_name=run_name, validate_parameters=False)
def interpretation(config: Given, overrides: Sequence[str] = ()) -> None:
    """Select coresets, fit interpreters to them and to all data, compare the two on held-out samples."""
    with session_of(config, overrides) as here:
        make_stages(here, "interpretation")
