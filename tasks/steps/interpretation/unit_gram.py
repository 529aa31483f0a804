"""The unit-gram stage: the inner products of all units' responses over a coreset, by panels of units.

Coresets of a selector nest, so the sums of a coreset are those of the next smaller one and of the samples that are new.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters.panels import panel_sums, whole_gram
from tasks.steps.common.activations import check_same_samples, ranges_by_class
from tasks.steps.common.rows import read_rows
from tasks.steps.interpretation.responses import units_of
from tasks.steps.interpretation.selection import count_classes, kept_positions

VERSION = 2
PANEL_BYTES = (
    64 * 2**20
)  # of a partition's rows of the Gram matrix: the memory of a partition, with a chunk of responses
CHUNK_BYTES = 32 * 2**20  # of responses in float64

Doubles = NDArray[np.float64]


def unit_gram_spec(responses: StageSpec, selection: StageSpec, smaller: StageSpec | None = None) -> StageSpec:
    """Return the spec of the Gram matrix of a coreset; `smaller` is that of the next smaller budget, which it reads."""
    inputs = {"responses": responses, "selection": selection}
    if smaller is not None:
        assert smaller.inputs["responses"] == responses, (smaller.title, responses.title)
        inputs["smaller"] = smaller
    return UNIT_GRAM.spec({}, inputs, label=selection.label)


def unit_gram_layout(units: int, classes: int) -> Layout:
    """Return the layout for some number of units and classes."""
    rows = max(1, min(units, PANEL_BYTES // (8 * units)))
    gram = ArrayLayout((units, units), "float64", ("unit", "other"), rows, rows)
    moment = ArrayLayout((units, classes), "float64", ("unit", "class"), rows, rows)
    return Layout(gram.partitions, {"gram": gram, "moment": moment})


def read_system(finished: FinishedStage) -> tuple[Doubles, Doubles]:
    """Return the whole Gram matrix (M, M), which is stored without the blocks below its diagonal, and X'L (M, C)."""
    layout = finished.layout.arrays["gram"]
    spans = (layout.span(number) for number in range(layout.partitions))
    panels = (np.asarray(finished.read("gram", *span), np.float64) for span in spans)
    return whole_gram(panels, layout.shape[0]), np.asarray(finished.read("moment"), np.float64)


@dataclass(frozen=True)
class Shell:
    """The samples that a coreset's sums are made of, besides those of a smaller coreset.

    Attributes
    ----------
    base : the finished Gram matrix of the smaller coreset; None where there is none, or where the coreset does not
        hold all of its samples: `rows` are then all samples
    rows : (n,) positions, ascending
    samples : number of samples of the coreset
    """

    base: FinishedStage | None
    rows: NDArray[np.int64]
    samples: int


def shell_of(store: Store, spec: StageSpec) -> Shell:
    """Return the samples that are to be added for a coreset."""
    kept = _samples(store, spec)
    smaller = spec.inputs.get("smaller")
    if smaller is None:
        return Shell(None, kept, len(kept))
    inner = _samples(store, smaller)
    added = np.setdiff1d(kept, inner, assume_unique=True)
    # Windows of `moderate` may lose a sample where a class gets its least number of rows. Sums then begin again: a
    # difference of sums would keep the rounding of what it takes away.
    if len(added) != len(kept) - len(inner):
        return Shell(None, kept, len(kept))
    return Shell(open_finished(store, smaller), added, len(kept))


def _samples(store: Store, spec: StageSpec) -> NDArray[np.int64]:
    """Return the positions of a coreset's samples, ascending."""
    return np.sort(np.concatenate(kept_positions(open_finished(store, spec.inputs["selection"]))))


def _layout(store: Store, spec: StageSpec) -> Layout:
    responses = open_finished(store, spec.inputs["responses"])
    activations = open_finished(store, spec.inputs["responses"].inputs["activations"])
    check_same_samples(activations, open_finished(store, spec.inputs["selection"].inputs["activations"]))
    return unit_gram_layout(responses.layout.arrays["responses"].shape[1], len(ranges_by_class(activations)))


def predicted_classes(store: Store, activations: StageSpec, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place in the split's order of the class that the network predicts for samples (n,), -1 for another."""
    finished = open_finished(store, activations)
    n_logits = finished.layout.arrays["logits"].shape[1]
    place = np.full(n_logits, -1, np.int64)
    for index, label in enumerate(ranges_by_class(finished)):
        if label < n_logits:
            place[label] = index
    size = max(1, CHUNK_BYTES // (8 * n_logits))
    found = np.empty(len(rows), np.int64)
    for start in range(0, len(rows), size):
        best = read_rows(finished, "logits", rows[start : start + size]).argmax(axis=1)
        found[start : start + size] = place[best]
    return found


def _partition(work: Work, number: int) -> None:
    """Sum the products of a panel of units with the units from there on, over chunks of new samples in order."""
    stage, store = work.stage, work.stage.store
    responses, shell = open_finished(store, stage.spec.inputs["responses"]), shell_of(store, stage.spec)
    predicted = predicted_classes(store, stage.spec.inputs["responses"].inputs["activations"], shell.rows)
    units, n_classes = stage.layout.arrays["moment"].shape
    with stage.partition(number) as part:
        start, stop = part.span
        chunks = _chunks(responses, shell.rows, predicted)
        gram, moment = panel_sums(chunks, slice(start, stop), units, n_classes)
        counts = np.bincount(predicted[predicted >= 0], minlength=n_classes).astype(np.float64)
        if shell.base is not None:
            gram += np.asarray(shell.base.read("gram", start, stop), np.float64)
            moment += np.asarray(shell.base.read("moment", start, stop), np.float64)
            counts += np.array(shell.base.summary["predicted"])
        part.write("gram", gram)
        part.write("moment", moment)
        added = {"samples": shell.samples, "added": len(shell.rows), "predicted": counts.tolist()}
        part.numbers.update(measured(**added))


def _chunks(
    responses: FinishedStage, rows: NDArray[np.int64], predicted: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.floating], NDArray[np.int64]]]:
    """Yield the responses of some samples at a time, and their predicted classes."""
    size = max(1, CHUNK_BYTES // (8 * responses.layout.arrays["responses"].shape[1]))
    for start in range(0, len(rows), size):
        chosen = slice(start, start + size)
        yield read_rows(responses, "responses", rows[chosen]).astype(np.float32, copy=False), predicted[chosen]


def _summary(stage: Stage) -> Document:
    """Return samples, those added here, predictions by class, and seconds: of all panels, and of their whole chain."""
    markers = [marker["numbers"] for n in range(stage.layout.partitions) if (marker := stage.marker(n)) is not None]
    found: dict[str, Json] = {name: markers[0][name] for name in ("samples", "added", "predicted")}
    seconds = sum(marker["seconds"] for marker in markers)
    before = 0.0
    if markers[0]["added"] < markers[0]["samples"]:
        before = open_finished(stage.store, stage.spec.inputs["smaller"]).summary["seconds_chain"]
    return {**found, "seconds": seconds, "seconds_chain": before + seconds}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a panel, its product or that of the smaller coreset, chunks of responses and of logits."""
    activations = spec.inputs["responses"].inputs["activations"]
    n_classes, longest = count_classes(activations, survey)
    units = sum(units_of(activations, survey))
    layout = unit_gram_layout(units, n_classes)
    panel = 8 * layout.arrays["gram"].rows * (units + n_classes)
    chunk = max(8 * units, 8 * n_classes, CHUNK_BYTES)
    panels = 3 if "smaller" in spec.inputs else 2  # what is read is there compressed and as an array
    return Size(8 * units * (units + n_classes), panels * panel + 4 * chunk + 64 * n_classes * longest)


UNIT_GRAM = Step("unit-gram", VERSION, _layout, _partition, _size, summary=_summary)
