"""Question 1: what are the relevant features, from how little data?"""

from collections.abc import Sequence

from prefect import flow

from flows.activations import activations
from flows.session import Given, run_name, session_of
from tasks.steps.evaluation import EVALUATION
from tasks.steps.features import FEATURES
from tasks.steps.gallery import GALLERY
from tasks.steps.runner import run_step
from tasks.steps.selection import SELECTION


@flow(name="interpretation", flow_run_name=run_name, validate_parameters=False)
def interpretation(config: Given, overrides: Sequence[str] = ()) -> None:
    """Select coresets, fit interpreters to them and to all data, compare the two on held-out samples."""
    with session_of(config, overrides) as here:
        activations(config, overrides)
        plan, job = here.plan, here.job
        fitted = [*plan.references.values(), *(cell.features for cell in plan.cells)]
        run_step(job, SELECTION, [spec.inputs["selection"] for spec in fitted], timeout=here.timeout)
        run_step(job, FEATURES, fitted, timeout=here.timeout)
        run_step(job, EVALUATION, [cell.evaluation for cell in plan.cells], timeout=here.timeout)
        run_step(job, GALLERY, list(plan.galleries.values()), timeout=here.timeout)
