"""The evaluation stage: the distance of a coreset's features from those of the full data, on held-out samples.

All coresets with the same reference are compared together, in one pass over the maps of a class.
"""

import itertools
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import MOST_TOGETHER, Size, Step, Work
from tasks.engine.survey import Survey
from tasks.engine.writing import write_each
from tasks.interpreters.ice import fidelity
from tasks.metrics.accuracy import agreement, top_k_accuracy
from tasks.metrics.joint_shape import JointShape
from tasks.steps.common.activations import map_shapes, open_split, ranges_by_class
from tasks.steps.common.networks import choose_device
from tasks.steps.interpretation.coreset_maps import read_apart
from tasks.steps.interpretation.measures import ALPHAS, MEASURES, permuted_images
from tasks.steps.interpretation.method import ClassFeatures, Maps
from tasks.steps.interpretation.methods import method_of
from tasks.steps.interpretation.selection import classes_per_partition, common_classes, count_classes

VERSION = 2
GROUP_VALUES = 2_000_000
CHUNK_VALUES = 4_000_000  # map values in memory at once
CHUNK_ROWS = 16_384  # positions in memory at once, with the columns of all sets


def evaluation_spec(features: StageSpec, reference: StageSpec, held_out: StageSpec) -> StageSpec:
    """Return the spec that compares `features` with those of the full data, on held-out activations."""
    inputs = {"features": features, "reference": reference, "activations": held_out}
    return EVALUATION.spec({}, inputs, label=features.label)


@dataclass
class _Tally:
    """The sums over the chunks of a class for one set of features."""

    logits: list[Maps] = field(default_factory=list)
    residual: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class _Set:
    """One set of features of a class."""

    features: ClassFeatures
    tally: _Tally = field(default_factory=_Tally)

    def columns(self, maps: Maps, head: Callable[[Maps], Maps]) -> NDArray[np.float64]:
        """Add a chunk of maps to the tally and return the columns for the shape distance."""
        found = self.features.express(maps)
        self.tally.logits.append(head(found.reconstruction))
        self.tally.residual += float(np.square(maps - found.reconstruction, dtype=np.float64).sum())
        self.tally.total += float(np.square(maps, dtype=np.float64).sum())
        return found.columns


def _layout(store: Store, spec: StageSpec) -> Layout:
    activations = open_finished(store, spec.inputs["activations"])
    _, h, w, d = activations.layout.arrays["maps"].shape
    class_ranges = common_classes(store, spec, "reference")
    longest = max(stop - start for start, stop in class_ranges.values())
    rows = classes_per_partition(len(class_ranges), longest * h * w * d, GROUP_VALUES)
    values = ArrayLayout((len(class_ranges), len(MEASURES)), "float64", ("class", "measure"), rows, rows)
    labels = ArrayLayout((len(class_ranges),), "int64", ("class",), rows, rows)
    return Layout(values.partitions, {"values": values, "label": labels})


def _compared(spec: StageSpec) -> Hashable:
    """Return the reference and the held-out samples of a comparison."""
    return spec.inputs["reference"], spec.inputs["activations"]


def _partition(work: Work, number: int) -> None:
    """Evaluate a few classes for all stages in the work."""
    from tasks.capture import run_head

    started = time.perf_counter()
    stage, spec = work.stage, work.stage.spec
    activations = open_finished(stage.store, spec.inputs["activations"])
    device = choose_device(work.device)
    head = partial(run_head, open_split(stage.store, spec.inputs["activations"], device))
    fitted = [spec.inputs["reference"], *(one.spec.inputs["features"] for one in work.stages)]
    readers = [method_of(one).read(stage.store, one) for one in fitted]
    first, last = stage.layout.arrays["values"].span(number)
    class_ranges = list(ranges_by_class(activations).items())[first:last]
    values = np.full((len(work.stages), last - first, len(MEASURES)), np.nan)
    for row, (label, class_range) in enumerate(class_ranges):
        sets = [_Set(read(first + row)) for read in readers]
        values[:, row] = _evaluate_class(activations, label, class_range, sets, head)
    spent = (time.perf_counter() - started) / len(work.stages)

    def write(index: int, part: Partition) -> None:
        part.write("values", values[index])
        part.write("label", np.array([label for label, _ in class_ranges], np.int64))
        part.numbers.update(measured(together=len(work.stages), seconds=spent))

    write_each(work.stages, number, write)


def _evaluate_class(
    activations: FinishedStage, label: int, class_range: tuple[int, int], sets: list[_Set], whole: Callable[..., Maps]
) -> NDArray[np.float64]:
    """Return the measures (sets - 1, MEASURES) of one class; the first set is the reference."""
    start, stop = class_range
    _, h, w, d = activations.layout.arrays["maps"].shape
    # Results must not depend on the number of sets, and products must not mix the columns of two sets. The order of
    # BLAS's sums depends on the width of a matrix. A stage that is made alone must give the same bits.
    size = max(2, min(CHUNK_VALUES // (h * w * d), CHUNK_ROWS // (h * w)))
    shapes: list[JointShape] = []
    bounds = [*range(start, stop, size), stop]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]  # the null distance exchanges images, so a chunk needs at least two
    for chunk, (low, high) in enumerate(itertools.pairwise(bounds)):
        maps = activations.read("maps", low, high).astype(np.float32)
        head = partial(whole, apart=read_apart(activations, np.arange(low, high)))
        reference, *others = (one.columns(maps, head) for one in sets)
        shapes = shapes or [JointShape([reference.shape[1], columns.shape[1]]) for columns in others]
        exchanged = permuted_images(len(maps), h * w, [label, chunk])
        for shape, columns in zip(shapes, others, strict=True):
            shape.update([reference, columns], exchanged)
    plain = activations.read("logits", start, stop).astype(np.float32)
    return np.array([_measures(shape, one, plain, label) for shape, one in zip(shapes, sets[1:], strict=True)])


def _measures(shape: JointShape, one: _Set, plain: Maps, label: int) -> list[float]:
    """Return the measures of one set, the second in `shape`, in the order of MEASURES; undefined ones are NaN."""
    logits, labels = np.concatenate(one.tally.logits), np.full(len(plain), label)
    found: dict[str, float] = {"n_val": len(plain), "n_rows": shape.n}
    found |= {"rank_reference": shape.rank(0), "rank": shape.rank(1)}
    for name, alpha in ALPHAS.items():
        if shape.n < 2:
            found |= dict.fromkeys((f"distance_{name}", f"self_{name}", f"null_{name}"), np.nan)
            continue
        scaled = 0 < alpha < 1  # only there the distance depends on scale and number of rows
        found[f"distance_{name}"] = shape.distance(0, 1, alpha, scaled)
        found[f"self_{name}"] = shape.distance(0, 0, alpha, scaled)
        found[f"null_{name}"] = shape.null_distance(0, 1, alpha, scaled) if len(plain) > 1 else np.nan
    found |= {"accuracy": top_k_accuracy(logits, labels, 1), "agreement": agreement(logits, plain)}
    found |= {"accuracy_plain": top_k_accuracy(plain, labels, 1)}
    k = min(5, plain.shape[1])
    found |= {
        "accuracy_top5": top_k_accuracy(logits, labels, k),
        "accuracy_plain_top5": top_k_accuracy(plain, labels, k),
    }
    found |= {"error_val": (one.tally.residual / one.tally.total) ** 0.5 if one.tally.total else 0.0}
    found |= {"fidelity": fidelity(plain[:, label], logits[:, label])}
    return [found[name] if np.isfinite(found[name]) else np.nan for name in MEASURES]


def _summary(stage: Stage) -> dict[str, Json]:
    return {"measures": list(MEASURES)}


def _size(spec: StageSpec, survey: Survey) -> Size:
    activations = spec.inputs["activations"]
    n_classes, longest = count_classes(activations, survey)
    found = map_shapes(activations, survey)
    chunk = min(CHUNK_VALUES, longest * int(np.prod(found.maps)))
    rows = min(CHUNK_ROWS, longest * int(np.prod(found.maps[1:])))
    features = spec.inputs["features"]
    columns = (MOST_TOGETHER + 1) * method_of(features).n_columns(features, found.maps[0])
    kept = 4 * (MOST_TOGETHER + 2) * longest * found.logits
    return Size(8 * n_classes * len(MEASURES), 4 * 8 * chunk + 4 * 8 * rows * columns + kept)


EVALUATION = Step("evaluation", VERSION, _layout, _partition, _size, summary=_summary, group=_compared, network=True)
