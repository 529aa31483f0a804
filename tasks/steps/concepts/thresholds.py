"""The dissection-thresholds stage: the largest activations of each unit of a layer, by range of images.

Merged over all ranges they give the exact threshold of each unit over all images and positions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

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
from tasks.steps.common.activations import MAX_BATCH
from tasks.steps.common.networks import choose_device
from tasks.steps.concepts.annotations import KEY
from tasks.steps.concepts.layer_maps import (
    check_maps,
    chunk_bytes,
    image_range,
    layer_maps,
    n_ranges,
    planned_ranges,
    read_sizes,
)
from tasks.steps.concepts.responses import count_images, layer_sizes

if TYPE_CHECKING:
    from tasks.detectors.thresholds import TopValues

VERSION = 1


class Thresholds(NamedTuple):
    """The threshold of each unit (K,) float64, and whether its map has one value on all images, (K,) bool."""

    value: NDArray[np.float64]
    dead: NDArray[np.bool_]


def thresholds_spec(responses: StageSpec, layer: str, quantile: Json) -> StageSpec:
    """Return the spec of the thresholds of a layer: the share `quantile` of a unit's activations lies above."""
    parameters = {"layer": layer, "quantile": quantile}
    return THRESHOLDS.spec(parameters, {"responses": responses}, label=responses.label)


@lru_cache(maxsize=4)
def open_thresholds(store: Store, spec: StageSpec) -> Thresholds:
    """Return the thresholds of a stage that is complete, exact over all images; this process caches them."""
    from tasks.detectors.thresholds import TopValues

    finished = open_finished(store, spec)
    n_images, per_image = int(finished.summary["samples"]), int(finished.summary["positions"])
    whole = TopValues(n_images * per_image, float(spec.parameters["quantile"]))
    for number in range(finished.layout.partitions):
        top = finished.read("top", number, number + 1)[0].astype(np.float32)
        start, stop = image_range(store, spec.inputs["responses"], number)
        whole.merge(TopValues.of(top, whole.n_values, whole.quantile, (stop - start) * per_image))
    dead = finished.read("lowest").min(axis=0) == finished.read("highest").max(axis=0)
    return Thresholds(whole.threshold(), dead)


def check_share(quantile: Json) -> None:
    """Raise ValueError for a quantile that cannot be; names the config's key."""
    from tasks.detectors.thresholds import check_quantile

    try:
        check_quantile(quantile)
    except ValueError as error:
        raise ValueError(f"{KEY}.{error}") from error


def recomputed_bytes(responses: StageSpec, layer: str, survey: Survey) -> int:
    """Return the memory of a second forward pass; 0 where the responses stage keeps the layer's maps."""
    if responses.place["kept_maps"]:
        return 0
    values = int(np.prod(layer_sizes(responses, survey)[layer].shape))
    return 4 * 4 * MAX_BATCH * values


def recomputed_line(responses: StageSpec) -> str:
    """Return a line for the plan where a stage runs the network again, else ""."""
    return "" if responses.place["kept_maps"] else f"runs {responses.place['network']} on all images again"


def _empty(n_values: int, spec: StageSpec) -> TopValues:
    """Return the largest values before the first image."""
    from tasks.detectors.thresholds import TopValues

    return TopValues(n_values, float(spec.parameters["quantile"]))


def _layout(store: Store, spec: StageSpec) -> Layout:
    responses = open_finished(store, spec.inputs["responses"])
    sizes = read_sizes(responses, spec.parameters["layer"])
    ranges = n_ranges(store, spec.inputs["responses"])
    return _planned(spec, int(responses.summary["samples"]), sizes, ranges)


def _planned(spec: StageSpec, n: int, sizes: tuple[int, int, int], ranges: int) -> Layout:
    """Return the layout for n images of K maps (h, w): the largest values of each range, and its extremes."""
    neurons, height, width = sizes
    held = _empty(n * height * width, spec).n_held
    arrays = {"top": ArrayLayout((ranges, neurons, held), "float16", ("range", "neuron", "value"), 1, 1)}
    for name in ("lowest", "highest"):
        arrays[name] = ArrayLayout((ranges, neurons), "float32", ("range", "neuron"), 1, 1)
    return Layout(ranges, arrays)


def _partition(work: Work, number: int) -> None:
    """Find the largest activations of each unit on a range of images."""
    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    responses, layer = spec.inputs["responses"], str(spec.parameters["layer"])
    finished = open_finished(store, responses)
    neurons, height, width = read_sizes(finished, layer)
    top = _empty(int(finished.summary["samples"]) * height * width, spec)
    low, high = (np.full(neurons, bound, np.float32) for bound in (np.inf, -np.inf))
    with stage.partition(number) as part:
        span = image_range(store, responses, number)
        for _, maps in layer_maps(store, responses, layer, span, choose_device(work.device)):
            values = maps.astype(np.float32)  # NumPy is slow at float16
            top.update(values)
            low = np.minimum(low, values.min(axis=(0, 2, 3)))
            high = np.maximum(high, values.max(axis=(0, 2, 3)))
        part.write("top", top.state().astype(np.float16)[None])
        part.write("lowest", low[None])
        part.write("highest", high[None])
        part.numbers.update(measured(samples=span[1] - span[0]))


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the numbers of images, and of positions of a map."""
    finished = open_finished(stage.store, stage.spec.inputs["responses"])
    _, height, width = read_sizes(finished, stage.spec.parameters["layer"])
    return {"samples": int(finished.summary["samples"]), "positions": height * width}


def _size(spec: StageSpec, survey: Survey) -> Size:
    check_share(spec.parameters["quantile"])
    responses, layer = spec.inputs["responses"], str(spec.parameters["layer"])
    sizes, n = check_maps(responses, layer, survey, KEY), count_images(responses, survey)
    written = _planned(spec, n, sizes, planned_ranges(responses, survey)).n_bytes
    per_range = written // planned_ranges(responses, survey)
    peak = 6 * per_range + chunk_bytes(sizes) + recomputed_bytes(responses, layer, survey)
    return Size(written, peak, recomputed_line(responses))


THRESHOLDS = Step("dissection-thresholds", VERSION, _layout, _partition, _size, summary=_summary, network=True)
