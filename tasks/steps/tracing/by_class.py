"""Gamma by epoch and class from a training's aggregate: one product of exact sums, in place of every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.steps.common.networks import load_network
from tasks.steps.tracing.aggregate import class_gammas
from tasks.steps.tracing.projection import input_batches
from tasks.steps.tracing.queries import query_inputs
from tasks.steps.tracing.series import Contributions
from tasks.steps.tracing.targets import layer_targets

if TYPE_CHECKING:
    from tasks.modules.rows import Inputs
    from tasks.steps.tracing.targets import Target
    from tasks.tracing.basis import Directions

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Summed:
    """Sums of gamma over the recorded steps of a training, and over the others.

    Attributes
    ----------
    by_class : (Q, epochs, classes), each step split equally among its examples
    unrecorded : (Q,), of the steps without a record of their own
    """

    by_class: Doubles
    unrecorded: Doubles


def summed_at_once(store: Store, found: Contributions, layer: str, aggregate: StageSpec) -> Summed | None:
    """Return the sums of a layer from an aggregate; None where they do not follow from it.

    It has sums of whole updates, by class. So an archive that splits gamma by the examples' own gradients, a window of
    steps, weight decay with a part of its own, a unit, and groups of classes need every step.
    """
    import torch

    stage = open_finished(store, aggregate)
    if not _follows(found, layer, stage):
        return None
    queries, cpu = found.spec.inputs["queries"], torch.device("cpu")
    model, images = load_network(store, queries, cpu), query_inputs(store, queries, cpu)
    targets = layer_targets(found.spec, found.source, model, images[:1])
    target = next(one for one in targets if one.name == layer)
    followed = np.zeros((len(images), 2), np.int64)  # logits are not asked for
    with torch.inference_mode():
        parts = [
            class_gammas(stage, layer, _double(target, inputs[target.layer]))
            for _, inputs, _ in input_batches(model, [target], images, followed)
        ]
    sums = np.concatenate(parts, axis=2).transpose(2, 0, 1)  # (query, epoch, class)
    return Summed(sums[:, :, :-1], sums[:, :, -1].sum(axis=1))


def sum_bytes(store: Store, aggregate: StageSpec, layer: str) -> int:
    """Return the bytes of an aggregate's sums of a layer, 0 without them."""
    arrays = open_finished(store, aggregate).layout.arrays
    return sum(arrays[name].bytes for name in (f"sum.{layer}", f"bias.{layer}") if name in arrays)


def _follows(found: Contributions, layer: str, stage: FinishedStage) -> bool:
    """Return whether the sums of a layer follow from an aggregate."""
    alone = all(len(group) == 1 for group in stage.summary["groups"])
    credited = all(len(ids) for ids, kept in zip(found.source.examples, found.recorded, strict=True) if kept)
    return (
        alone
        and credited
        and layer in stage.summary["layers"]
        and found.window == (0, found.steps)
        and not found.splits(layer)
        and not found.decays(layer)
    )


def _double(target: Target, inputs: Inputs) -> Directions:
    """Return the directions of inputs in float64, in which the sums are kept."""
    from tasks.modules.rows import values_of, with_values
    from tasks.tracing.basis import Directions

    anchor, bias = (None if tensor is None else tensor.double() for tensor in (target.anchor, target.bias))
    return Directions(
        target.module, target.weight.double(), with_values(inputs, values_of(inputs).double()), anchor, bias
    )
