"""Activations: named layers of networks, kept for analyses of the user's own."""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="activations", flow_run_name=run_name, validate_parameters=False)
def activations(config: Given, overrides: Sequence[str] = ()) -> None:
    """Run the networks over the data sets and keep what the named layers put out."""
    with session_of(config, overrides) as here:
        make_stages(here, "activations")
