"""The maps that the positions of a layer form: tokens are those of the image's patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import isqrt
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.stages import FinishedStage
from tasks.splitting.channels import TOKENS, ChannelLayout
from tasks.splitting.token_grid import TokenGrid

if TYPE_CHECKING:
    from torch import nn

PATCHES = "patches"  # mean over the patches of tokens, without class and register tokens

Floats = NDArray[np.floating]


def with_grids(
    model: nn.Module, layouts: Mapping[str, ChannelLayout], shape: tuple[int, ...]
) -> dict[str, ChannelLayout]:
    """Return layouts of layers with the grids of their tokens, where these differ from `square_grid`.

    Parameters
    ----------
    model : in evaluation mode
    layouts : by layer
    shape : (C, h, w) of an image
    """
    from tasks.splitting.token_grid import find_grid
    from tasks.steps.common.trials import example_input

    counts = {layout.shape[0] for layout in layouts.values() if layout.name == TOKENS}
    example = example_input(shape).to(next(model.parameters()).device)
    grids = {count: find_grid(model, example, count) for count in counts}
    found = {count: None if grid == square_grid(count) else grid for count, grid in grids.items()}
    return {
        layer: replace(layout, grid=found[layout.shape[0]]) if layout.name == TOKENS else layout
        for layer, layout in layouts.items()
    }


def grid_record(layouts: Mapping[str, ChannelLayout]) -> dict[str, Json]:
    """Return the grids of layers for the summary of a stage, by layer; layers without a grid are left out."""
    return {
        layer: {
            "size": [layout.grid.rows, layout.grid.columns],
            "cells": list(layout.grid.cells),
            "apart": list(layout.grid.apart),
        }
        for layer, layout in layouts.items()
        if layout.grid is not None
    }


def read_grid(finished: FinishedStage, layer: str) -> TokenGrid | None:
    """Return the grid of a layer of a finished responses stage, None for a square of the last tokens, and for maps."""
    record = finished.summary.get("grids", {}).get(layer)
    if record is None:
        return None
    rows, columns = record["size"]
    return TokenGrid(rows, columns, tuple(record["cells"]), tuple(record["apart"]))


def square_grid(n_tokens: int) -> TokenGrid | None:
    """Return the square grid of n tokens, or of all but a first one; None without such a square."""
    for patches in (n_tokens, n_tokens - 1):
        if isqrt(patches) ** 2 == patches:
            return TokenGrid.first_apart(isqrt(patches), isqrt(patches), n_tokens)
    return None


def as_maps(values: NDArray[np.floating], grid: TokenGrid | None = None) -> NDArray[np.floating]:
    """Return maps (n, K, h, w) from the outputs (n, h, w, K) of a responses stage; see `spatial_size`."""
    n, height, width, neurons = values.shape
    size, flat = spatial_size(height, width, grid), values.reshape(n, height * width, neurons)
    grid = square_grid(width) if grid is None and height == 1 and width > 1 else grid
    cells = flat if grid is None else flat[:, list(grid.cells)]
    return np.ascontiguousarray(np.moveaxis(cells, 2, 1)).reshape(n, neurons, *size)


def pool_maps(maps: Floats, pool: str, grid: TokenGrid | None = None) -> Floats:
    """Return the activation of each neuron on each image, (n, K) float32, from maps (n, h, w, K); see `as_maps`."""
    if pool == PATCHES:
        means: Floats = as_maps(maps, grid).mean(axis=(2, 3))
        return means
    flat = maps.reshape(len(maps), -1, maps.shape[-1])
    if pool == "first-token":
        return flat[:, 0]
    found: Floats = flat.max(axis=1) if pool == "max" else flat.mean(axis=1)
    return found


def spatial_size(height: int, width: int, grid: TokenGrid | None = None) -> tuple[int, int]:
    """Return the size of the map that positions form; positions on one axis are tokens of a grid.

    Raises
    ------
    ValueError : tokens without a grid that do not form a square, with or without a class token
    """
    if height > 1 or width == 1:
        return height, width
    if (found := grid or square_grid(width)) is None:
        raise ValueError(f"expected tokens of a square grid, with or without a class token, found {width} tokens")
    return found.rows, found.columns


def check_patches(layer: str, size: tuple[int, int], grid: TokenGrid | None) -> None:
    """Raise ValueError unless the patches among the positions (h, w) of a layer are known."""
    try:
        spatial_size(*size, grid)
    except ValueError as error:
        raise ValueError(f"layer {layer!r}: `concepts.pool: patches`: {error}; take another `pool`") from error
