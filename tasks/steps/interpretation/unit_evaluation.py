"""The unit-evaluation stage: distance, accuracy and coverage of the units of a coreset, on held-out samples (VEBI).

All coresets with the same reference are compared together, in one run of the network over the images of a class.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
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
from tasks.metrics.accuracy import top_k_accuracy
from tasks.metrics.joint_shape import JointShape
from tasks.steps.common.activations import batch_size, map_shapes, open_split, ranges_by_class
from tasks.steps.common.networks import choose_device
from tasks.steps.interpretation.measures import ALPHAS, MEASURES, permuted_images
from tasks.steps.interpretation.responses import call_of_unit, read_images, units_of
from tasks.steps.interpretation.selection import classes_per_partition, common_classes, count_classes
from tasks.steps.interpretation.units import ClassUnits, read_units

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.capture import Split
    from tasks.splitting.relus import Layouts

VERSION = 1
GROUP_IMAGES = 200  # images of a partition that one set is compared on
OWN = ("accuracy_without", "units", "units_reference", "units_shared", "layers_compared", "layers_skipped")


def unit_evaluation_spec(features: StageSpec, reference: StageSpec, held_out: StageSpec) -> StageSpec:
    """Return the spec that compares the units of a coreset with those of the full data, on held-out samples."""
    inputs = {"features": features, "reference": reference, "activations": held_out}
    return UNIT_EVALUATION.spec({}, inputs, label=features.label)


def unit_tables(
    store: Store, features: StageSpec, evaluation: StageSpec, scores: StageSpec | None
) -> dict[str, pd.DataFrame]:
    """Return the tables `units` (each class's units with weights) and `coverage` (their number by ReLU call)."""
    fitted, compared = open_finished(store, features), open_finished(store, evaluation)
    labels = np.asarray(compared.read("label"), np.int64)
    weights = np.asarray(fitted.read("weights"), np.float64)
    layers = np.array(fitted.summary["layers"])
    calls, starts = call_of_unit(layers.tolist()), np.cumsum(layers) - layers
    row, unit = np.nonzero(weights)
    units = {"label": labels[row], "call": calls[unit], "channel": unit - starts[calls[unit]]}
    coverage = np.asarray(compared.read("coverage"), np.int64)
    classes, call = np.indices(coverage.shape[:2]).reshape(2, -1)
    counts = coverage.reshape(-1, 3).T
    names = ("units", "units_reference", "units_shared")
    covered = {"label": labels[classes], "call": call, **dict(zip(names, counts, strict=True))}
    return {"units": pd.DataFrame(units).assign(weight=weights[row, unit]), "coverage": pd.DataFrame(covered)}


@dataclass
class _Pair:
    """The units of a coreset next to those of the full data, for one class."""

    units: ClassUnits
    reference: ClassUnits
    shapes: dict[int, JointShape] = field(default_factory=dict)
    correct: int = 0

    def columns(self) -> dict[int, tuple[list[int], list[int]]]:
        """Return the compared channels of each ReLU call: as many of largest weight on both sides."""
        mine, other = self.units.by_call(), self.reference.by_call()
        shared = sorted(set(mine) & set(other))
        sizes = {call: min(len(mine[call]), len(other[call])) for call in shared}
        return {call: (other[call][: sizes[call]], mine[call][: sizes[call]]) for call in shared}


def _layout(store: Store, spec: StageSpec) -> Layout:
    class_ranges = common_classes(store, spec, "reference")
    calls = len(open_finished(store, spec.inputs["reference"]).summary["layers"])
    n, longest = len(class_ranges), max(stop - start for start, stop in class_ranges.values())
    rows = classes_per_partition(n, longest, GROUP_IMAGES)
    arrays = {
        "values": ArrayLayout((n, len(MEASURES) + len(OWN)), "float64", ("class", "measure"), rows, rows),
        "coverage": ArrayLayout((n, calls, 3), "int64", ("class", "call", "set"), rows, rows),
        "label": ArrayLayout((n,), "int64", ("class",), rows, rows),
    }
    return Layout(arrays["values"].partitions, arrays)


def _compared(spec: StageSpec) -> Hashable:
    """Return the reference and the held-out samples of a comparison."""
    return spec.inputs["reference"], spec.inputs["activations"]


def _partition(work: Work, number: int) -> None:
    """Evaluate a few classes for all stages in the work."""
    started, stage, spec = time.perf_counter(), work.stage, work.stage.spec
    activations = open_finished(stage.store, spec.inputs["activations"])
    device = choose_device(work.device)
    split = open_split(stage.store, spec.inputs["activations"], device)
    reference = read_units(stage.store, spec.inputs["reference"])
    readers = [read_units(stage.store, one.spec.inputs["features"]) for one in work.stages]
    first, last = stage.layout.arrays["values"].span(number)
    class_ranges = list(ranges_by_class(activations).items())[first:last]
    shapes = stage.layout.arrays
    values = np.full((len(work.stages), last - first, shapes["values"].shape[1]), np.nan)
    coverage = np.zeros((len(work.stages), last - first, *shapes["coverage"].shape[1:]), np.int64)
    for row, (label, span) in enumerate(class_ranges):
        pairs = [_Pair(read(first + row), reference(first + row)) for read in readers]
        plain = activations.read("logits", *span).astype(np.float32)
        _compare(activations, spec.inputs["activations"], split, pairs, label, span)
        for index, pair in enumerate(pairs):
            values[index, row] = _measures(pair, plain, label)
            coverage[index, row] = _coverage(pair, shapes["coverage"].shape[1])
    spent = (time.perf_counter() - started) / len(work.stages)

    def write(index: int, part: Partition) -> None:
        part.write("values", values[index])
        part.write("coverage", coverage[index])
        part.write("label", np.array([label for label, _ in class_ranges], np.int64))
        part.numbers.update(measured(together=len(work.stages), seconds=spent))

    write_each(work.stages, number, write)


def _compare(
    activations: FinishedStage, spec: StageSpec, split: Split, pairs: list[_Pair], label: int, span: tuple[int, int]
) -> None:
    """Add the images of a class to the shapes and the counts of all pairs."""
    import torch

    from tasks.splitting.relus import relu_layouts, zeroed

    size = max(2, batch_size(tuple(activations.summary["input"])))
    bounds = [*range(*span, size), span[1]]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]  # the null distance exchanges images, so a chunk needs at least two
    layouts = relu_layouts(split.trunk, read_images(activations, spec, span[0], span[0] + 1).to(split.device))
    for chunk, (low, high) in enumerate(itertools.pairwise(bounds)):
        images = read_images(activations, spec, low, high).to(split.device)
        with torch.inference_mode():
            _add_shapes(split, layouts, images, pairs, [label, chunk])
            for pair in pairs:
                logits = split.head(zeroed(split.trunk, images, pair.units.by_call(), layouts))
                pair.correct += int((logits.argmax(dim=1) == label).sum())


def _add_shapes(split: Split, layouts: Layouts, images: torch.Tensor, pairs: list[_Pair], seed: Sequence[int]) -> None:
    """Add the compared units' maps of a few images to the shapes of all pairs."""
    from tasks.splitting.relus import ReluCalls, as_maps

    wanted = [pair.columns() for pair in pairs]

    def see(call: int, output: Tensor) -> None:
        for pair, columns in zip(pairs, wanted, strict=True):
            if call not in columns:
                continue
            maps = as_maps(call, output, layouts[call])
            blocks = [maps[:, chosen].movedim(1, -1).flatten(0, 2).double().cpu().numpy() for chosen in columns[call]]
            shape = pair.shapes.setdefault(call, JointShape([block.shape[1] for block in blocks]))
            shape.update(blocks, permuted_images(len(maps), int(np.prod(maps.shape[2:])), seed))

    with ReluCalls(see):
        split.trunk(images)


def _measures(pair: _Pair, plain: NDArray[np.float32], label: int) -> list[float]:
    """Return the measures of a pair in the order of MEASURES and OWN; those that units do not have are NaN."""
    shapes = [pair.shapes[call] for call in sorted(pair.shapes)]
    mine, other = pair.units.weights > 0, pair.reference.weights > 0
    found: dict[str, float] = {"n_val": len(plain), "n_rows": sum(shape.n for shape in shapes)}
    found |= {"rank_reference": sum(s.rank(0) for s in shapes), "rank": sum(s.rank(1) for s in shapes)}
    for name, alpha in ALPHAS.items():
        scaled = 0 < alpha < 1
        usable = [shape for shape in shapes if shape.n > 1]
        if not usable:
            continue
        found[f"distance_{name}"] = float(np.mean([shape.distance(0, 1, alpha, scaled) for shape in usable]))
        found[f"self_{name}"] = float(np.mean([shape.distance(0, 0, alpha, scaled) for shape in usable]))
        if len(plain) > 1:
            found[f"null_{name}"] = float(np.mean([shape.null_distance(0, 1, alpha, scaled) for shape in usable]))
    labels = np.full(len(plain), label)
    found |= {"accuracy_plain": top_k_accuracy(plain, labels, 1)}
    found |= {"accuracy_plain_top5": top_k_accuracy(plain, labels, min(5, plain.shape[1]))}
    calls = set(pair.units.by_call()) | set(pair.reference.by_call())
    found |= {"accuracy_without": pair.correct / len(plain), "units": int(mine.sum())}
    found |= {"units_reference": int(other.sum()), "units_shared": int((mine & other).sum())}
    found |= {"layers_compared": len(shapes), "layers_skipped": len(calls) - len(shapes)}
    return [found.get(name, np.nan) if np.isfinite(found.get(name, np.nan)) else np.nan for name in (*MEASURES, *OWN)]


def _coverage(pair: _Pair, calls: int) -> NDArray[np.int64]:
    """Return by ReLU call (calls, 3) the units of the coreset, those of the full data, and those of both."""
    mine, other = pair.units.weights > 0, pair.reference.weights > 0
    numbers = [np.bincount(pair.units.calls[chosen], minlength=calls) for chosen in (mine, other, mine & other)]
    return np.stack(numbers, axis=1).astype(np.int64)


def _summary(stage: Stage) -> dict[str, Json]:
    return {"measures": [*MEASURES, *OWN], "coverage": ["coreset", "full data", "both"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a forward pass, and the compared units of all sets: few next to the maps of all ReLUs."""
    activations = spec.inputs["activations"]
    n_classes, _ = count_classes(activations, survey)
    shapes, layers = map_shapes(activations, survey), units_of(activations, survey)
    written = 8 * n_classes * (len(MEASURES) + len(OWN) + 3 * len(layers) + 1)
    forward = batch_size(shapes.inputs) * 4 * (3 * int(np.prod(shapes.inputs)) + 10 * shapes.largest)
    return Size(written, forward + (MOST_TOGETHER + 1) * 8 * sum(layers) * 4 + 16 * max(layers) ** 2 * 8)


UNIT_EVALUATION = Step(
    "unit-evaluation", VERSION, _layout, _partition, _size, summary=_summary, group=_compared, network=True
)
