"""The flow that stores activations of named layers, for the user's own analyses."""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="activations", flow_run_name=run_name, validate_parameters=False)
def activations(config: Given, overrides: Sequence[str] = ()) -> None:
    """Run the networks over the data sets and store the outputs of the named layers."""
    with session_of(config, overrides) as here:
        make_stages(here, "activations")
