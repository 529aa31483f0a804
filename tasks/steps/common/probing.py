"""A network split at a layer for the activations stage, with the sizes of one sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from storage.specs import StageSpec
from tasks.splitting.channels import TOKENS
from tasks.splitting.token_grid import TokenGrid, find_grid
from tasks.steps.common.shapes import Shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tasks.capture import Split

PATCHES, LINE = "patches", "line"
Tokens = str | Sequence[int]  # PATCHES, LINE, or rows and columns


def probe(
    model: nn.Module,
    layer: str,
    example: Tensor,
    *,
    images: Tensor | None = None,
    layout: str | None = None,
    tokens: Tokens = LINE,
) -> tuple[Split, Shapes]:
    """Return a network split at a layer, and the sizes of one sample.

    The arguments are those of `split_at`, and the positions of tokens.

    Raises
    ------
    ValueError : the model does not have the layer or cannot be split there, or tokens cannot be read as asked for
    """
    from tasks.capture import split_at
    from tasks.splitting.outputs import largest_output

    split = split_at(model, layer, example, images=images, layout=layout)
    if len(split.shape) != 3:
        raise ValueError(
            f"layer {layer!r}: expected maps, found features of shape {split.shape}; name a convolutional layer"
        )
    if tokens != LINE and split.layout.name == TOKENS:
        split = read_as_patches(model, split, example, None if tokens == PATCHES else (int(tokens[0]), int(tokens[1])))
    found = split.layout
    grid, count = found.grid, found.shape[0]
    words = grid.words() if grid else f"{count} tokens in one row" if found.name == TOKENS else ""
    sizes = tuple(example.shape[1:]), split.shape, split.n_outputs, largest_output(model, example)
    return split, Shapes(*sizes, found.name, found.in_line, split.place, words, found.n_apart)


def how_read(spec: StageSpec) -> dict[str, Any]:  # Any: the arguments of `probe`
    """Return the layout and the positions of tokens that the spec of an activations stage asks for."""
    return {"layout": spec.parameters.get("layout"), "tokens": spec.parameters.get("tokens", LINE)}


def read_as_patches(model: nn.Module, split: Split, example: Tensor, size: tuple[int, int] | None) -> Split:
    """Return a split whose positions are the patches of the image; unchanged where tokens do not show them.

    Parameters
    ----------
    model : the network of the split, in evaluation mode
    split : at a layer of tokens (n, l, d)
    example : (1, C, H, W), an image like those of later calls in size and kind
    size : rows and columns of the patches, which are then the last tokens; None: found in the network

    Raises
    ------
    ValueError : there are more patches than tokens; or tokens are set apart, and the layers after do not read others
    """
    n_tokens = split.layout.shape[0]
    if size is None:
        grid = find_grid(model, example, n_tokens)
    else:
        try:
            grid = TokenGrid.first_apart(*size, n_tokens)
        except ValueError as error:
            raise ValueError(f"layer {split.layer!r}: {error}; set `interpretation.tokens` to a smaller one") from error
    if grid is None:
        return split
    found = replace(split, layout=replace(split.layout, grid=grid))
    if grid.apart and not _reads_patches(found, example):
        raise ValueError(
            f"layer {split.layer!r}: expected layers after it that read the {len(grid.cells)} patches, found that they "
            f"read only the {len(grid.apart)} set apart; name an earlier block, or set `interpretation.tokens: line`"
        )
    return found


def _reads_patches(split: Split, example: Tensor) -> bool:
    """Say whether the logits depend on the patches: NaN goes through layers whose weights are still 0."""
    import torch

    with torch.inference_mode():
        tokens = split.trunk(example[:1])
        maps, apart = split.layout.maps(tokens), split.layout.apart(tokens)
        logits = split.head(split.layout.native(torch.full_like(maps, torch.nan), apart))
    return bool(logits.isnan().any())
