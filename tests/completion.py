"""Every stage of a plan made in order, as the flows make them, without Prefect."""

from flows.plan import Plan
from tasks.engine.life import Job, complete
from tasks.steps.common.activations import ACTIVATIONS
from tasks.steps.common.layers import LAYERS
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.snapshots import SNAPSHOTS
from tasks.steps.common.training import TRAINING
from tasks.steps.decomposition.ablation import ABLATION
from tasks.steps.decomposition.cost import COST
from tasks.steps.decomposition.coverage import COVERAGE
from tasks.steps.decomposition.decomposed_training import DECOMPOSED_TRAININGS
from tasks.steps.decomposition.features import PENULTIMATES
from tasks.steps.decomposition.gallery import GALLERIES
from tasks.steps.decomposition.gates import GATES
from tasks.steps.decomposition.histogram import HISTOGRAM, STRONGEST
from tasks.steps.decomposition.scores import SCORES
from tasks.steps.interpretation.evaluation import EVALUATION
from tasks.steps.interpretation.features import FEATURES
from tasks.steps.interpretation.gallery import GALLERY
from tasks.steps.interpretation.selection import SELECTION
from tasks.steps.tracing.datamodelling import DATAMODELLING
from tasks.steps.tracing.influence import INFLUENCE
from tasks.steps.tracing.mislabel import MISLABEL
from tasks.steps.tracing.projection import CONTRIBUTIONS
from tasks.steps.tracing.queries import QUERIES
from tasks.steps.tracing.randomisation import RANDOMISATION
from tasks.steps.tracing.retraining import RETRAINING


def complete_plan(plan: Plan, job: Job) -> None:
    """Make every stage of a plan in order, as the flows do, without Prefect."""
    fitted = [*plan.references.values(), *(cell.features for cell in plan.cells)]
    complete(job, MANIFEST, plan.all_manifests)
    complete(job, TRAINING, plan.all_trainings)
    complete(job, SNAPSHOTS, plan.snapshots)
    complete(job, LAYERS, list(plan.layers.values()))
    complete(job, ACTIVATIONS, [*plan.learn.values(), *plan.held_out.values()])
    complete(job, SELECTION, [spec.inputs["selection"] for spec in fitted])
    complete(job, FEATURES, fitted)
    complete(job, EVALUATION, [cell.evaluation for cell in plan.cells])
    complete(job, GALLERY, list(plan.galleries.values()))
    complete_decompositions(plan, job)
    traces = plan.traces
    complete(job, QUERIES, [trace.queries for trace in plan.all_traces])
    complete(job, CONTRIBUTIONS, [trace.contributions for trace in plan.all_traces])
    complete(job, INFLUENCE, [trace.influence for trace in traces])
    complete(job, MISLABEL, [trace.mislabel for trace in traces if trace.mislabel])
    complete(job, RANDOMISATION, [trace.randomisation for trace in traces if trace.randomisation])
    complete(job, RETRAINING, [trace.retraining for trace in traces if trace.retraining])
    complete(job, DATAMODELLING, [trace.datamodelling for trace in traces if trace.datamodelling])


def complete_decompositions(plan: Plan, job: Job) -> None:
    """Make the stages of question 2."""
    found = plan.decomposed
    complete(job, PENULTIMATES, [spec for one in found for spec in (one.learn, one.evaluate)])
    complete(job, STRONGEST, [spec.inputs["strongest"] for one in found for spec in one.all_histograms])
    complete(job, HISTOGRAM, [spec for one in found for spec in one.all_histograms])
    complete(job, GATES, [one.gates for one in found if one.gates])
    complete(job, SCORES, [spec for one in found for spec in one.all_scores])
    complete(job, COVERAGE, [one.coverage for one in found])
    complete(job, ABLATION, [spec for one in found for spec in one.ablations.values()])
    complete(job, COST, [one.cost for one in found])
    complete(job, GALLERIES, [one.gallery for one in found if one.gallery])
    complete(job, DECOMPOSED_TRAININGS, [spec for one in found for spec in one.retrained.values()])
