"""The features stage: it fits an interpreter to the coreset of each class."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec, signature_defaults, without_defaults
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters import INTERPRETERS, Interpreter
from tasks.interpreters.ice import importance, top_heat_maps
from tasks.steps.common.activations import check_same_samples, map_shapes, ranges_by_class
from tasks.steps.common.rows import read_rows
from tasks.steps.interpretation.method import Expressed, Head, Maps
from tasks.steps.interpretation.selection import classes_per_partition, count_classes, kept_positions

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 3
GROUP_VALUES = 2_000_000  # map values that a partition fits: about a second of work
BEST_MAPS = 3  # features of an image that its heat map shows


def features_spec(
    interpreter: str, activations: StageSpec, selection: StageSpec, parameters: Mapping[str, Json], seed: int
) -> StageSpec:
    """Return the spec of the features that an interpreter finds on a coreset."""
    own = without_defaults(parameters, signature_defaults(INTERPRETERS[interpreter].fit))
    kept = {"interpreter": interpreter, "seed": seed, **own}
    inputs = {"activations": activations, "selection": selection}
    return FEATURES.spec(kept, inputs, label=f"{interpreter} on {selection.label}")


@dataclass(frozen=True)
class FittedClass:
    """The features of one class, as an interpreter reads them.

    Attributes
    ----------
    arrays : by name, as the interpreter's `fit` gives them
    """

    interpreter: Interpreter
    arrays: Mapping[str, Maps]

    def express(self, maps: Maps) -> Expressed:
        """Return columns and reconstruction of maps (n, h, w, d)."""
        codes = self.interpreter.encode(self.arrays, maps)
        rebuilt = self.interpreter.reconstruct(self.arrays, codes)
        return Expressed(self.interpreter.columns(self.arrays, codes), rebuilt)

    def heat_maps(self, maps: Maps, size: tuple[int, int]) -> Maps:
        """Return one heat map for each of n images, of the features with the largest codes: (n, H, W) in [0, 1]."""
        return np.stack([top_heat_maps(codes, BEST_MAPS, size) for codes in self.interpreter.encode(self.arrays, maps)])

    def responses(self, maps: Maps) -> Maps:
        """Return the codes (n, h, w, r) of maps (n, h, w, d)."""
        return self.interpreter.encode(self.arrays, maps)

    def directions(self) -> NDArray[np.float64]:
        """Return the direction (r, d) of each feature: what code 1 of this feature alone stands for."""
        r = len(next(iter(self.arrays.values())))
        alone = np.eye(r, dtype=np.float32).reshape(1, 1, r, r)
        whole, nothing = (self.interpreter.reconstruct(self.arrays, codes)[0, 0] for codes in (alone, 0 * alone))
        found: NDArray[np.float64] = whole.astype(np.float64) - nothing
        return found

    def contributions(self, head: Head, maps: Maps, responses: Maps, label: int) -> tuple[NDArray[np.float64], float]:
        """Return what each feature's part of the maps adds to the logit of a class, and the logit; means."""
        import torch

        def first(given: Tensor) -> Tensor:
            return head(given.movedim(1, -1) * 1)  # it may work in place, which a leaf does not allow

        with torch.inference_mode():
            logit = float(head(torch.from_numpy(maps) * 1)[:, label].double().mean())
        return importance(first, maps, self.directions().astype(np.float32), label, codes=responses), logit


def read_features(store: Store, spec: StageSpec) -> Callable[[int], FittedClass]:
    """Open finished features; the result gives the features of the class with an index."""
    stage, interpreter = open_finished(store, spec), INTERPRETERS[spec.parameters["interpreter"]]

    def read(index: int) -> FittedClass:
        arrays = {name: stage.read(name, index, index + 1)[0].astype(np.float32) for name in stage.layout.arrays}
        return FittedClass(interpreter, arrays)

    return read


def class_numbers(stage: Stage) -> dict[str, Json]:
    """Return the metrics of each class's fit, by label."""
    records = [stage.marker(number) for number in range(stage.layout.partitions)]
    return {label: numbers for m in records if m is not None for label, numbers in m["numbers"]["classes"].items()}


def _layout(store: Store, spec: StageSpec) -> Layout:
    activations = open_finished(store, spec.inputs["activations"])
    selection = open_finished(store, spec.inputs["selection"])
    check_same_samples(activations, open_finished(store, spec.inputs["selection"].inputs["activations"]))
    _, h, w, d = activations.layout.arrays["maps"].shape
    n_classes, longest = selection.layout.arrays["order"].shape
    rows = classes_per_partition(n_classes, longest * h * w * d, GROUP_VALUES)
    parameters = {k: v for k, v in spec.parameters.items() if k not in ("interpreter", "seed")}
    shapes = INTERPRETERS[spec.parameters["interpreter"]].shapes(d, **parameters)
    arrays = {}
    for name, shape in shapes.items():
        axes = tuple(f"{name}_{axis}" for axis in range(len(shape)))
        arrays[name] = ArrayLayout((n_classes, *shape), "float32", ("class", *axes), rows, rows)
    return Layout(-(-n_classes // rows), arrays)


def _partition(work: Work, number: int) -> None:
    """Fit a few classes, one after the other."""
    stage, parameters = work.stage, dict(work.stage.spec.parameters)
    activations = open_finished(stage.store, stage.spec.inputs["activations"])
    selection = open_finished(stage.store, stage.spec.inputs["selection"])
    fit, seed = INTERPRETERS[parameters.pop("interpreter")].fit, parameters.pop("seed")
    with stage.partition(number) as part:
        first, last = part.span
        class_ranges = list(ranges_by_class(activations).items())[first:last]
        arrays = {name: np.zeros((last - first, *a.shape[1:]), a.dtype) for name, a in stage.layout.arrays.items()}
        logged, positions = {}, kept_positions(selection, first, last)
        for row, (label, _) in enumerate(class_ranges):
            kept = np.sort(positions[row])
            maps = read_rows(activations, "maps", kept)
            started = time.perf_counter()
            try:
                found = fit(maps, seed=[seed, label], **parameters)
            except ValueError as error:
                raise ValueError(f"class {label}: {error}") from error
            for name, array in found.arrays.items():
                arrays[name][row][tuple(slice(size) for size in array.shape)] = array
            logged[str(label)] = {**found.numbers, "seconds": time.perf_counter() - started, "kept": len(kept)}
        for name, array in arrays.items():
            part.write(name, array)
        part.numbers.update(measured(classes=logged))


def _summary(stage: Stage) -> dict[str, Json]:
    return {"classes": class_numbers(stage)}


def n_columns(spec: StageSpec, channels: int) -> int:
    """Return the largest number of columns of a class's features: one for each vector of `channels` values."""
    return max(1, _count_values(spec, channels) // channels)


def _count_values(spec: StageSpec, channels: int) -> int:
    """Return the numbers that one class's features take."""
    parameters = {k: v for k, v in spec.parameters.items() if k not in ("interpreter", "seed")}
    arrays = INTERPRETERS[spec.parameters["interpreter"]].shapes(channels, **parameters).values()
    return sum(int(np.prod(shape)) for shape in arrays)


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: the largest class's maps, a share that is kept, and as much for the interpreter."""
    activations = spec.inputs["activations"]
    n_classes, longest = count_classes(activations, survey)
    maps = map_shapes(activations, survey).maps
    return Size(4 * n_classes * _count_values(spec, maps[0]), 4 * longest * int(np.prod(maps)) * 3)


FEATURES = Step("features", VERSION, _layout, _partition, _size, summary=_summary)
