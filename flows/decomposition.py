"""Question 2: which few features decide each class?"""

from collections.abc import Sequence

from prefect import flow

from flows.session import Given, run_name, session_of
from flows.training import training
from tasks.engine.runner import run_step
from tasks.steps.decomposition.ablation import ABLATION
from tasks.steps.decomposition.cost import COST
from tasks.steps.decomposition.coverage import COVERAGE
from tasks.steps.decomposition.decomposed_training import DECOMPOSED_TRAININGS
from tasks.steps.decomposition.features import PENULTIMATES
from tasks.steps.decomposition.gallery import GALLERIES
from tasks.steps.decomposition.gates import GATES
from tasks.steps.decomposition.histogram import HISTOGRAM, STRONGEST
from tasks.steps.decomposition.scores import SCORES


@flow(name="decomposition", flow_run_name=run_name, validate_parameters=False)
def decomposition(config: Given, overrides: Sequence[str] = ()) -> None:
    """Count each class's strongest features, keep the most frequent, test the head made of them, train it further."""
    with session_of(config, overrides) as here:
        training(config, overrides)
        found, job = here.plan.decomposed, here.job
        run_step(job, PENULTIMATES, [spec for one in found for spec in (one.learn, one.evaluate)], timeout=here.timeout)
        histograms = [spec for one in found for spec in one.all_histograms]
        run_step(job, STRONGEST, [spec.inputs["strongest"] for spec in histograms], timeout=here.timeout)
        run_step(job, HISTOGRAM, histograms, timeout=here.timeout)
        run_step(job, GATES, [one.gates for one in found if one.gates is not None], timeout=here.timeout)
        run_step(job, SCORES, [spec for one in found for spec in one.all_scores], timeout=here.timeout)
        run_step(job, COVERAGE, [one.coverage for one in found], timeout=here.timeout)
        run_step(job, ABLATION, [spec for one in found for spec in one.ablations.values()], timeout=here.timeout)
        run_step(job, COST, [one.cost for one in found], timeout=here.timeout)
        run_step(job, GALLERIES, [one.gallery for one in found if one.gallery is not None], timeout=here.timeout)
        retrained = [spec for one in found for spec in one.retrained.values()]
        run_step(job, DECOMPOSED_TRAININGS, retrained, timeout=here.timeout)
