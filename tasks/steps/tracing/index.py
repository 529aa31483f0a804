"""The index of an archive: coefficients of every update on a basis of query directions, for previews of other queries.

`index` holds the coefficients of all updates, and the errors of held-out queries whose gammas are computed exactly in
the same pass. `index_basis` makes the basis; `index_norms` is the part for norms.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.schema import Network
from configs.tracing import Index, Queries, Tracing
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of, training_steps
from tasks.steps.common.networks import choose_device
from tasks.steps.common.recording import UPDATES, reading_peak
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.index_basis import BASIS, Layer, layers_of, split_queries
from tasks.steps.tracing.index_norms import Norms, exact_steps, gram_arrays, gram_shapes, rank_of, read_axes
from tasks.steps.tracing.layers import layers_to_trace
from tasks.steps.tracing.projection import INPUT_BYTES
from tasks.steps.tracing.queries import queries_spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.recording.sources import UpdateBlock
    from tasks.tracing.basis import Basis, Directions

VERSION = 2
ERRORS = ("error", "exact")  # sums over steps of squares, in units of ||G|| ||D||

Doubles = NDArray[np.float64]
Made = NDArray[np.float64] | NDArray[np.float16]


def index_spec(name: str, network: Network, manifest: StageSpec, training: StageSpec, asked: Tracing) -> StageSpec:
    """Return the spec of the index of a training's archive.

    Parameters
    ----------
    name : of the network
    manifest : the data set of the queries
    """
    wanted = asked.derive.index
    assert wanted is not None
    chosen = Queries(split=asked.queries.split, count=wanted.references + wanted.held_out)
    queries = queries_spec(name, network, manifest, training, chosen)
    settings = asked.model_dump(mode="json", include={"layers", "anchor", "bias"}) | wanted.model_dump(mode="json")
    kept = without_defaults(settings, {"layers": "all", "anchor": "final", "bias": False, **Index().model_dump()})
    inputs = {"network": training, "queries": queries}
    basis = BASIS.spec(kept, inputs, place=settings, label=training.label)
    return INDEX.spec({}, {**inputs, "basis": basis}, place=settings, label=training.label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per segment of the archive."""
    source, basis = open_archive(store, spec.inputs["network"]), open_finished(store, spec.inputs["basis"])
    segments, steps, k = source.segments(), source.steps, int(str(spec.place["coefficients"]))
    rows, arrays = segments[0].stop, dict[str, ArrayLayout]()
    for name in indexed_layers(basis):
        arrays[f"coefficient.{name}"] = ArrayLayout((steps, k), "float32", ("step", "coefficient"), rows, rows)
        arrays[f"size.{name}"] = ArrayLayout((steps,), "float32", ("step",), rows, rows)
        if f"square.{name}" in basis.layout.arrays:
            shape = (len(segments), basis.layout.arrays[f"square.{name}"].shape[0], len(ERRORS))
            arrays[f"errors.{name}"] = ArrayLayout(shape, "float64", ("part", "held", "sum"), 1, 1)
        arrays |= gram_arrays(name, basis, spec.place, (steps, rows, len(segments)))
    return Layout(len(segments), arrays)


def indexed_layers(basis: FinishedStage) -> list[str]:
    """Return the layers of a basis, in the order of the network."""
    return [name.removeprefix("basis.") for name in basis.layout.arrays if name.startswith("basis.")]


def _partition(work: Work, number: int) -> None:
    """Project the updates of a segment on the axes, and compare gammas and norms of held-out queries."""
    stage, device = work.stage, choose_device(work.device)
    store, spec = stage.store, stage.spec
    source = open_archive(store, spec.inputs["network"])
    segment, layers = source.segments()[number], _opened(store, spec, device)
    with stage.partition(number) as part:
        found = {
            name: np.zeros((stop - start, *layout.shape[1:]), layout.dtype)
            for name, layout in stage.layout.arrays.items()
            for start, stop in [layout.span(number)]
        }
        chosen = exact_steps(segment.start, segment.stop)
        for block in source.blocks(segment, list(layers)):
            steps = np.arange(block.start, block.stop)
            if not block.recorded:
                steps = steps[-1:]  # the sum of a gap is stored at its last step
            made, errors = layers[block.layer].project(block, np.isin(steps, chosen))
            for key, values in made.items():
                found[f"{key}.{block.layer}"][steps - segment.start] = values
            for key, values in errors.items():
                found[f"{key}.{block.layer}"][0] += values
        for name, values in found.items():
            part.write(name, values)
        part.numbers.update(measured(steps=segment.stop - segment.start))


@dataclass(frozen=True)
class Indexed:
    """A layer of the index with the directions of references and of held-out queries.

    Parameters
    ----------
    place, square : (H, k) coefficients and (H,) squared norms of the held-out directions
    """

    basis: Basis
    norms: Norms
    place: Doubles
    square: Doubles

    def project(self, block: UpdateBlock, exact: NDArray[np.bool_]) -> tuple[dict[str, Made], dict[str, Doubles]]:
        """Return what is kept of each update of a block, and the sums of the errors of held-out queries.

        Parameters
        ----------
        exact : (n,) which updates are compared in their norms
        """
        import torch

        references, held = self.norms.references, self.norms.held
        weights, biases = _updates(block, references)
        sizes = _sizes(weights, biases)
        steps = self.basis.coefficients(references.gammas(weights, biases))
        grams = self.norms.grams(weights, biases, sizes)
        made: dict[str, Made] = {"coefficient": steps, "size": sizes, "gram": grams}
        if held is None:
            return made, {}
        scale = sizes[:, None] * np.sqrt(self.square)
        unit = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
        gammas = held.gammas(weights, biases)
        off = (steps @ self.place.T - gammas) * unit
        errors = {"errors": np.stack([np.square(off).sum(0), np.square(gammas * unit).sum(0)], axis=1)}
        if exact.any():
            chosen = torch.from_numpy(np.flatnonzero(exact)).to(weights.device)
            some = None if biases is None else biases[chosen]
            errors["norm-errors"] = self.norms.errors(grams[exact], weights[chosen], some, sizes[exact])
        return made, errors


@lru_cache(maxsize=1)
def _opened(store: Store, spec: StageSpec, device: torch.device) -> dict[str, Indexed]:
    """Return the layers of the index; this process keeps them."""
    from tasks.tracing.basis import Basis

    source, basis = open_archive(store, spec.inputs["network"]), open_finished(store, spec.inputs["basis"])
    references, held = split_queries(store, spec, device)
    second: list[Layer] = layers_of(spec, source, store, held) if len(held) else []
    others, found = {layer.target.name: layer.directions for layer in second}, dict[str, Indexed]()
    for layer in layers_of(spec, source, store, references):
        name, other = layer.target.name, others.get(layer.target.name)
        kept = [
            basis.read(array).astype(np.float64) if other is not None else np.empty(0)
            for array in (f"place.{name}", f"square.{name}")
        ]
        norms = Norms(read_axes(basis, name, rank_of(spec.place)), layer.directions, other)
        found[name] = Indexed(Basis(basis.read(f"basis.{name}").astype(np.float64)), norms, *kept)
    return found


def _updates(block: UpdateBlock, directions: Directions) -> tuple[Tensor, Tensor | None]:
    """Return a block's updates of weight and, where it counts, bias, in the directions' dtype and device."""
    weights, biases = block.dense().to(directions.weight), block.dense_bias()
    return weights, None if directions.bias is None or biases is None else biases.to(directions.weight)


def _sizes(weights: Tensor, biases: Tensor | None) -> Doubles:
    """Return the norm of each update."""
    total = weights.double().flatten(1).square().sum(dim=1)
    if biases is not None:
        total = total + biases.double().square().sum(dim=1)
    found: Doubles = total.sqrt().cpu().numpy()
    return found


def _summary(stage: Stage) -> Document:
    """Return the layers and the number of steps."""
    basis = open_finished(stage.store, stage.spec.inputs["basis"])
    return {"layers": indexed_layers(basis), "network": stage.spec.inputs["network"].path, "basis": basis.path}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size of the index: so many coefficients, a norm, and a Gram matrix, per step and layer."""
    training, traced = spec.inputs["network"], layers_to_trace(spec, survey)
    _, steps = training_steps(training, survey.data(training.inputs["data"]).summary)
    grams = sum(shape.values for shape in gram_shapes(spec, survey, traced))
    row = len(traced) * 4 * (int(str(spec.place["coefficients"])) + 1) + 2 * grams
    weights = state_bytes(survey.blank(training))
    peak = row * training_of(training).checkpoint_every + 4 * INPUT_BYTES + UPDATES + 6 * weights
    return Size(row * steps, peak + reading_peak(training, survey, weights))


INDEX = Step("index", VERSION, _layout, _partition, _size, summary=_summary, network=True)
