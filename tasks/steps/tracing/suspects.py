"""The suspects stage: training examples whose labels are probably wrong, by their summed training loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from storage.documents import Document
from storage.layouts import Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.tracing.scores import Compared, count_numbers, parameters_of_inputs
from tasks.steps.tracing.subjects import SUSPECTS_FILE as FILE

if TYPE_CHECKING:
    import torch

VERSION = 1
RANKINGS = {"score": "summed loss", "disagreement": "neighbours' disagreement"}  # by column


def suspects_spec(queries: StageSpec, training: StageSpec) -> StageSpec:
    """Return the spec of the ranking of a training's examples."""
    inputs = {"network": training, "queries": queries}
    parameters: Document = {"network": queries.parameters["network"], **parameters_of_inputs(training)}
    return SUSPECTS.spec(parameters, inputs, digests=queries.digests, place=dict(queries.place), label=training.label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Rank the examples."""
    from tasks.tracing.evaluation import neighbours_disagreement

    stage = work.stage
    made = Compared(stage.store, stage.spec, choose_device(work.device))
    rows = made.rows
    table = pd.DataFrame(
        {
            "sample_id": rows["id"].to_numpy(np.int64),
            "key": rows["key"].astype(str).to_numpy(),
            "label_given": made.labels,
            "label_true": pd.array(rows["label_true"].to_numpy(np.int64), dtype="Int64"),
            "predicted": _predicted(made),
            "score": _losses(made),
            "disagreement": neighbours_disagreement(made.pixels()[1], made.labels),
        }
    )
    if stage.spec.inputs["network"].inputs["data"].place["data"].get("noise") is None:
        table["label_true"] = pd.array([pd.NA] * len(table), dtype="Int64")
    order = np.argsort(-table["score"].to_numpy(), kind="stable")
    ranked = table.iloc[order].reset_index(drop=True)
    ranked.insert(0, "rank", np.arange(1, len(ranked) + 1))
    with stage.partition(number) as part:
        part.write_file(FILE, table_bytes(ranked))
        part.numbers.update(measured(examples=len(ranked)))


def _losses(made: Compared) -> np.ndarray:
    """Return each example's loss summed over its steps; an example has an equal part of its batch's mean."""
    from tasks.steps.common.replays import open_archive

    source = open_archive(made.store, made.spec.inputs["network"])
    members, losses = source.examples, source.ledger["loss"].to_numpy(np.float64)
    counts = np.array([len(step) for step in members])
    ids, shares = np.concatenate(members), np.repeat(losses / counts, counts)
    order = np.argsort(made.rows["id"].to_numpy(np.int64))
    places = order[np.searchsorted(made.rows["id"].to_numpy(np.int64)[order], ids)]
    return np.bincount(places, weights=shares, minlength=len(made.rows))


def _predicted(made: Compared) -> np.ndarray:
    """Return the class that the trained network gives each example."""
    import torch

    model = load_network(made.store, made.spec, made.device)
    with torch.inference_mode():
        return np.concatenate([model(batch.clone()).argmax(1).cpu().numpy() for batch in made.batches()])


def _summary(stage: Stage) -> Document:
    """Return the area under the ROC curve of each ranking, where labels are flipped on purpose."""
    from tasks.tracing.evaluation import mislabel_auc

    table = read_table(stage.store.read(f"{stage.spec.path}/files/{FILE}"), FILE)
    found: Document = {"examples": len(table), "auc": {}}
    flipped = (table["label_given"] != table["label_true"]).fillna(False).to_numpy(bool)
    if flipped.any() and not flipped.all():
        found["auc"] = {name: mislabel_auc(table[name].to_numpy(), flipped, "high") for name in RANKINGS}
    return found


def _size(spec: StageSpec, survey: Survey) -> Size:
    training = spec.inputs["network"]
    n = survey.data(training.inputs["data"]).count(training_of(training).split)

    def pixels(model: object, example: torch.Tensor, images: torch.Tensor) -> int:
        return count_numbers(example)

    return Size(128 * n, 4 * 8 * n * survey.look(training, "pixels of an input", pixels) + MEMORY_SAMPLES)


SUSPECTS = Step("suspects", VERSION, _layout, _partition, _size, summary=_summary, network=True)
