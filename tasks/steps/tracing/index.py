"""The index of an archive: coefficients of every update on a basis of query directions, for previews of other queries.

`index-basis` holds the basis of each layer, from reference queries; `index` holds the coefficients of all updates, and
the errors of held-out queries whose gammas are computed exactly in the same pass.
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
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.recording import UPDATES, reading_peak
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.layers import layers_to_trace
from tasks.steps.tracing.projection import INPUT_BYTES
from tasks.steps.tracing.queries import count_queries, queries_spec, query_inputs
from tasks.steps.tracing.targets import Target, layer_targets

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.recording.sources import UpdateBlock, UpdateSource
    from tasks.tracing.basis import Directions

VERSION = 1
ERRORS = ("error", "exact")  # sums over steps of squares, in units of ||G|| ||D||

Doubles = NDArray[np.float64]


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


def held_out(n: int, wanted: int) -> NDArray[np.bool_]:
    """Return which of n queries, of all classes in turn, are held out: at most a quarter."""
    found = np.zeros(n, bool)
    count = min(wanted, n // 4)
    found[np.linspace(0, n - 1, count).round().astype(np.int64)] = True
    return found


@dataclass(frozen=True)
class Layer:
    """A traced layer with the directions of some queries."""

    target: Target
    directions: Directions


def layers_of(spec: StageSpec, source: UpdateSource, store: Store, images: Tensor) -> list[Layer]:
    """Return the traced layers with the directions of images, on their device."""
    from tasks.capture import capture_inputs
    from tasks.tracing.basis import Directions

    model = load_network(store, spec.inputs["queries"], images.device)
    targets = layer_targets(spec, source, model, images[:1])
    inputs = capture_inputs(model, [target.name for target in targets], images)
    return [Layer(t, Directions(t.module, t.weight, inputs[t.name], t.anchor, t.bias)) for t in targets]


def _split(store: Store, spec: StageSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the images of references and of held-out queries."""
    import torch

    images = query_inputs(store, spec.inputs["queries"], device)
    held = torch.from_numpy(held_out(len(images), int(str(spec.place["held_out"]))))
    return images[~held], images[held]


def _basis_layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout of the basis: one partition."""
    import torch

    references, held = _split(store, spec, torch.device("cpu"))
    m, h, k = len(references), len(held), int(str(spec.place["coefficients"]))
    axes = ("query", "channel", "row", "column") if references.ndim == 4 else ("query", "value")
    arrays = {"input": ArrayLayout(tuple(references.shape), "float32", axes, m, m)}
    for layer in layers_of(spec, open_archive(store, spec.inputs["network"]), store, references[:1]):
        name = layer.target.name
        arrays[f"basis.{name}"] = ArrayLayout((m, k), "float64", ("query", "coefficient"), m, m)
        if h:
            arrays[f"place.{name}"] = ArrayLayout((h, k), "float64", ("held", "coefficient"), h, h)
            arrays[f"square.{name}"] = ArrayLayout((h,), "float64", ("held",), h, h)
    return Layout(1, arrays)


def _make_basis(work: Work, number: int) -> None:
    """Find the principal axes of the references' directions, and the place of the held-out ones."""
    from tasks.tracing.basis import fit_basis

    stage, device = work.stage, choose_device(work.device)
    store, spec = stage.store, stage.spec
    source = open_archive(store, spec.inputs["network"])
    references, held = _split(store, spec, device)
    with stage.partition(number) as part:
        part.write("input", references.float().cpu().numpy())
        others = {one.target.name: one for one in (layers_of(spec, source, store, held) if len(held) else ())}
        for layer in layers_of(spec, source, store, references):
            name, other = layer.target.name, others.get(layer.target.name)
            basis = fit_basis(layer.directions.products(layer.directions), int(str(spec.place["coefficients"])))
            part.write(f"basis.{name}", basis.weights)
            if other is not None:
                part.write(f"place.{name}", basis.coefficients(layer.directions.products(other.directions).T))
                part.write(f"square.{name}", other.directions.squares())
        part.numbers.update(measured(references=len(references), held_out=len(held)))


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
    return Layout(len(segments), arrays)


def indexed_layers(basis: FinishedStage) -> list[str]:
    """Return the layers of a basis, in the order of the network."""
    return [name.removeprefix("basis.") for name in basis.layout.arrays if name.startswith("basis.")]


def _partition(work: Work, number: int) -> None:
    """Project the updates of a segment on the axes, and compare the gammas of held-out queries."""
    from tasks.tracing.basis import Basis

    stage, device = work.stage, choose_device(work.device)
    store, spec = stage.store, stage.spec
    source, basis = open_archive(store, spec.inputs["network"]), open_finished(store, spec.inputs["basis"])
    segment, layers = source.segments()[number], _opened(store, spec, device)
    n = segment.stop - segment.start
    with stage.partition(number) as part:
        found = {
            name: np.zeros((stop - start, *layout.shape[1:]), layout.dtype)
            for name, layout in stage.layout.arrays.items()
            for start, stop in [layout.span(number)]
        }
        axes = {name: Basis(basis.read(f"basis.{name}").astype(np.float64)) for name in layers}
        for block in source.blocks(segment, list(layers)):
            rows = slice(block.start - segment.start, block.stop - segment.start)
            if not block.recorded:
                rows = slice(rows.stop - 1, rows.stop)  # the sum of a gap is stored at its last step
            name, (references, held) = block.layer, layers[block.layer]
            weights, biases = _updates(block, references)
            steps = axes[name].coefficients(references.gammas(weights, biases))
            sizes = _sizes(weights, biases)
            found[f"coefficient.{name}"][rows], found[f"size.{name}"][rows] = steps, sizes
            if held is not None:
                place, square = (basis.read(f"{key}.{name}").astype(np.float64) for key in ("place", "square"))
                scale = sizes[:, None] * np.sqrt(square)
                unit = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
                exact = held.gammas(weights, biases)
                off = (steps @ place.T - exact) * unit
                found[f"errors.{name}"][0] += np.stack([np.square(off).sum(0), np.square(exact * unit).sum(0)], axis=1)
        for name, values in found.items():
            part.write(name, values)
        part.numbers.update(measured(steps=n))


@lru_cache(maxsize=1)
def _opened(store: Store, spec: StageSpec, device: torch.device) -> dict[str, tuple[Directions, Directions | None]]:
    """Return the directions of references and of held-out queries by layer; this process keeps them."""
    source = open_archive(store, spec.inputs["network"])
    references, held = _split(store, spec, device)
    first = layers_of(spec, source, store, references)
    second: list[Layer] = layers_of(spec, source, store, held) if len(held) else []
    others = {layer.target.name: layer.directions for layer in second}
    return {layer.target.name: (layer.directions, others.get(layer.target.name)) for layer in first}


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


def _basis_size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size of the basis: weights of the references, and their images."""
    traced, n = layers_to_trace(spec, survey), count_queries(spec.inputs["queries"], survey)
    image = survey.look(spec.inputs["network"], "bytes of an input", lambda model, example, images: example.nbytes)
    weights = state_bytes(survey.blank(spec.inputs["network"]))
    k = int(str(spec.place["coefficients"]))
    return Size(n * (len(traced) * 8 * k + int(image)), 4 * INPUT_BYTES + 8 * weights + 8 * n * n)


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size of the index: so many coefficients, and a norm, per step and layer."""
    training, traced = spec.inputs["network"], layers_to_trace(spec, survey)
    _, steps = training_steps(training, survey.data(training.inputs["data"]).summary)
    row = 4 * len(traced) * (int(str(spec.place["coefficients"])) + 1)
    weights = state_bytes(survey.blank(training))
    peak = row * training_of(training).checkpoint_every + 4 * INPUT_BYTES + UPDATES + 6 * weights
    return Size(row * steps, peak + reading_peak(training, survey, weights))


BASIS = Step("index-basis", VERSION, _basis_layout, _make_basis, _basis_size, network=True)
INDEX = Step("index", VERSION, _layout, _partition, _size, summary=_summary, network=True)
