"""The neuron-contributions stage: projections of a training's updates on single neurons, each on its own images."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.concepts import Teaching
from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec, without_defaults
from storage.stages import Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import MOST_TOGETHER, Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of, training_steps
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.recording import UPDATES, archive_size, reading_peak
from tasks.steps.common.replays import open_archive
from tasks.steps.common.samples import read_positions
from tasks.steps.common.survey import state_bytes
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.responses import input_and_layers
from tasks.steps.concepts.watched import Watched
from tasks.steps.taught.units import Traced, planned_operation, traced_units
from tasks.steps.tracing.members import gradients_bytes, members_array, split_block, splits
from tasks.steps.tracing.projection import check_finite, described_targets
from tasks.steps.tracing.targets import Target, as_float, layer_targets

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.modules.rows import Inputs
    from tasks.recording.sources import UpdateBlock, UpdateSource

VERSION = 2
LINE = "concepts.teachers"

Floats = NDArray[np.float32]


def neuron_contributions_spec(
    answer: Monitored, training: StageSpec, layer: str, asked: Teaching, traced: Tracing
) -> StageSpec:
    """Return the spec of the contributions to the neurons of a layer, for the network's last weights.

    Parameters
    ----------
    answer : of question 3, of the network and seed
    training : the recorded training
    layer : a layer of question 3
    traced : settings of question 4: whether a bias counts, the anchor, and how steps are split
    """
    last = answer.snapshots[-1]
    network, place, digests, _ = Watched(last.network, "", -1, last.settings, training).identity()
    responses = answer.responses[-1][layer]
    settings = traced.model_dump(mode="json", include={"anchor", "bias", "split"})
    named = {**settings, "credit": settings["split"]}  # `split` names that of the probing images
    named.pop("split")
    kept = without_defaults(named, {"anchor": "final", "bias": False, "credit": "example"})
    own = [seen.neurons for seen in answer.seen if seen.layer == layer and seen.snapshot == len(answer.snapshots) - 1]
    parameters: Document = {"network": network, "split": responses.parameters["split"], "layer": layer, **kept}
    parameters |= {"neurons": asked.neurons, "images": asked.images}
    inputs = {"data": responses.inputs["data"], "network": training, "responses": responses}
    inputs |= {f"neurons {index}": spec for index, spec in enumerate(own)}
    place |= {**settings, "layout": responses.place["layout"], "required": asked.layers is not None}
    label = f"{training.label} {layer}"
    return NEURON_CONTRIBUTIONS.spec(parameters, inputs, digests=digests, place=place, label=label)


def with_units(spec: StageSpec, units: Sequence[str]) -> StageSpec:
    """Return the spec with the traced units among its settings, as stages of question 4 have them."""
    return replace(spec, place={**spec.place, "layers": [], "units": list(units)})


@dataclass(frozen=True)
class _Neurons:
    """The traced neurons of a stage: a target for each, and the inputs of its operation on its own images."""

    stage: Stage
    targets: Sequence[Target]
    inputs: Mapping[str, Inputs]
    rows: NDArray[np.int64]  # (k, m) of each neuron's images among the inputs


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition per segment of the archive. A layer without units does not have arrays."""
    import torch

    source = open_archive(store, spec.inputs["network"])
    found, n_segments = traced_units(store, spec, torch.device("cpu")), len(source.segments())
    return Layout(n_segments, _arrays(spec, source, found))


def _arrays(spec: StageSpec, source: UpdateSource, found: Traced) -> dict[str, ArrayLayout]:
    """Return the arrays of the contributions to each neuron on its images."""
    steps, rows, m = source.steps, source.segments()[0].stop, found.positions.shape[1]
    arrays: dict[str, ArrayLayout] = {}
    for name in found.names:
        for kind in ("gamma", "norm"):
            arrays[f"{kind}.{name}"] = ArrayLayout((steps, m), "float32", ("step", "image"), rows, rows)
        for kind in ("init", "preactivation"):
            arrays[f"{kind}.{name}"] = ArrayLayout((m,), "float32", ("image",), m, m)
        if splits(source, spec, found.operation):
            most = max(map(len, source.examples))
            shape, axes = (steps, most, m), ("step", "member", "image")
            arrays[members_array(name)] = ArrayLayout(shape, "float32", axes, rows, rows)
    return arrays


def _same_archive(spec: StageSpec) -> Hashable:
    """Return what the layers of one pass over an archive share."""
    return spec.inputs["network"].path


def _partition(work: Work, number: int) -> None:
    """Project the updates of a segment on the neurons of all layers in the work."""
    store, device = work.stage.store, choose_device(work.device)
    source = open_archive(store, work.stage.spec.inputs["network"])
    segment = source.segments()[number]
    with ExitStack() as parts:
        written = [parts.enter_context(stage.partition(number)) for stage in work.stages]
        layers = [_opened(stage, source, device) for stage in work.stages if stage.layout.arrays]
        arrays = {layer.stage.spec.path: _empty(layer.stage, number) for layer in layers}
        if segment.start == 0:
            for layer in layers:
                _constants(layer, source, arrays[layer.stage.spec.path])
        operations = list(dict.fromkeys(target.layer for layer in layers for target in layer.targets))
        members = any(name.startswith(members_array("")) for found in arrays.values() for name in found)
        sizes = [len(ids) for ids in source.examples]
        for block in source.blocks(segment, operations, members=members) if operations else ():
            span = slice(block.start - segment.start, block.stop - segment.start)
            if not block.recorded:
                span = slice(span.stop - 1, span.stop)  # the sum of a gap is stored at its last step
            for layer in layers:
                _project(layer, block, span, sizes[block.start : block.stop], arrays[layer.stage.spec.path])
        for part in written:
            for name, array in arrays.get(part.stage.spec.path, {}).items():
                check_finite(part.stage.spec, name, array, segment.start)
                part.write(name, array)
            part.numbers.update(measured(steps=segment.stop - segment.start))


def _opened(stage: Stage, source: UpdateSource, device: torch.device) -> _Neurons:
    """Return the neurons of a stage with what is needed to project updates on them."""
    from tasks.capture import capture_inputs

    store, spec = stage.store, stage.spec
    found = traced_units(store, spec, device)
    at, rows = np.unique(found.positions, return_inverse=True)
    images = read_positions(store, spec, spec.parameters["split"], at.astype(np.int64)).contiguous().to(device)
    model = load_network(store, spec, device)
    targets = layer_targets(with_units(spec, found.names), source, model, images[:1])
    inputs = capture_inputs(model, [found.operation], images)
    return _Neurons(stage, targets, inputs, rows.reshape(found.positions.shape))


def _empty(stage: Stage, number: int) -> dict[str, Floats]:
    """Return zeros for all arrays with rows in a partition."""
    found = {}
    for name, layout in stage.layout.arrays.items():
        if number < layout.partitions:
            start, stop = layout.span(number)
            found[name] = np.zeros((stop - start, *layout.shape[1:]), np.float32)
    return found


def _constants(layer: _Neurons, source: UpdateSource, arrays: dict[str, Floats]) -> None:
    """Write the contributions of the initial weights, and the norm of each neuron's preactivation."""
    for target, rows in zip(layer.targets, layer.rows, strict=True):
        inputs = layer.inputs[target.layer][rows]
        initial, bias = as_float(source.initial(target.layer), inputs.device)[None], source.initial_bias(target.layer)
        start = None if bias is None else as_float(bias, inputs.device)[None]
        found = target.contributions(inputs, initial, start)
        arrays[f"init.{target.name}"][:] = found.gamma[:, 0].cpu().numpy()
        arrays[f"preactivation.{target.name}"][:] = found.preactivation_norm.cpu().numpy()


def _project(layer: _Neurons, block: UpdateBlock, span: slice, sizes: list[int], arrays: dict[str, Floats]) -> None:
    """Write the contributions of a block's steps to the neurons of a layer whose operation it belongs to."""
    mine = [
        (target, rows) for target, rows in zip(layer.targets, layer.rows, strict=True) if target.layer == block.layer
    ]
    if not mine:
        return
    updates: Tensor | None = None
    for target, rows in mine:
        inputs = layer.inputs[target.layer][rows]
        if updates is None:
            bias = block.dense_bias()
            updates, changes = as_float(block.dense(), inputs.device), None
            changes = None if bias is None else as_float(bias, inputs.device)
        found = target.contributions(inputs, updates, changes)
        arrays[f"gamma.{target.name}"][span] = found.gamma.T.float().cpu().numpy()
        arrays[f"norm.{target.name}"][span] = found.norm.T.float().cpu().numpy()
        if (members := arrays.get(members_array(target.name))) is not None and block.recorded:
            split_block(block, target, inputs, members[span], sizes)


def _summary(stage: Stage) -> Document:
    """Return the operation, the neurons, the positions of their images, how many are left out, or why all are."""
    import torch

    device = torch.device("cpu")
    found = traced_units(stage.store, stage.spec, device)
    said: Document = {
        "operation": found.operation,
        "neurons": found.neurons.tolist(),
        "positions": found.positions.tolist(),
        "left_out": found.left_out,
        "why": found.why,
    }
    if not found.names:
        return said
    source = open_archive(stage.store, stage.spec.inputs["network"])
    model, images = (
        load_network(stage.store, stage.spec, device),
        read_positions(stage.store, stage.spec, stage.spec.parameters["split"], found.positions[0, :1]),
    )
    return said | described_targets(layer_targets(with_units(stage.spec, found.names), source, model, images))


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size, after a check that neurons of the layer have an operation with recorded updates."""
    note, inputs = "", 0
    try:
        _, inputs = planned_operation(spec, survey)
    except ValueError as error:
        if spec.place["required"]:
            raise ValueError(f"{LINE}.layers: networks.{spec.place['network']}: {error}") from error
        note = f"{LINE}: networks.{spec.place['network']}: {error}; its neurons are not traced to training images"
    training = spec.inputs["network"]
    _, steps = training_steps(training, survey.data(training.inputs["data"]).summary)
    values = 2 + (training_of(training).batches.most if _splits(spec, survey) else 0)
    row = 4 * int(spec.parameters["neurons"]) * int(spec.parameters["images"]) * values
    shape, layers = input_and_layers(spec.inputs["responses"], survey)
    images = int(spec.parameters["neurons"]) * int(spec.parameters["images"])
    together = min(len(layers), MOST_TOGETHER)  # layers of one pass, whose inputs and arrays are in memory at a time
    forward = 16 * images * (max(int(np.prod(found.shape)) for found in layers.values()) + int(np.prod(shape)))
    kept = together * (row * training_of(training).checkpoint_every + 4 * images * inputs)
    weights = state_bytes(survey.blank(training))
    peak = kept + forward + UPDATES + 6 * weights
    split = gradients_bytes(spec, survey)
    peak += reading_peak(training, survey, weights) + split + bool(split) * weights
    return Size(row * steps, peak, note)


def _splits(spec: StageSpec, survey: Survey) -> bool:
    """Say whether the archive of a stage's training knows the parts of each step's examples."""
    from tasks.recording.archives import ARCHIVES

    kind = archive_size(spec.inputs["network"], survey)[0]
    return spec.place["split"] == "example" and ARCHIVES[kind].splits


NEURON_CONTRIBUTIONS = Step(
    "neuron-contributions",
    VERSION,
    _layout,
    _partition,
    _size,
    summary=_summary,
    group=_same_archive,
    network=True,
)
