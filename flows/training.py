"""Training: data -> manifest -> a network per seed."""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, run_name, session_of
from tasks.engine.runner import run_step
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.snapshots import SNAPSHOTS
from tasks.steps.common.training import TRAINING


@flow(name="training", flow_run_name=run_name, validate_parameters=False)
def training(config: Given, overrides: Sequence[str] = ()) -> None:
    """List the data sets and train the networks that have a training."""
    with session_of(config, overrides) as here:
        plan, job = here.plan, here.job
        run_step(job, MANIFEST, plan.all_manifests, timeout=here.timeout)
        run_step(job, TRAINING, plan.all_trainings, timeout=here.timeout)
        run_step(job, SNAPSHOTS, plan.snapshots, timeout=here.timeout)
