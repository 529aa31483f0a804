"""Activations: a forward pass over the data, maps and pooled features of a layer kept class by class."""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, run_name, session_of
from flows.training import training
from tasks.engine.runner import run_step
from tasks.steps.common.activations import ACTIVATIONS
from tasks.steps.common.layers import LAYERS


@flow(name="activations", flow_run_name=run_name, validate_parameters=False)
def activations(config: Given, overrides: Sequence[str] = ()) -> None:
    """Extract the activations that the questions of a config need."""
    with session_of(config, overrides) as here:
        training(config, overrides)
        plan = here.plan
        run_step(here.job, LAYERS, list(plan.layers.values()), timeout=here.timeout)
        run_step(here.job, ACTIVATIONS, [*plan.learn.values(), *plan.held_out.values()], timeout=here.timeout)
