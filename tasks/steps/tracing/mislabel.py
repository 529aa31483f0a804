"""The mislabel stage: each training example's self-attribution, and its detection of flipped labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document
from storage.layouts import Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, n_segments, training_of
from tasks.steps.common.fetching import open_fetch
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.recording import UPDATES, reading_peak, recorded_layers
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.projection import INPUT_BYTES
from tasks.steps.tracing.targets import Target, layer_targets
from tasks.steps.tracing.undecayed import undecayed

if TYPE_CHECKING:
    import torch

VERSION = 2
EXAMPLES = 256  # number of examples that are projected at a time


def mislabel_spec(contributions: StageSpec) -> StageSpec:
    """Return the spec of the self-attribution of a training's examples, with the layers of its contributions."""
    training, queries = contributions.inputs["network"], contributions.inputs["queries"]
    parameters = {**contributions.parameters, "network": queries.parameters["network"]}
    parameters.pop("units", None)
    inputs = {"network": training, "data": training.inputs["data"]}
    place = {**queries.place, **contributions.place, "units": []}
    return MISLABEL.spec(parameters, inputs, digests=queries.digests, place=place, label=contributions.label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition per segment of the archive."""
    return Layout(len(open_archive(store, spec.inputs["network"]).segments()))


def _partition(work: Work, number: int) -> None:
    """Sum each example's losses and its contributions to itself in a segment, by layer, without decay."""
    stage, spec, device = work.stage, work.stage.spec, choose_device(work.device)
    source = open_archive(stage.store, spec.inputs["network"])
    segment = source.segments()[number]
    members, losses = source.examples, source.ledger["loss"].to_numpy(np.float64)
    seen = np.unique(np.concatenate([members[step] for step in range(segment.start, segment.stop)]))
    table = pd.DataFrame(0.0, index=seen, columns=["loss"])
    for step in range(segment.start, segment.stop):
        table.loc[members[step], "loss"] += losses[step] / len(members[step])
    model = load_network(stage.store, spec, device)
    example = _inputs(stage, seen[:1], device)
    for target in layer_targets(spec, source, model, example):
        sums = pd.Series(0.0, index=seen)
        for block, updates, biases in undecayed(source, target.name, segment, _optimizer(spec)):
            for steps in _groups(members, block.start, block.stop):
                part = slice(steps.start - block.start, steps.stop - block.start)
                change = None if biases is None else biases[part]
                for ids, gamma in _self_shares(stage, target, members, steps, (updates[part], change)):
                    sums[ids] += gamma
        table[target.name] = sums
    with stage.partition(number) as part_of_stage:
        name = f"segment-{number:06d}.parquet"
        part_of_stage.write_file(name, table_bytes(table.rename_axis("id").reset_index()))
        part_of_stage.numbers.update(measured(examples=len(seen)))


def _optimizer(spec: StageSpec) -> Document:
    """Return the settings of the optimiser in a stage's training."""
    found: Document = training_of(spec.inputs["network"]).optimizer.model_dump(mode="json")
    return found


def _groups(members: list[NDArray[np.int64]], start: int, stop: int) -> Iterator[slice]:
    """Cut steps into groups with examples for one forward pass."""
    first, count = start, 0
    for step in range(start, stop):
        if step > first and count + len(members[step]) > EXAMPLES:
            yield slice(first, step)
            first, count = step, 0
        count += len(members[step])
    yield slice(first, stop)


def _self_shares(
    stage: Stage,
    target: Target,
    members: list[NDArray[np.int64]],
    steps: slice,
    updates: tuple[torch.Tensor, torch.Tensor | None],
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """Yield the examples of each step, with their equal shares of the step's contribution to each of them."""
    import torch

    from tasks.capture import capture_inputs
    from tasks.tracing import gammas

    distinct = np.unique(np.concatenate([members[step] for step in range(steps.start, steps.stop)]))
    device = target.weight.device
    model = load_network(stage.store, stage.spec, device)
    inputs = capture_inputs(model, [target.name], _inputs(stage, distinct, device))[target.name]
    found = gammas(
        target.module,
        target.weight,
        inputs,
        updates[0].to(device, torch.float32),
        anchor=target.anchor,
        bias=target.bias,
        bias_updates=None if target.bias is None or updates[1] is None else updates[1].to(device, torch.float32),
    )
    values = found.double().cpu().numpy()
    for column, step in enumerate(range(steps.start, steps.stop)):
        rows = np.searchsorted(distinct, members[step])
        yield members[step], values[rows, column] / len(members[step])


def _inputs(stage: Stage, ids: NDArray[np.int64], device: torch.device) -> torch.Tensor:
    """Return training examples as network inputs, read once for all layers if they fit into memory."""
    training = stage.spec.inputs["network"]
    split = training_of(training).split
    all_ids = positions(stage.store, training.inputs["data"].path, split)["id"].to_numpy(np.int64)
    order = np.argsort(all_ids)
    fetch = open_fetch(stage.store, training, split, device, MEMORY_SAMPLES)
    return fetch(order[np.searchsorted(all_ids, ids, sorter=order)])[0]


def _summary(stage: Stage) -> Document:
    """Return the area under the ROC curve of each layer and of the summed loss.

    `shared` is true if steps have several examples: their losses are then shares of the mean of a batch.
    `decay_unknown_from` is the first step where decay is included, None if it is left out in all steps.
    """
    from tasks.tracing import decay_known
    from tasks.tracing.evaluation import mislabel_auc

    tables = []
    for number in range(stage.layout.partitions):
        record = stage.marker(number)
        assert record is not None, number
        name = f"{stage.spec.path}/files/segment-{number:06d}.parquet"
        tables.append(read_table(stage.store.read(name), name))
    scores = pd.concat(tables).groupby("id").sum()
    split = training_of(stage.spec.inputs["network"]).split
    rows = positions(stage.store, stage.spec.inputs["data"].path, split).set_index("id").loc[scores.index]
    flipped = (rows["label_given"] != rows["label_true"]).to_numpy()
    layers = {name: mislabel_auc(scores[name].to_numpy(), flipped) for name in scores.columns if name != "loss"}
    loss = mislabel_auc(scores["loss"].to_numpy(), flipped, "high")
    source = open_archive(stage.store, stage.spec.inputs["network"])
    known = decay_known(_optimizer(stage.spec), source.recorded)
    return {
        "auc": layers,
        "loss_auc": loss,
        "flipped": int(flipped.sum()),
        "examples": len(scores),
        "shared": any(len(step) > 1 for step in source.examples),
        "decay_unknown_from": known if known < source.steps else None,
    }


def _size(spec: StageSpec, survey: Survey) -> Size:
    from tasks.recording.layers import recorded_parameters

    training = spec.inputs["network"]
    found = survey.data(training.inputs["data"])
    n, layers = found.count(training_of(training).split), recorded_layers(training, survey)
    _check_flips(training.inputs["data"], n)
    largest = max(parameter.size for parameter in recorded_parameters(layers)[1])
    written = 8 * n_segments(training, found.summary) * n * (len(layers) + 1)
    again = reading_peak(training, survey, state_bytes(survey.blank(training)))
    return Size(written, 3 * INPUT_BYTES + UPDATES + MEMORY_SAMPLES + 48 * largest + again)


def _check_flips(manifest: StageSpec, n: int) -> None:
    """Raise ValueError unless there are both flipped and unflipped labels."""
    name, share = manifest.place["name"], float(manifest.place["data"]["noise"]["share"])
    if not 0 < round(share * n) < n:
        raise ValueError(
            f"tracing.evaluation.mislabel: expected flipped and unflipped labels, found {round(share * n)} of {n} "
            f"flipped by data.{name}.noise.share {share:g}; change the share"
        )


MISLABEL = Step("mislabel", VERSION, _layout, _partition, _size, summary=_summary, network=True)
