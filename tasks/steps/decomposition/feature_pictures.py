"""The `feature-pictures` stage: each most activating image once, small, with the place where a feature is active."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.decomposition.most_activating import active_box
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.activations import batch_size, first_input
from tasks.steps.common.networks import choose_device, preprocessing_of
from tasks.steps.common.pictures import THUMBNAIL, shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.decomposition.feature_images import IMAGES, n_most
from tasks.steps.decomposition.features import head_shapes
from tasks.steps.decomposition.last_maps import open_maps, why_no_maps

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
POOLED = 2e-3  # relative difference of a feature and its pooled map: float16 storage rounds by half of it

Floats = NDArray[np.float32]
Ids = NDArray[np.int64]


def feature_pictures_spec(images: StageSpec) -> StageSpec:
    """Return the spec of the pictures of a `feature-images` stage."""
    return FEATURE_PICTURES.spec({}, {"images": images}, label=images.label)


def _features(spec: StageSpec) -> StageSpec:
    """Return the spec of the penultimate features of the split that the images come from."""
    return spec.inputs["images"].inputs["features"]


def _layout(store: Store, spec: StageSpec) -> Layout:
    features, images = _features(spec), open_finished(store, spec.inputs["images"])
    size = shown_images(first_input(store, features), preprocessing_of(features.parameters["network"])).shape[1:3]
    position = images.read("position")
    n, m = len(np.unique(position)), len(position)
    arrays = {
        "position": ArrayLayout((n,), "int64", ("image",), n, n),
        "picture": ArrayLayout((n, *size, 3), "uint8", ("image", "row", "column", "colour"), n, n),
        "box": ArrayLayout((*position.shape, 4), "float32", ("feature", "rank", "edge"), m, m),
    }
    return Layout(1, arrays)


def _partition(work: Work, number: int) -> None:
    """Read each image once, make it small, and find where the features are active in it."""
    stage = work.stage
    with stage.partition(number) as part:
        pictures, boxes = _pictures(stage, str(choose_device(work.device)))
        part.write("position", np.unique(_positions(stage)))
        part.write("picture", pictures)
        part.write("box", boxes)
        part.numbers.update(measured(images=len(pictures)))


def _positions(stage: Stage) -> Ids:
    """Return the positions of each feature's images, (feature, rank)."""
    found: Ids = open_finished(stage.store, stage.spec.inputs["images"]).read("position").astype(np.int64)
    return found


def _pictures(stage: Stage, device: str) -> tuple[NDArray[np.uint8], Floats]:
    """Return the pictures, and the boxes (feature, rank, edge) as shares of height and width: the whole without maps.

    The edges are top, left, bottom and right.
    """
    features, wanted = _features(stage.spec), _positions(stage)
    settings, split = preprocessing_of(features.parameters["network"]), str(features.parameters["split"])
    has_maps, at = not why_no_maps(stage.store, features), np.unique(wanted)
    boxes = np.tile(np.array([0, 0, 1, 1], np.float32), (*wanted.shape, 1))
    pictures, step = [], batch_size(tuple(first_input(stage.store, features).shape[1:]))
    for start in range(0, len(at), step):
        here = at[start : start + step]
        inputs = read_positions(stage.store, features, split, here)
        pictures.append(shown_images(inputs, settings))
        if has_maps:
            _add_boxes(stage, here, inputs, boxes, device)
    return np.concatenate(pictures), boxes


def _add_boxes(stage: Stage, here: Ids, inputs: Tensor, boxes: Floats, device: str) -> None:
    """Write the boxes of the images at the positions `here`; features that are not pooled maps keep the whole image."""
    from tasks.capture import capture_batch

    images, wanted = open_finished(stage.store, stage.spec.inputs["images"]), _positions(stage)
    shown, values = images.read("feature").astype(np.int64), images.read("value")
    maps, _ = capture_batch(open_maps(stage.store, _features(stage.spec), device), inputs)
    for row, rank in np.argwhere(np.isin(wanted, here)):
        found = maps[np.searchsorted(here, wanted[row, rank]), ..., shown[row]].astype(np.float64)
        if found.ndim == 2 and (pooled := _pooled(found, float(values[row, rank]))) is not None:
            top, left, bottom, right = active_box(pooled)
            height, width = pooled.shape
            boxes[row, rank] = top / height, left / width, bottom / height, right / width


def _pooled(found: NDArray[np.float64], value: float) -> NDArray[np.float64] | None:
    """Return a map, signed so that it pools to `value`; None where neither its mean nor its maximum does.

    The value is a size |x| where sets are ranked by it: a map with the opposite sign pools to it too.
    """
    for signed in (found, -found):
        for pooled in (signed.mean(), signed.max()):
            if abs(pooled - value) <= POOLED * max(abs(value), 1e-6):
                return signed
    return None


def _summary(stage: Stage) -> Document:
    """Return the number of pictures."""
    return {"pictures": stage.layout.arrays["picture"].shape[0]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    head, n = head_shapes(_features(spec), survey), n_most(spec.inputs["images"], survey) * IMAGES
    sample = 4 * head.inputs[0] * head.inputs[1] * head.inputs[2]
    batch = batch_size(head.inputs) * (3 * sample + 6 * 4 * head.largest)
    return Size(n * (3 * THUMBNAIL + 24), 2 * n * 3 * THUMBNAIL + batch)


FEATURE_PICTURES = Step("feature-pictures", VERSION, _layout, _partition, _size, summary=_summary, network=True)
