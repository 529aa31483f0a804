"""The gallery stage: a few held-out images with heat maps of their class's features."""

from collections.abc import Mapping

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
from tasks.figures.overlay import shrink
from tasks.steps.common.activations import map_shapes, ranges_by_class
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.pictures import chosen_positions, shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.interpretation.methods import method_of

VERSION = 2
CLASSES = 20  # that have an image where the config does not say how many images there are


def gallery_spec(held_out: StageSpec, features: Mapping[str, StageSpec], count: int | None) -> StageSpec:
    """Return the spec of `count` images with a heat map for each of the features, by title; None: one of each class."""
    inputs = {"activations": held_out, **{f"features {i}": spec for i, spec in enumerate(features.values())}}
    images: dict[str, Json] = {"count": CLASSES, "once": True} if count is None else {"count": count}
    parameters = {**images, "titles": list(features)}
    first = next(iter(features.values()))
    return GALLERY.spec(parameters, inputs, label=f"{held_out.label} {first.parameters['interpreter']}")


def _layout(store: Store, spec: StageSpec) -> Layout:
    activations = open_finished(store, spec.inputs["activations"])
    n = len(_chosen(spec, ranges_by_class(activations)))
    _, height, width = activations.summary["input"]
    size = shrink(np.zeros((height, width, 3), np.uint8)).shape[:2]

    def array(shape: tuple[int, ...], dtype: str, *axes: str) -> ArrayLayout:
        return ArrayLayout((n, *shape), dtype, ("image", *axes), n, n)

    arrays = {
        "image": array((*size, 3), "uint8", "row", "column", "colour"),
        "heat": array((len(spec.parameters["titles"]), *size), "uint8", "features", "row", "column"),
        "sample_id": array((), "int64"),
        "label": array((), "int64"),
        "predicted": array((), "int64"),
    }
    return Layout(1, arrays)


def _chosen(spec: StageSpec, class_ranges: Mapping[int, tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (class index, label, position) of the images."""
    count = int(spec.parameters["count"])
    return chosen_positions(class_ranges, min(count, len(class_ranges)) if spec.parameters.get("once") else count)


def _partition(work: Work, number: int) -> None:
    """Read the images and compute their heat maps."""
    stage = work.stage
    activations = open_finished(stage.store, stage.spec.inputs["activations"])
    chosen = _chosen(stage.spec, ranges_by_class(activations))
    fitted = [spec for role, spec in stage.spec.inputs.items() if role.startswith("features")]
    readers = [method_of(spec).read(stage.store, spec) for spec in fitted]
    height, width = stage.layout.arrays["image"].shape[1:3]
    arrays = {name: np.zeros(array.shape, array.dtype) for name, array in stage.layout.arrays.items()}
    arrays["image"][:] = _images(stage, [position for _, _, position in chosen])
    for row, (index, label, position) in enumerate(chosen):
        maps = activations.read("maps", position, position + 1).astype(np.float32)
        arrays["sample_id"][row] = activations.read("sample_id", position, position + 1)[0]
        arrays["predicted"][row] = activations.read("logits", position, position + 1)[0].argmax()
        arrays["label"][row] = label
        for column, read in enumerate(readers):
            arrays["heat"][row, column] = np.rint(read(index).heat_maps(maps, (height, width))[0] * 255)
    with stage.partition(number) as part:
        for name, array in arrays.items():
            part.write(name, array)
        part.numbers.update(measured())


def _images(stage: Stage, chosen: list[int]) -> NDArray[np.uint8]:
    """Return the network's input images at a smaller size, (n, H, W, 3)."""
    held_out = stage.spec.inputs["activations"]
    inputs = read_positions(stage.store, held_out, str(held_out.parameters["split"]), np.array(chosen, np.int64))
    return shown_images(inputs, preprocessing_of(held_out.parameters["network"]))


def _summary(stage: Stage) -> dict[str, Json]:
    return {"titles": list(stage.spec.parameters["titles"])}


def _size(spec: StageSpec, survey: Survey) -> Size:
    found, count = map_shapes(spec.inputs["activations"], survey), int(spec.parameters["count"])
    if found.in_line:
        asked = "the default" if spec.parameters.get("once") else count
        raise ValueError(
            f"interpretation.gallery: expected 0 for a layer whose positions are not rows and columns, found {asked}; "
            "set it to 0, set `interpretation.tokens` to the rows and columns of patches, or name a layer of maps"
        )
    pixels = count * found.inputs[-1] ** 2
    return Size(pixels * (3 + len(spec.parameters["titles"])), pixels * 4 * 20)


GALLERY = Step("gallery", VERSION, _layout, _partition, _size, summary=_summary)
