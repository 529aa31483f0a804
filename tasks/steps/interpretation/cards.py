"""The cards stage: how much a class rests on each of its features, and the images on which each responds most.

For methods that take features as directions in the space of the layer's channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters.peaks import WHOLE, TopMaps, active_share
from tasks.interpreters.topics import head_gradient_missing
from tasks.steps.common.activations import map_shapes, open_split, ranges_by_class
from tasks.steps.common.networks import choose_device
from tasks.steps.common.rows import read_rows
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
from tasks.steps.interpretation.coreset_maps import read_apart
from tasks.steps.interpretation.method import DirectedFeatures, Maps, TokenHead
from tasks.steps.interpretation.methods import method_of
from tasks.steps.interpretation.selection import classes_per_partition, common_classes, count_classes
from tasks.steps.interpretation.topics import head_of

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
GROUP_VALUES = 4_000_000  # map values of a partition, a second or less of work
CHUNK_VALUES = 4_000_000  # map values in memory at once
HEAD_IMAGES = 64  # images whose tokens set apart go through the head at once, as many as `importance` takes
FIRST = np.zeros(1, np.int64)


def cards_spec(features: StageSpec, held_out: StageSpec) -> StageSpec:
    """Return the spec of the cards of a coreset's features, with images of held-out activations."""
    return CARDS.spec({}, {"features": features, "activations": held_out}, label=features.label)


@dataclass(frozen=True)
class _Shown:
    """The samples that may be shown, and the head of their network: None where it does not let gradients through."""

    activations: FinishedStage
    head: TokenHead | None
    in_line: bool

    def cards(self, fitted: DirectedFeatures, label: int, span: tuple[int, int]) -> ClassCards:
        """Return the cards of a class.

        Its importances are the derivative of the class's logit along each feature's part of the maps, as a share of the
        absolute value of the mean logit of these images. Topics are parts of rebuilt maps, and of the logit that these
        get. Where the layers after the map are linear, this is the feature's share of the logit itself.
        """
        at = span[0] + spread(span[1] - span[0], SEARCHED)
        directions = fitted.directions()
        total, logit = np.zeros(len(directions)), 0.0
        arrays = self.activations.layout.arrays
        size = max(1, CHUNK_VALUES // int(np.prod(arrays["maps"].shape[1:])))
        if "apart" in arrays:
            size = min(size, HEAD_IMAGES)
        top, largest = TopMaps(IMAGES), []
        for start in range(0, len(at), size):
            rows = at[start : start + size]
            maps = read_rows(self.activations, "maps", rows).astype(np.float32)
            responses = fitted.responses(maps)
            largest.append(top.update(responses, rows))
            if self.head:
                head = partial(self.head, apart=read_apart(self.activations, rows))
                gains, mean = fitted.contributions(head, maps, responses, label)
                total, logit = total + len(rows) * gains, logit + len(rows) * mean
        importance = total / abs(logit) if logit else np.full(len(total), np.nan)
        chosen = most_important(importance, np.flatnonzero(np.any(directions != 0, axis=1)))
        position, value, box = top.result()
        if self.in_line:
            box[position >= 0] = WHOLE  # positions in a line do not lie in rows and columns of the image
        activity, images = active_share(np.concatenate(largest))[chosen], (position[chosen], value[chosen], box[chosen])
        return ClassCards(chosen, importance[chosen], activity, *images, len(at))


def _layout(store: Store, spec: StageSpec) -> Layout:
    activations = open_finished(store, spec.inputs["activations"])
    class_ranges = common_classes(store, spec, "features")
    values = int(np.prod(activations.layout.arrays["maps"].shape[1:]))
    longest = min(SEARCHED, max(stop - start for start, stop in class_ranges.values()))
    rows = classes_per_partition(len(class_ranges), longest * values, GROUP_VALUES)
    return card_layout(len(class_ranges), _slots(spec, activations.layout.arrays["maps"].shape[-1]), rows)


def _slots(spec: StageSpec, channels: int) -> int:
    """Return the most features of a class."""
    features = spec.inputs["features"]
    return min(FEATURES, method_of(features).n_columns(features, channels))


def _partition(work: Work, number: int) -> None:
    """Make the cards of a few classes."""
    stage, spec = work.stage, work.stage.spec
    directed = method_of(spec.inputs["features"]).directed
    assert directed is not None
    read, shown = directed(stage.store, spec.inputs["features"]), _open(stage, work.device)
    with stage.partition(number) as part:
        first, last = part.span
        classes = list(ranges_by_class(shown.activations).items())[first:last]
        cards = [shown.cards(read(first + row), label, span) for row, (label, span) in enumerate(classes)]
        write_cards(part, stage.layout, [label for label, _ in classes], cards)
        part.numbers.update(measured(differentiable=shown.head is not None))


def _open(stage: Stage, wanted: str) -> _Shown:
    """Return the samples of a stage, and the head on a device."""
    import torch

    spec = stage.spec.inputs["activations"]
    activations, device = open_finished(stage.store, spec), choose_device(wanted)
    split = open_split(stage.store, spec, device)
    whole = head_of(split)

    def head(maps: Tensor, apart: Maps | None = None) -> Tensor:
        return whole(maps.to(device), apart)

    tried, others = torch.from_numpy(activations.read("maps", 0, 1).astype(np.float32)), read_apart(activations, FIRST)
    usable = None if head_gradient_missing(partial(head, apart=others), tried) else head
    return _Shown(activations, usable, in_line=split.layout.in_line)


def _summary(stage: Stage) -> Document:
    """Say whether the head lets gradients through, so that importances are known."""
    marker = stage.marker(0)
    assert marker is not None
    return {"differentiable": marker["numbers"]["differentiable"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a chunk of maps with gradients, and the responses to it."""
    activations = spec.inputs["activations"]
    n_classes, longest = count_classes(activations, survey)
    shapes = map_shapes(activations, survey)
    values, positions = int(np.prod(shapes.maps)), int(np.prod(shapes.maps[1:]))
    features = spec.inputs["features"]
    r = method_of(features).n_columns(features, shapes.maps[0])
    images = min(SEARCHED, longest, max(1, CHUNK_VALUES // values))
    written = 8 * n_classes * (2 + _slots(spec, shapes.maps[0]) * (3 + 6 * IMAGES))
    return Size(written, 4 * images * (10 * values + 6 * shapes.largest + 8 * positions * r))


CARDS = Step("cards", VERSION, _layout, _partition, _size, summary=_summary, network=True)
