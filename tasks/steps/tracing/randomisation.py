"""The randomisation stage: compare attributions with those of a training on permuted labels."""

import numpy as np

from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Step, Work
from tasks.steps.tracing.series import (
    Contributions,
    checked_rankings,
    correlation_layout,
    correlation_numbers,
    correlation_summary,
    size_compared,
    window_of,
    window_parameters,
)

VERSION = 2


def randomisation_spec(contributions: StageSpec, permuted: StageSpec, asked: Tracing) -> StageSpec:
    """Return the spec of the comparison with the same network, trained on permuted labels."""
    inputs = {"contributions": contributions, "permuted": permuted}
    return RANDOMISATION.spec(window_parameters(asked), inputs, label=contributions.label)


def _opened(store: Store, spec: StageSpec) -> tuple[Contributions, Contributions]:
    """Return the contributions of both trainings."""
    window = window_of(spec)
    first, second = (Contributions(store, spec.inputs[role], window) for role in ("contributions", "permuted"))
    return first, second


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition per ranking."""
    found, _ = _opened(store, spec)
    return correlation_layout(found)


def _partition(work: Work, number: int) -> None:
    """Correlate the ranks of the examples in both trainings, query by query."""
    from tasks.tracing.evaluation import rank_correlation

    stage = work.stage
    found, other = _opened(stage.store, stage.spec)
    layer, score = checked_rankings(found)[number]
    ids = np.intersect1d(found.examples, other.examples)
    result = rank_correlation(*(side.sums(ids, layer, score).sums.T for side in (found, other)))
    with stage.partition(number) as part:
        part.write("correlation", result.per_query[None])
        part.numbers.update(measured(**correlation_numbers(result)))


def _summary(stage: Stage) -> Document:
    """Return mean and spread over queries of each ranking."""
    found, _ = _opened(stage.store, stage.spec)
    return correlation_summary(stage, found)


RANDOMISATION = Step("randomisation", VERSION, _layout, _partition, size_compared, summary=_summary)
