"""The contributions stage: projections of a training's updates on the queries' representations, by layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.partitions import Partition
from storage.specs import StageSpec, without_defaults
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of, training_steps
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.recording import UPDATES, reading_peak, recorded_layers
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.layers import in_depth_order, layers_to_trace
from tasks.steps.tracing.members import equal_line, gradients_bytes, members_array, members_bytes, split_block, splits
from tasks.steps.tracing.queries import count_queries, query_inputs
from tasks.steps.tracing.targets import Target, as_float, layer_targets, passing_layers

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from storage.updates.archives import Segment
    from tasks.modules.rows import Inputs
    from tasks.recording.sources import UpdateBlock, UpdateSource

    QueryBatch = tuple[int, Mapping[str, Inputs], Tensor]  # first query, inputs by layer, classes of the traced logits

VERSION = 5  # parts of steps that gradients do not explain, with what momentum carries on of them
INPUT_BYTES = 128 * 2**20  # bytes of layer inputs in memory; more queries read the archive again
PREDICTED, GIVEN = 0, 1  # indices of the two traced logits

Floats = NDArray[np.float32]


def contributions_spec(name: str, training: StageSpec, queries: StageSpec, asked: Tracing) -> StageSpec:
    """Return the spec of a training's contributions to its queries, with layers in the network's order."""
    settings = asked.model_dump(mode="json", include={"layers", "units", "anchor", "bias", "split"})
    record = training_of(training).record
    assert record is not None, training
    named = list(record.layers or ()) if asked.layers == "all" else list(asked.layers)
    if named and (ordered := in_depth_order(training, named)) != named:
        settings["layers"] = ordered
    defaults = {"layers": "all", "units": [], "anchor": "final", "bias": False, "split": "example"}
    kept = without_defaults(settings, defaults)
    inputs = {"network": training, "queries": queries}
    return CONTRIBUTIONS.spec(kept, inputs, place=settings, label=f"{name} {queries.label}")


def _targets(store: Store, spec: StageSpec, source: UpdateSource, device: torch.device) -> list[Target]:
    """Return the layers to trace for the queries of a stage."""
    queries = spec.inputs["queries"]
    model = load_network(store, queries, device)
    return layer_targets(spec, source, model, query_inputs(store, queries, device)[:1])


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition per segment of the archive."""
    import torch

    queries, source = open_finished(store, spec.inputs["queries"]), open_archive(store, spec.inputs["network"])
    targets = _targets(store, spec, source, torch.device("cpu"))
    return Layout(len(source.segments()), contribution_arrays(spec, source, targets, int(queries.summary["queries"])))


def contribution_arrays(
    spec: StageSpec, source: UpdateSource, targets: Sequence[Target], n: int
) -> dict[str, ArrayLayout]:
    """Return the arrays of the contributions of an archive to n queries."""
    steps, rows = source.steps, source.segments()[0].stop

    def series(*more: int) -> ArrayLayout:
        return ArrayLayout((steps, n, *more), "float32", ("step", "query", "logit")[: 2 + len(more)], rows, rows)

    def single(*more: int) -> ArrayLayout:
        return ArrayLayout((n, *more), "float32", ("query", "logit")[: 1 + len(more)], n, n)

    arrays: dict[str, ArrayLayout] = {}
    for target in targets:
        arrays |= {f"gamma.{target.name}": series(), f"norm.{target.name}": series()}
        arrays |= {f"init.{target.name}": single(), f"preactivation.{target.name}": single()}
        if splits(source, spec, target.layer):
            most = max(map(len, source.examples))
            arrays[members_array(target.name)] = ArrayLayout(
                (steps, most, n), "float32", ("step", "member", "query"), rows, rows
            )
        if target.output:
            arrays |= {f"logit.{target.name}": series(2), f"logit_init.{target.name}": single(2)}
    return arrays


def _partition(work: Work, number: int) -> None:
    """Project the updates of a segment."""
    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    source, queries = open_archive(stage.store, spec.inputs["network"]), spec.inputs["queries"]
    segment, targets = source.segments()[number], _targets(stage.store, spec, source, device)
    finished, images = open_finished(stage.store, queries), query_inputs(stage.store, queries, device)
    followed = np.stack([finished.read("logits").argmax(1), finished.read("label")], axis=1)
    batches = input_batches(load_network(stage.store, queries, device), targets, images, followed)
    with stage.partition(number) as part:
        arrays = _empty(part)
        whole = project_segment(source, segment, targets, batches, arrays)
        for name, array in arrays.items():
            check_finite(spec, name, array, segment.start)
            part.write(name, array)
        part.numbers.update(measured(steps=segment.stop - segment.start))
        part.numbers.update({"not_split": whole} if whole else {})


def project_segment(
    source: UpdateSource,
    segment: Segment,
    targets: Sequence[Target],
    batches: Iterable[QueryBatch],
    arrays: dict[str, Floats],
) -> dict[str, str]:
    """Write the contributions of a segment's updates, and those of the initial weights with the first segment.

    Parameters
    ----------
    batches : as `input_batches` yields them
    arrays : zeros, with the rows of the segment

    Returns
    -------
    by target, why updates of it are not split among the examples of their batch
    """
    whole, divided = dict[str, str](), any(members_array(target.name) in arrays for target in targets)
    sizes, layers = [len(ids) for ids in source.examples], list(dict.fromkeys(target.layer for target in targets))
    for first, inputs, classes in batches:
        span = slice(first, first + len(classes))
        if segment.start == 0:
            for target in targets:
                _constants(source, target, inputs[target.layer], classes, span, arrays)
        for block in source.blocks(segment, layers, members=divided, passing=passing_layers(targets, inputs)):
            rows = slice(block.start - segment.start, block.stop - segment.start)
            if not block.recorded:
                rows = slice(rows.stop - 1, rows.stop)  # the sum of a gap is stored at its last step
            for target in (target for target in targets if target.layer == block.layer):
                _project(block, target, inputs[block.layer], classes, arrays, (rows, span))
                if (members := arrays.get(members_array(target.name))) is not None and block.recorded:
                    counts = sizes[block.start : block.stop]
                    why = split_block(block, target, inputs[block.layer], members[rows, :, span], counts)
                    whole |= {target.name: why} if why else {}
    return whole


def _empty(part: Partition) -> dict[str, Floats]:
    """Return zeros for all arrays with rows in this partition."""
    found = {}
    for name, layout in part.stage.layout.arrays.items():
        if part.number < layout.partitions:
            start, stop = layout.span(part.number)
            found[name] = np.zeros((stop - start, *layout.shape[1:]), np.float32)
    return found


def check_finite(spec: StageSpec, name: str, array: Floats, start: int) -> None:
    """Raise ValueError for NaN or inf in an array of a partition with first step `start`: the training diverged."""
    if name.startswith(members_array("")):  # NaN where a step is not split; parts that diverge have a gamma that does
        return
    if not np.isfinite(array).all():
        kind, layer = name.split(".", 1)
        first = np.argwhere(~np.isfinite(array))[0]
        step = f", step {start + first[0]}" if "init" not in kind and kind != "preactivation" else ""
        query = first[1] if step else first[0]
        raise ValueError(
            f"{spec.title}: layer {layer!r}{step}, query {query}: expected a finite {kind}, found "
            f"{array[tuple(first)]:g}, since the training diverged; lower its learning rate"
        )


def input_batches(
    model: nn.Module, targets: Sequence[Target], images: Tensor, followed: NDArray[np.integer]
) -> Iterator[QueryBatch]:
    """Yield (first query, inputs by layer, classes (q, 2) of the traced logits) for queries that fit into memory.

    Parameters
    ----------
    followed : (Q, 2) predicted and given class of each query
    """
    import torch

    from tasks.capture import capture_inputs

    names = list(dict.fromkeys(target.layer for target in targets))
    one = sum(value.nbytes for value in capture_inputs(model, names, images[:1]).values())
    size = max(1, INPUT_BYTES // one)
    for first in range(0, len(images), size):
        batch = slice(first, first + size)
        yield first, capture_inputs(model, names, images[batch]), torch.from_numpy(followed[batch]).to(images.device)


def _constants(
    source: UpdateSource, target: Target, inputs: Inputs, classes: Tensor, span: slice, arrays: dict[str, Floats]
) -> None:
    """Write the contributions of the initial weights, and the norm of z."""
    from tasks.modules.rows import values_of
    from tasks.tracing import logit_contributions

    initial = as_float(source.initial(target.layer), inputs.device)[None]
    bias = source.initial_bias(target.layer)
    start = None if bias is None else as_float(bias, inputs.device)[None]
    found = target.contributions(inputs, initial, start)
    arrays[f"init.{target.name}"][span] = _array(found.gamma[:, 0])
    arrays[f"preactivation.{target.name}"][span] = _array(found.preactivation_norm)
    if target.output:
        for column in (PREDICTED, GIVEN):
            logit = logit_contributions(
                target.module, values_of(inputs), initial, classes[:, column], bias_updates=start
            )
            arrays[f"logit_init.{target.name}"][span, column] = _array(logit[:, 0])


def _project(
    block: UpdateBlock,
    target: Target,
    inputs: Inputs,
    classes: Tensor,
    arrays: dict[str, Floats],
    where: tuple[slice, slice],
) -> None:
    """Write the contributions of a block's steps to a batch of queries."""
    from tasks.modules.rows import values_of
    from tasks.tracing import logit_contributions

    if target.unit is None:
        found = block.project(target.module, target.weight, inputs, anchor=target.anchor, bias=target.bias)
    else:
        found = target.contributions(inputs, *_updates(block, inputs.device))
    arrays[f"gamma.{target.name}"][where] = _array(found.gamma.T)
    arrays[f"norm.{target.name}"][where] = _array(found.norm.T)
    if target.output:
        updates, changes = _updates(block, inputs.device)
        for column in (PREDICTED, GIVEN):
            logit = logit_contributions(
                target.module, values_of(inputs), updates, classes[:, column], bias_updates=changes
            )
            arrays[f"logit.{target.name}"][(*where, column)] = _array(logit.T)


def _updates(block: UpdateBlock, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the updates of a block's weight and bias."""
    bias = block.dense_bias()
    return as_float(block.dense(), device), None if bias is None else as_float(bias, device)


def _array(tensor: Tensor) -> Floats:
    """Return results in their stored dtype."""
    return tensor.float().cpu().numpy()


def _summary(stage: Stage) -> Document:
    """Return a description of each layer."""
    import torch

    source = open_archive(stage.store, stage.spec.inputs["network"])
    return described_targets(_targets(stage.store, stage.spec, source, torch.device("cpu")))


def described_targets(targets: Sequence[Target]) -> Document:
    """Return the kind and the number of weights of each layer and unit."""
    return {
        "kinds": {
            target.name: type(target.module).__name__ + ("" if target.unit is None else " unit") for target in targets
        },
        "weights": {target.name: target.n_weights for target in targets},
    }


def _size(spec: StageSpec, survey: Survey) -> Size:
    from tasks.recording.layers import recorded_parameters
    from tasks.tracing.strategies import BUDGET

    training, traced = spec.inputs["network"], layers_to_trace(spec, survey)
    _, steps = training_steps(training, survey.data(training.inputs["data"]).summary)
    n = count_queries(spec.inputs["queries"], survey)
    row = 4 * n * (2 * len(traced) + 2) + members_bytes(spec, survey, traced)
    weights = 4 * sum(math.prod(p.shape) for p in recorded_parameters(recorded_layers(training, survey))[1])
    peak = row * training_of(training).checkpoint_every + 3 * INPUT_BYTES + UPDATES + 6 * weights
    peak += reading_peak(training, survey, state_bytes(survey.blank(training))) + BUDGET
    if split := gradients_bytes(spec, survey):
        peak += split + INPUT_BYTES + weights + 2 * min(BUDGET, n * weights)
    return Size(row * steps, peak, about=equal_line(spec, survey, traced))


CONTRIBUTIONS = Step("contributions", VERSION, _layout, _partition, _size, summary=_summary, network=True)
