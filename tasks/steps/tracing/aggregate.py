"""The aggregate of an archive: the sum of all updates by epoch and class, from which class shares are read at once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import training_of
from tasks.steps.common.manifest import positions
from tasks.steps.common.recording import UPDATES, reading_peak, recorded_layers
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.layers import traced_layers

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.recording.sources import UpdateSource
    from tasks.tracing.basis import Directions

VERSION = 1

Doubles = NDArray[np.float64]


def aggregate_spec(training: StageSpec, asked: Tracing) -> StageSpec:
    """Return the spec of a training's aggregate."""
    wanted = asked.derive.aggregate
    assert wanted is not None
    place: Document = {"groups": wanted.groups, "layers": asked.model_dump(mode="json")["layers"]}
    settings: Document = {"groups": wanted.groups} | ({} if asked.layers == "all" else {"layers": place["layers"]})
    return AGGREGATE.spec(settings, {"network": training}, place=place, label=training.label)


def class_groups(labels: list[int], groups: int) -> list[list[int]]:
    """Return the classes of each group: consecutive ones, as evenly as possible, each alone where they are few."""
    return [part.tolist() for part in np.array_split(np.array(labels, np.int64), min(groups, len(labels)))]


def example_labels(store: Store, training: StageSpec) -> list[int]:
    """Return the labels of a training's examples."""
    manifest = open_finished(store, training.inputs["data"])
    found: list[int] = manifest.summary["splits"][training_of(training).split]["labels"]
    return found


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per epoch. The last row of groups is for steps that were not recorded."""
    source, training = open_archive(store, spec.inputs["network"]), spec.inputs["network"]
    epochs = int(source.ledger["epoch"].max()) + 1
    groups = len(class_groups(example_labels(store, training), int(str(spec.place["groups"])))) + 1
    arrays = {}
    for layer in traced_layers(source, spec):
        shape = tuple(source.initial(layer).shape)
        axes = tuple(f"axis_{axis}" for axis in range(len(shape)))
        arrays[f"sum.{layer}"] = ArrayLayout((epochs, groups, *shape), "float64", ("epoch", "group", *axes), 1, 1)
        bias = source.initial_bias(layer)
        if bias is not None:
            arrays[f"bias.{layer}"] = ArrayLayout(
                (epochs, groups, len(bias)), "float64", ("epoch", "group", "out"), 1, 1
            )
    return Layout(epochs, arrays)


def aggregate_shares(store: Store, spec: StageSpec, source: UpdateSource) -> Doubles:
    """Return the part (T, groups + 1) of each step that goes to each group of an aggregate."""
    training = spec.inputs["network"]
    return step_shares(
        store, training, class_groups(example_labels(store, training), int(str(spec.place["groups"]))), source
    )


def step_shares(store: Store, training: StageSpec, groups: list[list[int]], source: UpdateSource) -> Doubles:
    """Return the part (T, groups + 1) of each step that goes to each group of classes, by its examples in equal parts.

    The last column is for steps without a record of their own, and for steps without examples.
    """
    group_of = {label: number for number, group in enumerate(groups) for label in group}
    rows = positions(store, training.inputs["data"].path, training_of(training).split)
    of_id = dict(zip(rows["id"].tolist(), (group_of[label] for label in rows["label_given"].tolist()), strict=True))
    found = np.zeros((source.steps, len(groups) + 1))
    for step, (members, kept) in enumerate(zip(source.examples, source.recorded, strict=True)):
        if not kept or not len(members):
            found[step, -1] = 1.0
            continue
        np.add.at(found[step], [of_id[example] for example in members.tolist()], 1.0 / len(members))
    return found


def _partition(work: Work, number: int) -> None:
    """Sum the updates of an epoch; a gap goes to the epoch of its last step."""
    stage = work.stage
    store, spec = stage.store, stage.spec
    source = open_archive(store, spec.inputs["network"])
    shares, epochs = aggregate_shares(store, spec, source), source.ledger["epoch"].to_numpy(np.int64)
    with stage.partition(number) as part:
        found = {name: np.zeros((1, *layout.shape[1:])) for name, layout in stage.layout.arrays.items()}
        for segment in source.segments():
            if not (epochs[segment.start : segment.stop] == number).any():
                continue
            for block in source.blocks(segment, traced_layers(source, spec)):
                chosen = epochs[block.steps] == number
                if not chosen.any():
                    continue
                parts = shares[block.steps][chosen]
                for name, weights in (("sum", block.weights), ("bias", block.biases)):
                    if weights is not None and f"{name}.{block.layer}" in found:
                        _add(found[f"{name}.{block.layer}"][0], parts, _moves(weights)[chosen])
        for name, values in found.items():
            part.write(name, values)
        part.numbers.update(measured(epoch=number))


def _add(sums: Doubles, parts: Doubles, updates: Doubles) -> None:
    """Add updates to the groups' sums, in float64."""
    sums += (parts.T @ updates.reshape(len(parts), -1)).reshape(sums.shape)


def _moves(weights: Tensor) -> Doubles:
    """Return the updates between rows of weights in float64, in which the differences are exact."""
    found: Doubles = weights.double().diff(dim=0).numpy()
    return found


def class_gammas(stage: FinishedStage, layer: str, directions: Directions) -> Doubles:
    """Return gamma (epoch, group, query) of the sums; the last group is what was not recorded."""
    import torch

    layout, found = stage.layout.arrays[f"sum.{layer}"], []
    for epoch in range(layout.shape[0]):
        sums = torch.from_numpy(stage.read(f"sum.{layer}", epoch, epoch + 1)[0]).to(directions.weight)
        biases = None
        if directions.bias is not None and f"bias.{layer}" in stage.layout.arrays:
            biases = torch.from_numpy(stage.read(f"bias.{layer}", epoch, epoch + 1)[0]).to(directions.weight)
        found.append(directions.gammas(sums, biases))
    return np.stack(found)


def _summary(stage: Stage) -> Document:
    """Return the layers and the classes of each group."""
    training = stage.spec.inputs["network"]
    layers = [name.removeprefix("sum.") for name in stage.layout.arrays if name.startswith("sum.")]
    groups = class_groups(example_labels(stage.store, training), int(str(stage.spec.place["groups"])))
    return {"layers": layers, "groups": groups, "network": training.path}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a sum of the weight's shape per epoch and group."""
    from tasks.recording.layers import recorded_parameters

    training = spec.inputs["network"]
    train, layers = training_of(training), recorded_layers(training, survey)
    asked = spec.place["layers"]
    chosen = {name: one for name, one in layers.items() if not isinstance(asked, list) or name in asked}
    values = sum(math.prod(p.shape) for p in recorded_parameters(chosen)[1])
    labels = survey.data(training.inputs["data"]).split(train.split)["labels"]
    groups = min(int(str(spec.place["groups"])), len(labels)) + 1
    weights = state_bytes(survey.blank(training))
    written = 8 * values * groups
    return Size(written * train.epochs, written + UPDATES + 6 * weights + reading_peak(training, survey, weights))


AGGREGATE = Step("aggregate", VERSION, _layout, _partition, _size, summary=_summary)
