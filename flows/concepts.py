"""Question 3: which concepts do neurons hold, and when in training did they come?"""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, make_stages, run_name, session_of


@flow(name="concepts", flow_run_name=run_name, validate_parameters=False)
def concepts(config: Given, overrides: Sequence[str] = ()) -> None:
    """Run the probing images through every snapshot, detect the concepts of each neuron, embed the neurons."""
    with session_of(config, overrides) as here:
        make_stages(here, "concepts")
