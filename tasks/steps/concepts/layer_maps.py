"""The maps of one layer on ranges of the probing images: from the responses stage, or from a second forward pass.

Both give the same float16 values. Ranges begin and end where partitions of the responses stage do, so that a second
forward pass sees the same batches as the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.steps.concepts.grids import as_maps, read_grid, spatial_size
from tasks.steps.concepts.responses import count_images, input_and_layers, layer_sizes, map_sizes, rows_of, run_batches

if TYPE_CHECKING:
    import torch

    from tasks.splitting.channels import ChannelLayout

RANGE_IMAGES = 1024  # images of a partition: seconds to minutes of work
CHUNK_BYTES = 8 * 2**20  # of float16 maps that are worked on at once
CHUNK_IMAGES = 32  # read at once, and worked on at once at most; a stored chunk has as many

Halves = NDArray[np.float16]


def n_ranges(store: Store, responses: StageSpec) -> int:
    """Return the number of ranges of images of a finished responses stage."""
    n, rows = _images(open_finished(store, responses))
    return -(-n // _rows_per_range(rows))


def image_range(store: Store, responses: StageSpec, number: int) -> tuple[int, int]:
    """Return the first and past-the-end position of a range of images."""
    n, rows = _images(open_finished(store, responses))
    size = _rows_per_range(rows)
    return number * size, min((number + 1) * size, n)


def planned_ranges(responses: StageSpec, survey: Survey) -> int:
    """Return the number of ranges of images of a planned responses stage."""
    shape, _ = input_and_layers(responses, survey)
    return -(-count_images(responses, survey) // _rows_per_range(rows_of(shape)))


def layer_maps(
    store: Store, responses: StageSpec, layer: str, span: tuple[int, int], device: torch.device
) -> Iterator[tuple[int, Halves]]:
    """Yield (position of the first image, maps (n, K, h, w) float16) of a range of images, in order.

    Tokens are maps of the patches, without class and register tokens. A vector is a map of one position.
    """
    finished = open_finished(store, responses)
    grid = read_grid(finished, layer)
    found = _kept if f"maps.{layer}" in finished.layout.arrays else _made_again
    rows = _rows_per_chunk(read_sizes(finished, layer))
    for start, maps in found(store, responses, layer, span, device):
        for at in range(0, len(maps), rows):
            yield start + at, as_maps(maps[at : at + rows], grid).astype(np.float16, copy=False)


def check_maps(responses: StageSpec, layer: str, survey: Survey, key: str) -> tuple[int, int, int]:
    """Return (K, h, w) of the maps of a layer of a planned responses stage.

    Raises
    ------
    ValueError : the layer's positions do not form a map; the message starts with `key`
    """
    layout: ChannelLayout = layer_sizes(responses, survey)[layer]
    neurons, height, width = map_sizes(layout)
    try:
        return neurons, *spatial_size(height, width, layout.grid)
    except ValueError as error:
        raise ValueError(f"{key}: networks.{responses.place['network']}: layer {layer!r}: {error}") from error


def read_sizes(finished: FinishedStage, layer: str) -> tuple[int, int, int]:
    """Return (K, h, w) of the maps of a layer of a finished responses stage."""
    sizes: list[Json] = finished.summary["sizes"][layer]
    neurons, height, width = (int(size) for size in sizes)
    return neurons, *spatial_size(height, width, read_grid(finished, layer))


def chunk_bytes(sizes: tuple[int, int, int]) -> int:
    """Return the memory of a chunk of maps (K, h, w) that is read and worked on."""
    per_image = 2 * int(np.prod(sizes))
    return CHUNK_IMAGES * per_image + 12 * _rows_per_chunk(sizes) * per_image


def _rows_per_chunk(sizes: tuple[int, int, int]) -> int:
    """Return the number of images that are worked on at once."""
    return max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (2 * int(np.prod(sizes)))))


def _images(finished: FinishedStage) -> tuple[int, int]:
    """Return the number of images, and that of a partition, of a responses stage."""
    layout = finished.layout.arrays["sample_id"]
    return layout.shape[0], layout.rows


def _rows_per_range(rows: int) -> int:
    """Return the number of images of a range: whole partitions of the responses stage."""
    return max(1, RANGE_IMAGES // rows) * rows


def _kept(
    store: Store, responses: StageSpec, layer: str, span: tuple[int, int], device: torch.device
) -> Iterator[tuple[int, Halves]]:
    """Yield maps (n, h, w, K) that the responses stage keeps."""
    finished, name = open_finished(store, responses), f"maps.{layer}"
    for start in range(*span, CHUNK_IMAGES):
        yield start, finished.read(name, start, min(start + CHUNK_IMAGES, span[1])).astype(np.float16, copy=False)


def _made_again(
    store: Store, responses: StageSpec, layer: str, span: tuple[int, int], device: torch.device
) -> Iterator[tuple[int, Halves]]:
    """Yield maps (n, h, w, K) of a second forward pass, rounded as if they had been kept."""
    from tasks.capture import to_storage_dtype

    finished = open_finished(store, responses)
    _, rows = _images(finished)
    for start in range(*span, rows):
        stop = min(start + rows, span[1])
        ids = finished.read("sample_id", start, stop).astype(np.int64, copy=False)
        for found in run_batches(store, responses, start, stop, device):
            at, maps = found.start - start, found.maps[layer]
            yield found.start, to_storage_dtype(maps, "float16", layer, ids[at : at + len(maps)]).astype(np.float16)
