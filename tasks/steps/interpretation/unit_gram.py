"""The unit-gram stage: the inner products of all units' responses over a coreset, by panels of units."""

import numpy as np
from numpy.typing import NDArray

from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters.panels import panel_sums
from tasks.steps.common.activations import check_same_samples, ranges_by_class
from tasks.steps.common.rows import read_rows
from tasks.steps.interpretation.responses import units_of
from tasks.steps.interpretation.selection import count_classes, kept_positions

VERSION = 1
PANEL_BYTES = (
    64 * 2**20
)  # of a partition's rows of the Gram matrix: the memory of a partition, with a chunk of responses
CHUNK_BYTES = 32 * 2**20  # of responses in float64


def unit_gram_spec(responses: StageSpec, selection: StageSpec) -> StageSpec:
    """Return the spec of the Gram matrix of a coreset."""
    inputs = {"responses": responses, "selection": selection}
    return UNIT_GRAM.spec({}, inputs, label=selection.label)


def unit_gram_layout(units: int, classes: int) -> Layout:
    """Return the layout for some number of units and classes."""
    rows = max(1, min(units, PANEL_BYTES // (8 * units)))
    gram = ArrayLayout((units, units), "float64", ("unit", "other"), rows, rows)
    moment = ArrayLayout((units, classes), "float64", ("unit", "class"), rows, rows)
    return Layout(gram.partitions, {"gram": gram, "moment": moment})


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
    """Sum the products of a panel of units with all units, over chunks of samples in order."""
    stage, store = work.stage, work.stage.store
    responses = open_finished(store, stage.spec.inputs["responses"])
    kept = kept_positions(open_finished(store, stage.spec.inputs["selection"]))
    rows = np.sort(np.concatenate(kept))
    predicted = predicted_classes(store, stage.spec.inputs["responses"].inputs["activations"], rows)
    units = responses.layout.arrays["responses"].shape[1]
    classes = np.arange(stage.layout.arrays["moment"].shape[1])
    size = max(1, CHUNK_BYTES // (8 * units))
    chunks = (slice(start, start + size) for start in range(0, len(rows), size))
    with stage.partition(number) as part:
        read = (
            (
                read_rows(responses, "responses", rows[c]).astype(np.float64),
                (predicted[c, None] == classes).astype(np.float64),
            )
            for c in chunks
        )
        gram, moment = panel_sums(read, slice(*part.span), units, len(classes))
        part.write("gram", gram)
        part.write("moment", moment)
        counts = np.bincount(predicted[predicted >= 0], minlength=len(classes)).astype(np.float64)
        part.numbers.update(measured(samples=len(rows), predicted=counts.tolist()))


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a panel with its product, chunks of responses and of classes or logits, and the predictions."""
    activations = spec.inputs["responses"].inputs["activations"]
    n_classes, longest = count_classes(activations, survey)
    units = sum(units_of(activations, survey))
    layout = unit_gram_layout(units, n_classes)
    panel = 8 * layout.arrays["gram"].rows * (units + n_classes)
    chunk = max(8 * units, CHUNK_BYTES) + max(8 * n_classes, CHUNK_BYTES * n_classes // units)
    logits = max(8 * n_classes, CHUNK_BYTES)
    return Size(8 * units * (units + n_classes), 2 * panel + 4 * max(chunk, logits) + 32 * n_classes * longest)


UNIT_GRAM = Step("unit-gram", VERSION, _layout, _partition, _size)
