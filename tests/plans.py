"""The stages of a plan by role, and all of them made in order without Prefect."""

from flows.plan import Plan
from storage.specs import StageSpec
from tasks.engine.life import Job, complete
from tasks.steps.decomposition.plan import Decomposed
from tasks.steps.interpretation.plan import Cell, Interpreted
from tasks.steps.plan import waves
from tasks.steps.questions import STEPS
from tasks.steps.tracing.plan import Projected, Trace

Setting = tuple[str, int]  # network, seed


def complete_plan(plan: Plan, job: Job) -> None:
    """Make every stage of a plan in order, as the flows do, without Prefect."""
    for wave in waves(plan.stages):
        complete(job, STEPS[wave[0].stage], wave)


def interpreted(plan: Plan) -> tuple[Interpreted, ...]:
    """Return the answers of question 1."""
    return tuple(plan.answers.get("interpretation", ()))


def decomposed(plan: Plan) -> tuple[Decomposed, ...]:
    """Return the answers of question 2."""
    return tuple(plan.answers.get("decomposition", ()))


def traces(plan: Plan) -> tuple[Trace, ...]:
    """Return the answers of question 4."""
    return tuple(plan.answers.get("tracing", ()))


def projections(plan: Plan) -> tuple[Projected, ...]:
    """Return the traces, and the projections on permuted labels that they are compared with."""
    return (*traces(plan), *(trace.permuted for trace in traces(plan) if trace.permuted is not None))


def learned(plan: Plan) -> dict[Setting, StageSpec]:
    """Return the activations that features come from."""
    return {(one.network, one.seed): one.learn for one in interpreted(plan)}


def held_out(plan: Plan) -> dict[Setting, StageSpec]:
    """Return the activations on which features are compared."""
    return {(one.network, one.seed): one.held_out for one in interpreted(plan)}


def cells(plan: Plan) -> tuple[Cell, ...]:
    """Return the results of question 1."""
    return tuple(cell for one in interpreted(plan) for cell in one.cells)


def references(plan: Plan) -> dict[tuple[str, int, str], StageSpec]:
    """Return the features of the full data by network, seed and interpreter."""
    found = ((one, name, spec) for one in interpreted(plan) for name, spec in one.references.items())
    return {(one.network, one.seed, name): spec for one, name, spec in found}


def galleries(plan: Plan) -> dict[str, StageSpec]:
    """Return the galleries of question 1 by title."""
    return {title: spec for one in interpreted(plan) for title, spec in one.galleries.items()}


def kept_layers(plan: Plan) -> dict[tuple[str, int, str], StageSpec]:
    """Return the activations of named layers by network, seed and split."""
    found = ((one, spec) for one in plan.answers.get("activations", ()) for spec in one.finals)
    return {(one.network, one.seed, str(spec.parameters["split"])): spec for one, spec in found}


def histograms(one: Decomposed) -> tuple[StageSpec, ...]:
    """Return the histograms of all settings of an answer."""
    return (*one.histograms.values(), *one.need.values())


def scores(one: Decomposed) -> tuple[StageSpec, ...]:
    """Return the scores of all heads of an answer."""
    rest = (one.gates_scores,) if one.gates_scores is not None else ()
    return (one.full, *one.grid.values(), *one.controls.values(), *one.need_scores.values(), *rest)
