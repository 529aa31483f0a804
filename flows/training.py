"""The flow of trainings: from data to a manifest to a network for each seed."""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="training", flow_run_name=run_name, validate_parameters=False)
def training(config: Given, overrides: Sequence[str] = ()) -> None:
    """List the data sets, train the networks with a training, and keep their snapshots."""
    with session_of(config, overrides) as here:
        make_stages(here)
