"""The decomposition-gallery stage: held-out images with their class's influential maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.decomposition import contrast_maps, least_frequent
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.activations import first_input, ranges_by_class
from tasks.steps.common.networks import choose_device, preprocessing_of
from tasks.steps.common.pictures import THUMBNAIL, chosen_positions, shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.decomposition.features import chosen_head
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.last_maps import open_maps, why_no_maps

VERSION = 2
KINDS = ("all", "other", "influential")  # maps of an image, in this order


def decomposition_gallery_spec(features: StageSpec, histogram: StageSpec, k2: int, count: int) -> StageSpec:
    """Return the spec of `count` images with the maps of their class's features."""
    inputs = {"features": features, "sets": histogram}
    kept = {"k2": k2, "count": count}
    return GALLERIES.spec(kept, inputs, label=features.label)


def _layout(store: Store, spec: StageSpec) -> Layout:
    features = spec.inputs["features"]
    chosen = chosen_positions(ranges_by_class(open_finished(store, features)), int(spec.parameters["count"]))
    if why_no_maps(store, features):
        return Layout(1)
    images = first_input(store, features)
    size = shown_images(images, preprocessing_of(features.parameters["network"])).shape[1:3]
    n = len(chosen)

    def array(shape: tuple[int, ...], dtype: str, *axes: str) -> ArrayLayout:
        return ArrayLayout((n, *shape), dtype, ("image", *axes), n, n)

    arrays = {name: array((), "int64") for name in ("sample_id", "label", "predicted")}
    arrays["image"] = array((*size, 3), "uint8", "row", "column", "colour")
    arrays["maps"] = array((len(KINDS), *size), "float32", "kind", "row", "column")
    return Layout(1, arrays)


def _partition(work: Work, number: int) -> None:
    """Read the images, run the network, and average its maps."""
    stage, spec = work.stage, work.stage.spec
    with stage.partition(number) as part:
        if stage.layout.arrays:
            for name, array in _pictures(stage, str(choose_device(work.device))).items():
                part.write(name, array)
        part.numbers.update(measured(images=int(spec.parameters["count"])))


def _pictures(stage: Stage, device: str) -> dict[str, NDArray[np.generic]]:
    """Return all arrays of a gallery: images and maps."""
    from tasks.capture import capture_batch
    from tasks.interpreters.enlarge import enlarge

    spec, features = stage.spec, stage.spec.inputs["features"]
    finished, k2 = open_finished(stage.store, features), int(spec.parameters["k2"])
    chosen = chosen_positions(ranges_by_class(finished), int(spec.parameters["count"]))
    at = np.array([position for _, _, position in chosen], np.int64)
    inputs = read_positions(stage.store, features, str(features.parameters["split"]), at)
    d = int(finished.summary["features"])
    order = read_sets(stage.store, spec.inputs["sets"], d)
    rare, size = least_frequent(order, min(k2, d)), stage.layout.arrays["image"].shape[1:3]
    heat = np.empty(stage.layout.arrays["maps"].shape, np.float32)
    for row, (_, label, _) in enumerate(chosen):
        maps, _ = capture_batch(open_maps(stage.store, features, device), inputs[row : row + 1])
        found = contrast_maps(maps[0], order[label, :k2], rare[label])
        heat[row] = [enlarge(getattr(found, kind), (size[0], size[1])) for kind in KINDS]
    return {
        "sample_id": np.array([finished.read("sample_id", p, p + 1)[0] for p in at.tolist()], np.int64),
        "label": np.array([label for _, label, _ in chosen], np.int64),
        "predicted": np.array([finished.read("logits", p, p + 1)[0].argmax() for p in at.tolist()], np.int64),
        "image": shown_images(inputs, preprocessing_of(features.parameters["network"])),
        "maps": heat,
    }


def _summary(stage: Stage) -> Document:
    """Return why pictures are missing, if they are."""
    return {"refused": "" if stage.layout.arrays else why_no_maps(stage.store, stage.spec.inputs["features"])}


def _size(spec: StageSpec, survey: Survey) -> Size:
    head, count = chosen_head(spec, survey, "k2"), int(spec.parameters["count"])
    sample = 4 * head.inputs[0] * head.inputs[1] * head.inputs[2]
    return Size(count * THUMBNAIL * (3 + 12), count * (THUMBNAIL * 4 * 20 + 3 * sample) + 6 * 4 * head.largest)


GALLERIES = Step("decomposition-gallery", VERSION, _layout, _partition, _size, summary=_summary, network=True)
