"""The exemplars stage: the probing images that activate a few neurons of each layer most, with the active region.

One forward pass runs over these images, and over a few others, evenly spread, which give the level of each neuron
above which a region is outlined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.concepts import Concepts
from storage.layouts import ArrayLayout, Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.figures.outline import enlarge, outline, resize_map
from tasks.figures.overlay import THUMBNAIL, shrink
from tasks.io.samples import array_digest
from tasks.splitting.token_grid import TokenGrid
from tasks.steps.common.activations import MAX_BATCH, batch_size, first_input
from tasks.steps.common.networks import choose_device, preprocessing_of
from tasks.steps.common.pictures import shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.common.trials import spread
from tasks.steps.concepts.grids import as_maps, read_grid
from tasks.steps.concepts.neurons import read_neurons
from tasks.steps.concepts.responses import layer_sizes, read_pooled, run_positions, together

if TYPE_CHECKING:
    import torch

    from tasks.steps.concepts.plan import Monitored

VERSION = 1
IMAGES = 5  # of each neuron
REFERENCE = 256  # images that give a neuron's level
ABOVE = 0.01  # share of a neuron's values that lie above its level
FILE = "exemplars.parquet"

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Shown:
    """The neurons of a layer that the page shows, with their most activating images.

    Attributes
    ----------
    layer : name
    neurons : (k,)
    positions : (k, IMAGES) of the images, most activating first
    activations : (k, IMAGES)
    """

    layer: str
    neurons: NDArray[np.int64]
    positions: NDArray[np.int64]
    activations: Floats


def exemplars_spec(responses: Mapping[str, StageSpec], neurons: Sequence[StageSpec], asked: Concepts) -> StageSpec:
    """Return the spec of the images of a few neurons of each layer.

    Parameters
    ----------
    responses : of the snapshot, by layer
    neurons : the `neurons` stage of each layer, of the first view
    """
    track = {layer: list(numbers) for layer, numbers in asked.track.items()}
    own = {layer: numbers for layer, numbers in track.items() if layer in responses}
    inputs = {f"responses {index}": spec for index, spec in enumerate(responses.values())}
    inputs |= {f"neurons {index}": spec for index, spec in enumerate(neurons)}
    parameters = {"shown": asked.shown, "track": own}
    layer, first = next(iter(responses.items()))
    label = first.label.removesuffix(f" {layer}")
    return EXEMPLARS.spec(parameters, inputs, place={"track": track}, label=label)


def read_exemplars(store: Store, answers: Sequence[Monitored]) -> tuple[pd.DataFrame, dict[str, NDArray[np.uint8]]]:
    """Return the images of all answers: a table, and the pictures by digest.

    Returns
    -------
    network, seed, layer, neuron, rank, sample_id, activation, picture (key of the pictures); and the pictures
    """
    tables, pictures = [], {}
    for answer in answers:
        if answer.exemplars is None:
            continue
        finished = open_finished(store, answer.exemplars)
        table = read_table(finished.read_file(FILE), f"{finished.path}/files/{FILE}")
        keys = []
        for picture in finished.read("picture").astype(np.uint8, copy=False):
            keys.append(array_digest(picture)[:16])
            pictures[keys[-1]] = picture
        tables.append(table.assign(picture=keys, network=answer.network, seed=answer.seed))
    names = ["network", "seed", "layer", "neuron", "rank", "sample_id", "activation", "picture"]
    return pd.concat(tables, ignore_index=True)[names] if tables else pd.DataFrame(columns=names), pictures


def choose_neurons(best: pd.DataFrame, count: int, tracked: Sequence[int]) -> NDArray[np.int64]:
    """Return the neurons to show: the tracked ones, then the most interpretable, spread over the words.

    Parameters
    ----------
    best : a row for each neuron: neuron, word, similarity, interpretable, dead
    count : number of neurons, or more where more are tracked
    tracked : neurons that come first

    Notes
    -----
    Every word gets its most similar neuron before any word gets a second one. Neurons that are not interpretable come
    after all that are, dead neurons last.
    """
    others = best[~best["neuron"].isin(list(tracked))]
    group = np.where(others["interpretable"], 0, np.where(others["dead"], 2, 1))
    others = others.assign(group=group).sort_values(
        ["group", "similarity", "neuron"], ascending=[True, False, True], ignore_index=True
    )
    turn = others.groupby(["group", "word"]).cumcount()
    order = np.lexsort((turn, others["group"]))  # stable: by similarity within a turn
    rest = others["neuron"].to_numpy(np.int64)[order][: max(0, count - len(tracked))]
    return np.concatenate([np.array(tracked, np.int64), rest])


def _shown(store: Store, spec: StageSpec) -> Iterator[Shown]:
    """Yield the neurons of each layer."""
    for neurons in _neurons(spec):
        responses = open_finished(store, neurons.inputs["detected"].inputs["responses"])
        layer = str(neurons.inputs["detected"].parameters["layer"])
        table = read_neurons(open_finished(store, neurons))
        best, tracked = table[table["rank"] == 0], spec.parameters["track"].get(layer, [])
        chosen = choose_neurons(best, int(spec.parameters["shown"]), tracked)
        activations = read_pooled(responses, layer)[:, chosen].T
        top = np.argsort(-activations, axis=1, kind="stable")[:, :IMAGES]
        yield Shown(layer, chosen, top, np.take_along_axis(activations, top, axis=1))


def _responses(spec: StageSpec) -> StageSpec:
    """Return the responses of the snapshot, with all layers, for one forward pass."""
    return together([given for role, given in spec.inputs.items() if role.startswith("responses")])


def _neurons(spec: StageSpec) -> list[StageSpec]:
    """Return the stages of neurons, a layer each."""
    return [given for role, given in spec.inputs.items() if role.startswith("neurons")]


def _layout(store: Store, spec: StageSpec) -> Layout:
    height, width = first_input(store, _responses(spec)).shape[2:]
    size = enlarge(shrink(np.zeros((height, width, 3), np.uint8))).shape
    n = sum(shown.positions.size for shown in _shown(store, spec))
    return Layout(1, {"picture": ArrayLayout((n, *size), "uint8", ("example", "row", "column", "colour"), n, n)})


def _partition(work: Work, number: int) -> None:
    """Find the images, and outline what activates the neurons."""
    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    layers, responses = list(_shown(store, spec)), _responses(spec)
    pictures = _pictures(store, responses, np.unique(np.concatenate([s.positions.ravel() for s in layers])))
    ids = open_finished(store, responses).read("sample_id").astype(np.int64)
    regions = active_maps(store, responses, layers, choose_device(work.device))
    drawn, tables = [], []
    for shown in layers:
        maps, level = regions[shown.layer]
        grid = read_grid(open_finished(store, _of_layer(spec, shown.layer)), shown.layer)
        for (row, rank), position in np.ndenumerate(shown.positions):
            drawn.append(_drawn(pictures[int(position)], maps[row, rank], float(level[row]), grid))
        n, count = shown.positions.shape
        columns = {"neuron": np.repeat(shown.neurons, count), "rank": np.tile(np.arange(count), n)}
        found = {"sample_id": ids[shown.positions.ravel()], "activation": shown.activations.ravel()}
        tables.append(pd.DataFrame({"layer": shown.layer, **columns, **found}))
    with stage.partition(number) as part:
        part.write("picture", np.stack(drawn))
        part.write_file(FILE, table_bytes(pd.concat(tables, ignore_index=True)))
        part.numbers.update(measured(pictures=len(drawn)))


def _pictures(store: Store, responses: StageSpec, at: NDArray[np.int64]) -> dict[int, NDArray[np.uint8]]:
    """Return small pictures of the images at the positions `at`."""
    settings, size = (
        preprocessing_of(responses.parameters["network"]),
        batch_size(tuple(first_input(store, responses).shape[1:])),
    )
    found: dict[int, NDArray[np.uint8]] = {}
    for start in range(0, len(at), size):
        chosen = at[start : start + size]
        images = shown_images(read_positions(store, responses, responses.parameters["split"], chosen), settings)
        found |= {int(position): enlarge(image) for position, image in zip(chosen, images, strict=True)}
    return found


def active_maps(
    store: Store, responses: StageSpec, layers: Sequence[Shown], device: torch.device
) -> dict[str, tuple[Floats, NDArray[np.float64]]]:
    """Return the maps of the chosen neurons on their images, and their levels, by layer.

    Returns
    -------
    (k, IMAGES, h, w) and (k,): the share `ABOVE` of a neuron's values on at most `REFERENCE` images, evenly spread,
    lies above its level
    """
    from tasks.detectors.thresholds import TopValues

    n = len(open_finished(store, responses).read("sample_id"))
    reference = spread(n, REFERENCE)
    at = np.unique(np.concatenate([reference, *(shown.positions.ravel() for shown in layers)]))
    maps: dict[str, Floats] = {}
    levels: dict[str, TopValues] = {}
    for found in run_positions(store, responses, at, device):
        here = at[found.start : found.start + len(found.content)]
        for shown in layers:
            values = found.maps[shown.layer][..., shown.neurons].astype(np.float32)
            height, width = values.shape[1:3]
            level = levels.setdefault(shown.layer, TopValues(len(reference) * height * width, ABOVE))
            if (sampled := np.isin(here, reference)).any():
                level.update(np.moveaxis(values[sampled], 3, 1))
            kept = maps.setdefault(shown.layer, np.empty((*shown.positions.shape, height, width), np.float32))
            for row, rank in np.argwhere(np.isin(shown.positions, here)):
                index = np.searchsorted(here, shown.positions[row, rank])
                kept[row, rank] = values[index, ..., row]
    return {layer: (maps[layer], levels[layer].threshold()) for layer in maps}


def _of_layer(spec: StageSpec, layer: str) -> StageSpec:
    """Return the responses of a layer."""
    return next(
        one for role, one in spec.inputs.items() if role.startswith("responses") and layer in one.place["layers"]
    )


def _drawn(picture: NDArray[np.uint8], values: Floats, level: float, grid: TokenGrid | None) -> NDArray[np.uint8]:
    """Return a picture with the region outlined where a neuron's map exceeds its level; vectors have none."""
    try:
        drawn = as_maps(values[None, ..., None], grid)[0, 0]
    except ValueError:  # positions that are not rows and columns
        return picture
    if drawn.size == 1:
        return picture
    return outline(picture, resize_map(drawn, picture.shape[:2]) > level)


def _size(spec: StageSpec, survey: Survey) -> Size:
    responses = _responses(spec)
    layouts = layer_sizes(responses, survey)
    for layer, numbers in spec.parameters["track"].items():
        if numbers and max(numbers) >= layouts[layer].n_channels:
            raise ValueError(
                f"concepts.track.{layer}: expected neurons below {layouts[layer].n_channels}, found {max(numbers)}"
            )
    count = IMAGES * sum(
        max(spec.parameters["shown"], len(spec.parameters["track"].get(layer, []))) for layer in layouts
    )
    row = 4 * sum(int(np.prod(found.shape)) for found in layouts.values())
    return Size(count * THUMBNAIL**2 * 3, 4 * MAX_BATCH * row + 3 * count * THUMBNAIL**2 * 3)


EXEMPLARS = Step("exemplars", VERSION, _layout, _partition, _size, network=True)
