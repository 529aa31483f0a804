"""The unit-pictures stage: units that a coreset finds and the full data does not, on the images that excite them most.

The images are held-out samples. A heat map is the unit's own map on the image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.figures.overlay import shrink
from tasks.interpreters.coreset_units import CoresetUnits, coreset_units
from tasks.interpreters.ice import top_heat_maps
from tasks.steps.common.activations import batch_size, map_shapes, open_split, ranges_by_class
from tasks.steps.common.networks import choose_device, preprocessing_of
from tasks.steps.common.pictures import shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.interpretation.responses import call_of_unit, responses_layout, responses_spec, units_of
from tasks.steps.interpretation.selection import count_classes

if TYPE_CHECKING:
    from torch import Tensor

VERSION = 1
MOST_UNITS = 16  # pairs of a class and a unit
IMAGES = 4  # of each unit


def unit_pictures_spec(coresets: Mapping[str, StageSpec], reference: StageSpec, held_out: StageSpec) -> StageSpec:
    """Return the spec of the pictures of units that some coresets, by title, find and the full data does not."""
    kind = str(reference.inputs["gram"].inputs["responses"].parameters.get("kind", "energy"))
    inputs = {"activations": held_out, "responses": responses_spec(held_out, kind), "reference": reference}
    inputs |= {f"features {i}": spec for i, spec in enumerate(coresets.values())}
    parameters: dict[str, Json] = {"titles": list(coresets)}
    return UNIT_PICTURES.spec(parameters, inputs, label=f"{held_out.label} vebi")


def _chosen(store: Store, spec: StageSpec) -> CoresetUnits:
    """Return the units to show."""
    roles = [f"features {i}" for i in range(len(spec.parameters["titles"]))]
    weights = (
        np.asarray(open_finished(store, spec.inputs[role]).read("weights"), np.float64)
        for role in ("reference", *roles)
    )
    return coreset_units(next(weights), weights, MOST_UNITS)


def _layout(store: Store, spec: StageSpec) -> Layout:
    _, height, width = open_finished(store, spec.inputs["activations"]).summary["input"]
    size = shrink(np.zeros((height, width, 3), np.uint8)).shape[:2]
    n = len(_chosen(store, spec).units)
    n_images = min(IMAGES, open_finished(store, spec.inputs["activations"]).summary["samples"])

    def array(shape: tuple[int, ...], dtype: str, *axes: str) -> ArrayLayout:
        return ArrayLayout((n, *shape), dtype, ("shown", *axes), max(1, n), max(1, n))

    arrays = {
        "image": array((n_images, *size, 3), "uint8", "rank", "row", "column", "colour"),
        "heat": array((n_images, *size), "uint8", "rank", "row", "column"),
        "response": array((n_images,), "float64", "rank"),
        "sample_id": array((n_images,), "int64", "rank"),
        "image_label": array((n_images,), "int64", "rank"),
        "weight": array((len(spec.parameters["titles"]),), "float64", "features"),
        "unit": array((4,), "int64", "fact"),
    }
    return Layout(1, arrays)


def _partition(work: Work, number: int) -> None:
    """Find the images of each unit and read its maps on them."""
    stage, spec = work.stage, work.stage.spec
    chosen = _chosen(stage.store, spec)
    with stage.partition(number) as part:
        if len(chosen.units):
            for name, block in _arrays(work, chosen).items():
                part.write(name, block)
        part.numbers.update(measured(total=chosen.total))


def _arrays(work: Work, chosen: CoresetUnits) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of the stage."""
    stage, store, spec = work.stage, work.stage.store, work.stage.spec
    activations, layers = open_finished(store, spec.inputs["activations"]), _layers(store, spec)
    starts = np.cumsum(layers) - layers
    calls = call_of_unit(layers)[chosen.units]
    channels = (chosen.units - starts[calls]).astype(np.int64)
    n_images = stage.layout.arrays["response"].shape[1]
    positions, responses = _most_excited(open_finished(store, spec.inputs["responses"]), chosen.units, n_images)
    inputs = read_positions(store, spec.inputs["activations"], _split_name(spec), positions.ravel())
    shape = positions.shape
    learned = list(ranges_by_class(open_finished(store, spec.inputs["reference"].inputs["activations"])))
    facts = (np.array(learned)[chosen.classes], calls, channels, chosen.elsewhere)
    ids, labels = (np.asarray(activations.read(name), np.int64)[positions] for name in ("sample_id", "label"))
    pictures = shown_images(inputs, preprocessing_of(spec.inputs["activations"].parameters["network"]))
    return {
        "image": pictures.reshape(*shape, *pictures.shape[1:]),
        "heat": _heats(work, inputs, calls.repeat(n_images), channels.repeat(n_images)),
        "response": responses,
        "sample_id": ids,
        "image_label": labels,
        "weight": chosen.weights,
        "unit": np.stack(facts, axis=1).astype(np.int64),
    }


def _layers(store: Store, spec: StageSpec) -> list[int]:
    """Return the number of units of each ReLU call."""
    found: list[int] = open_finished(store, spec.inputs["reference"]).summary["layers"]
    return found


def _split_name(spec: StageSpec) -> str:
    """Return the split of the held-out samples."""
    return str(spec.inputs["activations"].parameters["split"])


def _most_excited(
    stage: FinishedStage, units: NDArray[np.int64], most: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return positions and responses (k, most) of the samples with the largest responses, ties by lower position."""
    layout = stage.layout.arrays["responses"]
    best, places = np.zeros((0, len(units))), np.zeros((0, len(units)), np.int64)
    for number in range(layout.partitions):
        start, stop = layout.span(number)
        block = np.asarray(stage.read("responses", start, stop), np.float64)[:, units]
        positions = np.broadcast_to(np.arange(start, stop)[:, None], block.shape)
        best, places = np.concatenate([best, block]), np.concatenate([places, positions])
        order = np.argsort(-best, axis=0, kind="stable")[:most]  # earlier samples come first
        best, places = np.take_along_axis(best, order, axis=0), np.take_along_axis(places, order, axis=0)
    return places.T, best.T


def _heats(work: Work, inputs: Tensor, calls: NDArray[np.int64], channels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the heat map of one unit on each of some inputs, (k, images, H, W)."""
    import torch

    from tasks.splitting.relus import ReluCalls, as_maps, on_patches, relu_layouts

    stage, device = work.stage, choose_device(work.device)
    split = open_split(stage.store, stage.spec.inputs["activations"], device)
    units, images, height, width = stage.layout.arrays["heat"].shape
    found = np.zeros((len(inputs), height, width), np.uint8)
    size = batch_size(tuple(inputs.shape[1:]), str(device))
    layouts = relu_layouts(split.trunk, inputs[:1].to(device))
    for start in range(0, len(inputs), size):

        def see(call: int, output: Tensor, start: int = start) -> None:
            maps = on_patches(as_maps(call, output, layouts[call]), split.layout.grid)
            for row in np.flatnonzero(calls[start : start + len(maps)] == call).tolist():
                one = maps[row, int(channels[start + row])].float().cpu().numpy()
                found[start + row] = np.rint(255 * top_heat_maps(one[..., None], 1, (height, width)))

        with torch.inference_mode(), ReluCalls(see):
            split.trunk(inputs[start : start + size].to(device))
    return found.reshape(units, images, height, width)


def _summary(stage: Stage) -> dict[str, Json]:
    marker = stage.marker(0)
    assert marker is not None
    titles: list[Json] = list(stage.spec.parameters["titles"])
    return {"titles": titles, "layers": list(_layers(stage.store, stage.spec)), "total": marker["numbers"]["total"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: weights of two sets, a partition of responses, a forward pass, and the pictures."""
    activations = spec.inputs["activations"]
    shapes, layers = map_shapes(activations, survey), units_of(activations, survey)
    n_classes, _ = count_classes(spec.inputs["reference"].inputs["activations"], survey)
    units = sum(layers)
    n = survey.data(activations.inputs["data"]).count(activations.parameters["split"])
    rows = responses_layout(n, units).arrays["responses"].rows
    inputs = int(np.prod(shapes.inputs))
    forward = batch_size(shapes.inputs) * 4 * (3 * inputs + 8 * shapes.largest)
    pictures = MOST_UNITS * IMAGES * 4 * shapes.inputs[-1] ** 2
    return Size(pictures, 8 * 3 * n_classes * units + 12 * rows * units + forward + 16 * pictures)


UNIT_PICTURES = Step("unit-pictures", VERSION, _layout, _partition, _size, summary=_summary, network=True)
