"""The regions stage: the features of the regions that activate each neuron of a layer most (MILAN's exemplars).

A region is where the neuron's map, enlarged to the input, exceeds the neuron's threshold, in one of the images of
highest activation. A neuron without positions has whole images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.figures.outline import resize_map
from tasks.steps.common.activations import MAX_BATCH, first_input
from tasks.steps.common.networks import choose_device
from tasks.steps.common.samples import read_positions
from tasks.steps.concepts.encoder import KEY, Encoder, count_features, encoder_bytes, encoder_identity
from tasks.steps.concepts.grids import as_maps, read_grid
from tasks.steps.concepts.layer_maps import check_maps, read_sizes
from tasks.steps.concepts.responses import count_images, input_and_layers, read_pooled, run_positions
from tasks.steps.concepts.thresholds import open_thresholds, thresholds_spec

VERSION = 1
NEURONS = 128  # of a partition

Floats = NDArray[np.float32]


class Exemplar(NamedTuple):
    """An image of a neuron: row of the neuron in a range, rank of the image, and the neuron's map (h, w) on it."""

    row: int
    rank: int
    map: NDArray[np.floating]


def regions_spec(responses: StageSpec, captioner: StageSpec, layer: str) -> StageSpec:
    """Return the spec of the features of a layer's regions."""
    parameters, place, digests, inputs = encoder_identity(captioner)
    split = {"split": captioner.parameters["split"]}
    own = {"layer": layer, "exemplars": captioner.parameters["exemplars"]}
    quantile = captioner.place["quantile"]
    inputs |= {"responses": responses, "thresholds": thresholds_spec(responses, layer, quantile)}
    return REGIONS.spec({**parameters, **split, **own}, inputs, digests=digests, place=place, label=responses.label)


def top_positions(activations: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the images (K, count) that activate each neuron most, equal ones by lower position, from (N, K)."""
    return np.argsort(-activations.T, axis=1, kind="stable")[:, :count]


def region_mask(values: NDArray[np.floating], threshold: float, size: tuple[int, int]) -> Floats:
    """Return the region (H, W) of a map (h, w): where it exceeds the threshold after enlargement."""
    if values.size == 1:
        return np.ones(size, np.float32)
    found: Floats = (resize_map(values, size) > threshold).astype(np.float32)
    return found


def _layout(store: Store, spec: StageSpec) -> Layout:
    neurons, _, _ = read_sizes(open_finished(store, spec.inputs["responses"]), spec.parameters["layer"])
    n = len(open_finished(store, spec.inputs["responses"]).read("sample_id"))
    encoder = Encoder(store, spec, choose_device("cpu"))
    empty = np.zeros((1, *first_input(store, spec).shape[2:]), np.float32)
    width = next(encoder.of_inputs(first_input(store, spec), [empty])).shape[1]
    return _planned(neurons, min(n, int(spec.parameters["exemplars"])), width)


def _planned(neurons: int, exemplars: int, features: int) -> Layout:
    """Return the layout for K neurons."""
    axes, rows = ("neuron", "exemplar", "feature"), min(NEURONS, neurons)
    arrays = {
        "features": ArrayLayout((neurons, exemplars, features), "float32", axes, rows, rows),
        "position": ArrayLayout((neurons, exemplars), "int64", axes[:2], rows, rows),
        "share": ArrayLayout((neurons, exemplars), "float32", axes[:2], rows, rows),
        "dead": ArrayLayout((neurons,), "bool", axes[:1], rows, rows),
    }
    return Layout(-(-neurons // rows), arrays)


def _partition(work: Work, number: int) -> None:
    """Find the regions of a range of neurons, and encode them."""
    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    responses, layer = spec.inputs["responses"], str(spec.parameters["layer"])
    device, thresholds = choose_device(work.device), open_thresholds(store, spec.inputs["thresholds"])
    start, stop = stage.layout.arrays["dead"].span(number)
    neurons = np.arange(start, stop)
    n_exemplars, width = stage.layout.arrays["features"].shape[1:]
    top = top_positions(read_pooled(open_finished(store, responses), layer)[:, neurons], n_exemplars)
    features = np.zeros((len(neurons), n_exemplars, width), np.float32)
    share = np.zeros((len(neurons), n_exemplars), np.float32)
    encoder = Encoder(store, spec, device)
    for at, exemplars in _exemplars(store, responses, layer, top, neurons, work):
        inputs = read_positions(store, spec, spec.parameters["split"], at)
        size = (int(inputs.shape[2]), int(inputs.shape[3]))
        masks = (
            np.stack([region_mask(each.map, float(thresholds.value[neurons[each.row]]), size) for each in found])
            for found in exemplars
        )
        seen: list[Floats] = []
        for found, encoded in zip(exemplars, encoder.of_inputs(inputs, _kept(masks, seen)), strict=True):
            rows, ranks = [each.row for each in found], [each.rank for each in found]
            features[rows, ranks], share[rows, ranks] = encoded, seen[-1]
    with stage.partition(number) as part:
        part.write("features", features)
        part.write("position", top)
        part.write("share", share)
        part.write("dead", thresholds.dead[start:stop])
        part.numbers.update(measured(neurons=len(neurons)))


def _kept(masks: Iterable[Floats], shares: list[Floats]) -> Iterator[Floats]:
    """Yield the masks (R, H, W) of each image; their shares of the image are added to `shares`."""
    for each in masks:
        shares.append(each.mean(axis=(1, 2)))
        yield each


def _exemplars(
    store: Store, responses: StageSpec, layer: str, top: NDArray[np.int64], neurons: NDArray[np.int64], work: Work
) -> Iterator[tuple[NDArray[np.int64], list[list[Exemplar]]]]:
    """Yield the positions (n,) of images, and of each image the neurons that have it as exemplar."""
    at, grid = np.unique(top), read_grid(open_finished(store, responses), layer)
    where: dict[int, list[tuple[int, int]]] = {}
    for (row, rank), position in np.ndenumerate(top):
        where.setdefault(int(position), []).append((row, rank))
    for found in run_positions(store, responses, at, choose_device(work.device)):
        here = at[found.start : found.start + len(found.content)]
        maps = as_maps(found.maps[layer], grid)
        yield (
            here,
            [
                [Exemplar(row, rank, maps[i, neurons[row]]) for row, rank in where[int(position)]]
                for i, position in enumerate(here)
            ],
        )


def _size(spec: StageSpec, survey: Survey) -> Size:
    responses, layer = spec.inputs["responses"], str(spec.parameters["layer"])
    neurons, height, width = check_maps(responses, layer, survey, KEY)
    n = min(count_images(responses, survey), int(spec.parameters["exemplars"]))
    layout = _planned(neurons, n, count_features(spec, survey))
    maps = 4 * MAX_BATCH * neurons * height * width
    masks = 4 * 4 * min(NEURONS, neurons) * int(np.prod(input_and_layers(responses, survey)[0][1:]))
    peak = 3 * layout.n_bytes // layout.partitions + 4 * maps + masks + encoder_bytes(spec, survey, MAX_BATCH)
    return Size(layout.n_bytes, peak)


REGIONS = Step("regions", VERSION, _layout, _partition, _size, network=True)
