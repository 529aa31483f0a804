"""The unit-cards stage: the units of each class with their weights, and the images that excite each most (VEBI).

The images are chosen by the stored responses. The network runs over these images alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters.peaks import active_share, peak_box
from tasks.steps.common.activations import batch_size, map_shapes, open_split, ranges_by_class
from tasks.steps.common.networks import choose_device
from tasks.steps.common.rows import read_rows
from tasks.steps.common.samples import read_positions
from tasks.steps.common.trials import spread
from tasks.steps.interpretation.card_arrays import (
    FEATURES,
    IMAGES,
    SEARCHED,
    ClassCards,
    card_layout,
    most_important,
    write_cards,
)
from tasks.steps.interpretation.responses import responses_spec, units_of
from tasks.steps.interpretation.selection import classes_per_partition, common_classes, count_classes
from tasks.steps.interpretation.units import ClassUnits, read_units

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.capture import Split

VERSION = 1
GROUP_IMAGES = 200  # images of a partition that the network runs over

Maps = NDArray[np.float32]


def unit_cards_spec(features: StageSpec, held_out: StageSpec) -> StageSpec:
    """Return the spec of the cards of a coreset's units, with images of held-out activations."""
    kind = str(features.inputs["gram"].inputs["responses"].parameters.get("kind", "energy"))
    inputs = {"features": features, "activations": held_out, "responses": responses_spec(held_out, kind)}
    return UNIT_CARDS.spec({}, inputs, label=features.label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    class_ranges = common_classes(store, spec, "features")
    rows = classes_per_partition(len(class_ranges), FEATURES * IMAGES, GROUP_IMAGES)
    return card_layout(len(class_ranges), FEATURES, rows)


def _partition(work: Work, number: int) -> None:
    """Make the cards of a few classes."""
    stage, spec = work.stage, work.stage.spec
    held_out, device = spec.inputs["activations"], choose_device(work.device)
    activations, responses = (open_finished(stage.store, spec.inputs[name]) for name in ("activations", "responses"))
    split = open_split(stage.store, held_out, device)
    read = read_units(stage.store, spec.inputs["features"])
    size = batch_size(tuple(activations.summary["input"]), str(device))
    with stage.partition(number) as part:
        first, last = part.span
        classes = list(ranges_by_class(activations).items())[first:last]
        cards = []
        for row, (_, span) in enumerate(classes):
            found = _ranked(read(first + row), responses, span)
            at = np.unique(found.position[found.position >= 0])
            for start in range(0, len(at), size):
                images = read_positions(
                    stage.store, held_out, str(held_out.parameters["split"]), at[start : start + size]
                ).to(device)
                _add_boxes(found, at[start : start + size], read(first + row).calls, split, images)
            cards.append(found)
        write_cards(part, stage.layout, [label for label, _ in classes], cards)
        part.numbers.update(measured())


def _ranked(units: ClassUnits, responses: FinishedStage, span: tuple[int, int]) -> ClassCards:
    """Return the cards of a class without boxes; importances are shares of the sum of the class's weights."""
    at = span[0] + spread(span[1] - span[0], SEARCHED)
    chosen = most_important(units.weights, np.flatnonzero(units.weights > 0))
    largest = read_rows(responses, "responses", at)[:, chosen].astype(np.float64)
    order = np.argsort(-largest, axis=0, kind="stable")[:IMAGES].T
    position, value = np.full((len(chosen), IMAGES), -1, np.int64), np.full((len(chosen), IMAGES), np.nan)
    found = np.take_along_axis(largest.T, order, axis=1)
    position[:, : order.shape[1]] = np.where(found > 0, at[order], -1)
    value[:, : order.shape[1]] = np.where(found > 0, found, np.nan)
    box = np.full((*position.shape, 4), np.nan)
    importance = units.weights[chosen] / units.weights.sum() if len(chosen) else np.zeros(0)
    return ClassCards(chosen, importance, active_share(largest), position, value, box, len(at))


def _add_boxes(
    cards: ClassCards, at: NDArray[np.int64], calls: NDArray[np.int64], split: Split, images: Tensor
) -> None:
    """Fill in the boxes of the images (n, C, h, w) at positions (n,), from the maps of the cards' units."""
    maps = _maps(cards.feature, calls, split, images)
    for slot, rank in np.argwhere(np.isin(cards.position, at)):
        image = np.searchsorted(at, cards.position[slot, rank])
        cards.box[slot, rank] = peak_box(maps[slot][image])


def _maps(units: NDArray[np.int64], calls: NDArray[np.int64], split: Split, images: Tensor) -> list[Maps]:
    """Return the maps (n, h, w) of units on images, from one run of the network."""
    import torch

    from tasks.splitting.relus import ReluCalls, as_maps, on_patches, relu_layouts

    found: dict[int, Maps] = {}
    layouts = relu_layouts(split.trunk, images[:1])
    first_unit = {int(call): int(np.argmax(calls == call)) for call in calls[units]}

    def see(call: int, output: Tensor) -> None:
        for unit in units[calls[units] == call].tolist():
            maps = on_patches(as_maps(call, output, layouts[call]), split.layout.grid)
            found[unit] = maps[:, unit - first_unit[call]].float().cpu().numpy().copy()

    with ReluCalls(see), torch.inference_mode():
        split.trunk(images)
    return [found[unit] for unit in units.tolist()]


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: the responses of a class, and a forward pass with the maps of a class's units."""
    activations = spec.inputs["activations"]
    n_classes, _ = count_classes(activations, survey)
    shapes, layers = map_shapes(activations, survey), units_of(activations, survey)
    written = 8 * n_classes * (2 + FEATURES * (3 + 6 * IMAGES))
    forward = batch_size(shapes.inputs) * 4 * (3 * int(np.prod(shapes.inputs)) + (6 + FEATURES) * shapes.largest)
    return Size(written, forward + 16 * SEARCHED * sum(layers))


UNIT_CARDS = Step("unit-cards", VERSION, _layout, _partition, _size, network=True)
