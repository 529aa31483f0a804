"""The basis of an index: principal axes of the directions, and of the inputs, of reference queries at each layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.index_norms import axes_arrays, fitted_axes, gram_shapes, rank_of
from tasks.steps.tracing.layers import layers_to_trace
from tasks.steps.tracing.projection import INPUT_BYTES
from tasks.steps.tracing.queries import count_queries, query_inputs
from tasks.steps.tracing.targets import Target, layer_targets

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.recording.sources import UpdateSource
    from tasks.tracing.basis import Directions

VERSION = 2
AXES = {4: ("query", "channel", "row", "column"), 2: ("query", "value")}  # of images, and of graphs


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


def split_queries(store: Store, spec: StageSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the images of references and of held-out queries."""
    import torch

    images = query_inputs(store, spec.inputs["queries"], device)
    held = torch.from_numpy(held_out(len(images), int(str(spec.place["held_out"]))))
    return images[~held], images[held]


def _basis_layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout of the basis: one partition."""
    import torch

    references, held = split_queries(store, spec, torch.device("cpu"))
    m, h, k = len(references), len(held), int(str(spec.place["coefficients"]))
    axes = AXES.get(references.ndim, ("query", *(f"axis_{axis}" for axis in range(1, references.ndim))))
    arrays = {"input": ArrayLayout(tuple(references.shape), "float32", axes, m, m)}
    for layer in layers_of(spec, open_archive(store, spec.inputs["network"]), store, references[:1]):
        name = layer.target.name
        arrays[f"basis.{name}"] = ArrayLayout((m, k), "float64", ("query", "coefficient"), m, m)
        if h:
            arrays[f"place.{name}"] = ArrayLayout((h, k), "float64", ("held", "coefficient"), h, h)
            arrays[f"square.{name}"] = ArrayLayout((h,), "float64", ("held",), h, h)
        arrays |= axes_arrays(name, layer.directions, spec.place, h)
    return Layout(1, arrays)


def _make_basis(work: Work, number: int) -> None:
    """Find the principal axes of the references' directions, and the place of the held-out ones."""
    from tasks.tracing.basis import fit_basis

    stage, device = work.stage, choose_device(work.device)
    store, spec = stage.store, stage.spec
    source = open_archive(store, spec.inputs["network"])
    references, held = split_queries(store, spec, device)
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
            seen = fitted_axes(name, layer.directions, None if other is None else other.directions, rank_of(spec.place))
            for key, values in seen.items():
                part.write(key, values)
        part.numbers.update(measured(references=len(references), held_out=len(held)))


def _basis_size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size of the basis: weights of the references, axes of the inputs, and the references' images."""
    from tasks.tracing.grams import EXACT

    traced, n = layers_to_trace(spec, survey), count_queries(spec.inputs["queries"], survey)
    image = survey.look(spec.inputs["network"], "bytes of an input", lambda model, example, images: example.nbytes)
    weights, k = state_bytes(survey.blank(spec.inputs["network"])), int(str(spec.place["coefficients"]))
    axes = [shape.groups * shape.rank * shape.width for shape in gram_shapes(spec, survey, traced)]
    peak = 4 * INPUT_BYTES + 8 * weights + 8 * n * n + 64 * max(axes, default=0) + 4 * EXACT
    return Size(n * (len(traced) * 8 * k + int(image)) + 4 * sum(axes), peak)


BASIS = Step("index-basis", VERSION, _basis_layout, _make_basis, _basis_size, network=True)
