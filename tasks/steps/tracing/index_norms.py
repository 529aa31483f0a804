"""The index's part for norms: a Gram matrix of each update on axes of the layer's inputs.

`index-basis` holds the axes, from reference queries; `index` holds the Gram matrices of all updates, divided by the
update's squared norm. Some steps of each segment are projected exactly on held-out queries, which gives the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.layouts import ArrayLayout
from storage.specs import StageSpec
from storage.stages import FinishedStage
from tasks.engine.survey import Survey

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.tracing.basis import Calibration, Directions
    from tasks.tracing.grams import GramShape, InputAxes

ERRORS = ("error", "exact", "steps")  # sums over some steps: squares in units of ||F|| ||D||, and their number
EXACT_STEPS = 16  # steps of a segment that are projected exactly

Doubles = NDArray[np.float64]


def axes_arrays(name: str, directions: Directions, settings: Mapping[str, object], held: int) -> dict[str, ArrayLayout]:
    """Return the arrays of a layer's axes in the basis."""
    from tasks.tracing.grams import gram_shape

    shape = gram_shape(directions.operation, rank_of(settings))
    sizes = (shape.groups, shape.rank, shape.width)
    found = {
        f"axes.{name}": ArrayLayout(sizes, "float32", ("group", "axis", "value"), shape.groups, shape.groups),
        f"group.{name}": ArrayLayout((shape.groups,), "int64", ("group",), shape.groups, shape.groups),
    }
    if held:
        found[f"seen.{name}"] = ArrayLayout((held,), "float64", ("held",), held, held)
    return found


def gram_shapes(spec: StageSpec, survey: Survey, layers: Sequence[str]) -> list[GramShape]:
    """Return the sizes of the axes and Gram matrices of each traced layer of an index or its basis."""
    from tasks.modules.naming import traced_module
    from tasks.tracing.grams import gram_shape
    from tasks.tracing.patches import Operation

    blank, found = survey.blank(spec.inputs["network"]), []
    for layer in layers:
        module = traced_module(blank, layer)
        biased = bool(spec.place["bias"]) and getattr(module, "bias", None) is not None
        operation = Operation(module, tuple(module.get_parameter("weight").shape), biased)
        found.append(gram_shape(operation, rank_of(spec.place)))
    return found


def rank_of(settings: Mapping[str, object]) -> int:
    """Return the number of axes that are wanted."""
    return int(str(settings["axes"]))


def fitted_axes(
    name: str, references: Directions, held: Directions | None, rank: int
) -> dict[str, NDArray[np.generic]]:
    """Return what the basis holds of a layer's axes."""
    from tasks.tracing.grams import fit_axes

    axes = fit_axes(references.operation, references.inputs, rank)
    found = {f"axes.{name}": axes.axes.float().numpy(), f"group.{name}": axes.groups.numpy()}
    if held is not None:
        found[f"seen.{name}"] = axes.of_queries(held.operation, held.inputs)[1].cpu().numpy()
    return found


def gram_arrays(
    name: str, basis: FinishedStage, settings: Mapping[str, object], sizes: tuple[int, int, int]
) -> dict[str, ArrayLayout]:
    """Return the arrays of a layer's Gram matrices in the index; `sizes` are steps, rows of a segment and segments."""
    steps, rows, segments = sizes
    values = values_of_gram(basis.layout.arrays[f"axes.{name}"].shape, rank_of(settings))
    found = {f"gram.{name}": ArrayLayout((steps, values), "float16", ("step", "pair"), rows, rows)}
    if f"seen.{name}" in basis.layout.arrays:
        shape = (segments, basis.layout.arrays[f"seen.{name}"].shape[0], len(ERRORS))
        found[f"norm-errors.{name}"] = ArrayLayout(shape, "float64", ("part", "held", "sum"), 1, 1)
    return found


def values_of_gram(shape: tuple[int, ...], rank: int) -> int:
    """Return the number of values of a Gram matrix on axes (groups, rank, width)."""
    groups, held, _ = shape
    return min(rank * (rank + 1) // 2, groups * held * (held + 1) // 2)


def read_axes(basis: FinishedStage, name: str, rank: int) -> InputAxes:
    """Return the axes of a layer."""
    import torch

    from tasks.tracing.grams import InputAxes

    axes = torch.from_numpy(basis.read(f"axes.{name}").astype(np.float64))
    groups = torch.from_numpy(basis.read(f"group.{name}").astype(np.int64))
    return InputAxes(axes, groups, values_of_gram(tuple(axes.shape), rank))


@dataclass(frozen=True)
class Norms:
    """What makes the Gram matrices of a layer's updates, and compares the norms of held-out queries."""

    axes: InputAxes
    references: Directions
    held: Directions | None

    def grams(self, weights: Tensor, biases: Tensor | None, sizes: Doubles) -> NDArray[np.float16]:
        """Return the Gram matrices (T, values) of updates, each of norm 1; `sizes` (T,) are the updates' norms."""
        import torch

        lengths = torch.from_numpy(sizes).to(weights.device)
        found = self.axes.of_updates(self.references.operation, weights, biases, lengths)
        made: NDArray[np.float16] = found.cpu().numpy().astype(np.float16)
        return made

    def errors(self, grams: NDArray[np.float16], weights: Tensor, biases: Tensor | None, sizes: Doubles) -> Doubles:
        """Return the sums (H, 3) of `ERRORS` over updates (T, ...), from their exact norms."""
        import torch

        from tasks.tracing.grams import norms_of, squares_of

        held = self.held
        assert held is not None
        products, _ = self.axes.of_queries(held.operation, held.inputs)
        lengths = torch.from_numpy(sizes).to(weights.device)
        made = norms_of(torch.from_numpy(grams).to(weights.device), products, lengths).cpu().numpy()
        exact = held.norms(weights, biases)
        scale = sizes[:, None] * squares_of(held.operation, held.inputs).sqrt().cpu().numpy()
        unit = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        sums = [np.square((made - exact) * unit).sum(axis=0), np.square(exact * unit).sum(axis=0)]
        return np.stack([*sums, np.full(len(sums[0]), np.count_nonzero(sizes), np.float64)], axis=1)


def exact_steps(start: int, stop: int) -> NDArray[np.int64]:
    """Return the steps of a segment that are projected exactly, evenly spread."""
    return np.unique(np.linspace(start, stop - 1, min(EXACT_STEPS, stop - start)).round().astype(np.int64))


def norm_calibration(stage: FinishedStage, basis: FinishedStage, name: str) -> Calibration:
    """Return the errors of the norms of held-out queries of an index at a layer."""
    from tasks.tracing.basis import Calibration

    if f"seen.{name}" not in basis.layout.arrays:
        return Calibration(np.empty(0), np.empty(0), np.empty(0))
    error, exact, steps = stage.read(f"norm-errors.{name}").astype(np.float64).sum(axis=0).T
    share = basis.read(f"seen.{name}").astype(np.float64)
    return Calibration(share, *(np.sqrt(sums / np.maximum(steps, 1.0)) for sums in (error, exact)))
