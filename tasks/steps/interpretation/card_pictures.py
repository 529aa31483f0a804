"""The card-pictures stage: small pictures of the images on a network's cards, each image once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.figures.overlay import THUMBNAIL, shrink
from tasks.steps.common.activations import batch_size, map_shapes
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.pictures import shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.common.trials import spread
from tasks.steps.interpretation.card_arrays import FEATURES, IMAGES, SEARCHED
from tasks.steps.interpretation.selection import count_classes

VERSION = 1
CLASSES = 20  # of a network, evenly spread
PARTITION_IMAGES = 256


def card_pictures_spec(held_out: StageSpec, cards: Sequence[StageSpec]) -> StageSpec:
    """Return the spec of the pictures of all cards of a network."""
    inputs = {"activations": held_out, **{f"cards {index}": spec for index, spec in enumerate(cards)}}
    return CARD_PICTURES.spec({}, inputs, label=held_out.label)


def shown_classes(n_classes: int) -> NDArray[np.int64]:
    """Return the indices of the classes that have pictures."""
    return spread(n_classes, CLASSES)


def _positions(store: Store, spec: StageSpec) -> NDArray[np.int64]:
    """Return the positions of all images, rising."""
    found = []
    for role, cards in spec.inputs.items():
        if role.startswith("cards"):
            position = np.asarray(open_finished(store, cards).read("position"), np.int64)
            found.append(position[shown_classes(len(position))].ravel())
    unique = np.unique(np.concatenate(found))
    return unique[unique >= 0]


def _layout(store: Store, spec: StageSpec) -> Layout:
    _, height, width = open_finished(store, spec.inputs["activations"]).summary["input"]
    size = shrink(np.zeros((height, width, 3), np.uint8)).shape
    n = len(_positions(store, spec))
    rows = max(1, min(n, PARTITION_IMAGES))
    arrays = {
        "image": ArrayLayout((n, *size), "uint8", ("picture", "row", "column", "colour"), rows, rows),
        "position": ArrayLayout((n,), "int64", ("picture",), rows, rows),
    }
    return Layout(max(1, arrays["image"].partitions), arrays)


def _partition(work: Work, number: int) -> None:
    """Read some of the images and make them small."""
    stage, spec = work.stage, work.stage.spec
    activations = spec.inputs["activations"]
    size = batch_size(tuple(open_finished(stage.store, activations).summary["input"]))
    settings = preprocessing_of(activations.parameters["network"])
    with stage.partition(number) as part:
        at = _positions(stage.store, spec)[slice(*part.span)]
        images = np.zeros((len(at), *stage.layout.arrays["image"].shape[1:]), np.uint8)
        for start in range(0, len(at), size):
            few = at[start : start + size]
            inputs = read_positions(stage.store, activations, str(activations.parameters["split"]), few)
            images[start : start + size] = shown_images(inputs, settings)
        part.write("image", images)
        part.write("position", at)
        part.numbers.update(measured(pictures=len(at)))


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the number of pictures."""
    return {"pictures": stage.layout.arrays["position"].shape[0]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: every searched image of the shown classes, where cards are many."""
    n_classes, longest = count_classes(spec.inputs["activations"], survey)
    cards = len(spec.inputs) - 1
    images = min(n_classes, CLASSES) * min(longest, SEARCHED, cards * FEATURES * IMAGES)
    inputs = map_shapes(spec.inputs["activations"], survey).inputs
    pixels = min(THUMBNAIL, max(inputs[1:])) ** 2
    peak = min(images, PARTITION_IMAGES) * pixels * 3 + 8 * batch_size(inputs) * 4 * int(np.prod(inputs))
    return Size(3 * images * pixels, peak)


CARD_PICTURES = Step("card-pictures", VERSION, _layout, _partition, _size, summary=_summary)
