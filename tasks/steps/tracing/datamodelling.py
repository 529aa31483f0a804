"""The datamodelling stage: how well attributions, summed over subsets, predict retrained networks (LDS)."""

import numpy as np

from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Step, Work
from tasks.steps.common.manifest import positions
from tasks.steps.tracing.retraining import subset
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


def datamodelling_spec(contributions: StageSpec, retraining: StageSpec, asked: Tracing) -> StageSpec:
    """Return the spec of the linear datamodelling score of all rankings."""
    inputs = {"contributions": contributions, "retraining": retraining}
    return DATAMODELLING.spec(window_parameters(asked), inputs, label=contributions.label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition per ranking."""
    found = Contributions(store, spec.inputs["contributions"], window_of(spec))
    return correlation_layout(found)


def _partition(work: Work, number: int) -> None:
    """Correlate, query by query, the summed attributions of each subset with the measured margins."""
    from tasks.tracing.evaluation import linear_datamodelling_score

    stage, spec = work.stage, work.stage.spec
    found = Contributions(stage.store, spec.inputs["contributions"], window_of(spec))
    layer, score = checked_rankings(found)[number]
    retraining = spec.inputs["retraining"]
    rows = positions(stage.store, retraining.inputs["data"].path, found.train.split)
    ids = rows["id"].to_numpy(np.int64)
    attributions = np.zeros((found.n_queries, len(ids)))  # 0 for examples without a step
    sums = found.sums(found.examples, layer, score)
    order = np.argsort(ids)
    attributions[:, order[np.searchsorted(ids[order], sums.ids)]] = sums.sums.T
    settings = retraining.parameters
    held = np.zeros((int(settings["subsets"]), len(ids)), bool)
    for index, row in enumerate(held):
        row[subset(retraining, index, len(ids))] = True
    measured_margins = open_finished(stage.store, retraining).read("margin")
    margins = measured_margins.reshape(len(held), int(settings["retrainings"]), found.n_queries)
    result = linear_datamodelling_score(held, attributions, margins.astype(np.float64))
    with stage.partition(number) as part:
        part.write("correlation", result.per_query[None])
        part.numbers.update(measured(**correlation_numbers(result)))


def _summary(stage: Stage) -> Document:
    """Return mean and spread over queries of each ranking, and the noise ceiling of the retrainings."""
    from tasks.tracing.evaluation import noise_ceiling

    found = Contributions(stage.store, stage.spec.inputs["contributions"], window_of(stage.spec))
    retraining = stage.spec.inputs["retraining"]
    subsets, repeats = int(retraining.parameters["subsets"]), int(retraining.parameters["retrainings"])
    margins = open_finished(stage.store, retraining).read("margin").reshape(subsets, repeats, -1)
    ceiling = noise_ceiling(margins.astype(np.float64)).ceiling if repeats > 1 else None
    return {**correlation_summary(stage, found), "ceiling": ceiling, "subsets": subsets, "retrainings": repeats}


DATAMODELLING = Step("datamodelling", VERSION, _layout, _partition, size_compared, summary=_summary)
