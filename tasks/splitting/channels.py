"""The axis of the channels in a layer's output, and the form that all analyses use: channels last."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tasks.splitting.token_grid import TokenGrid

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS_FIRST, CHANNELS_LAST, TOKENS, VECTORS = "channels-first", "channels-last", "tokens", "vectors"


class LayoutError(ValueError):
    """The axis of the channels is unknown, or the config names a layout that the output cannot have."""


@dataclass(frozen=True)
class ChannelLayout:
    """The layout of a layer's output.

    Parameters
    ----------
    name : "vectors" (n, d), "tokens" (n, l, d), "channels-first" (n, d, ...) or "channels-last" (n, ..., d)
    shape : of one sample's output, as the network gives it
    grid : of tokens that are read as the patches of an image; None: they are a map of one row
    """

    name: str
    shape: tuple[int, ...]
    grid: TokenGrid | None = None

    @property
    def n_channels(self) -> int:
        """Return the number of channels, d."""
        return self.shape[0] if self.name == CHANNELS_FIRST else self.shape[-1]

    @property
    def positions(self) -> tuple[int, ...]:
        """Return the sizes of the axes that do not hold channels, () for vectors."""
        return self.shape[1:] if self.name == CHANNELS_FIRST else self.shape[:-1]

    @property
    def in_line(self) -> bool:
        """Say whether positions are not rows and columns of the image."""
        return self.grid is None and len(self.positions) < 2

    @property
    def n_apart(self) -> int:
        """Return the number of tokens that are not positions of the map."""
        return 0 if self.grid is None else len(self.grid.apart)

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Return (d, h, w) of the output read as a map; positions on one axis are a map of one row."""
        if self.grid is not None:
            return self.n_channels, self.grid.rows, self.grid.columns
        height = prod(self.positions[:-1])
        return self.n_channels, height, prod(self.positions) // height

    def common(self, values: Tensor) -> Tensor:
        """Return a view of the layer's outputs (n, *shape) in the common form (n, *positions, d)."""
        return values.movedim(1, -1) if self.name == CHANNELS_FIRST else values

    def maps(self, values: Tensor) -> Tensor:
        """Return outputs (n, *shape) as maps (n, h, w, d), without the tokens set apart; vectors unchanged."""
        if not self.positions:
            return values
        d, height, width = self.map_shape
        kept = self.common(values) if self.grid is None else values[:, list(self.grid.cells)]
        return kept.contiguous().view(len(values), height, width, d)

    def apart(self, values: Tensor) -> Tensor | None:
        """Return the tokens set apart (n, k, d) of the layer's outputs (n, *shape); None without such tokens."""
        return values[:, list(self.grid.apart)] if self.grid is not None and self.grid.apart else None

    def native(self, values: Tensor, apart: Tensor | None = None) -> Tensor:
        """Return values in the network's layout (n, *shape), from the common form or from maps (n, h, w, d).

        Raises
        ------
        ValueError : the layer has tokens set apart, and `apart` (n, k, d) has not as many of as many samples
        """
        if self.grid is not None:
            return self._tokens(self.grid, values, apart)
        whole = values.reshape(len(values), *self.positions, self.n_channels)
        return whole.movedim(-1, 1) if self.name == CHANNELS_FIRST else whole

    def _tokens(self, grid: TokenGrid, maps: Tensor, apart: Tensor | None) -> Tensor:
        """Return tokens (n, l, d) from the maps of patches (n, h, w, d) and the tokens set apart (n, k, d)."""
        import torch

        patches = maps.reshape(len(maps), len(grid.cells), self.n_channels)
        expected, given = (len(maps), len(grid.apart)), (len(maps), 0) if apart is None else tuple(apart.shape[:2])
        if given != expected:
            raise ValueError(f"apart: expected (n, k) = {expected} tokens set apart, found {given}")
        return patches[:, grid.order] if apart is None else torch.cat([patches, apart], dim=1)[:, grid.order]


def decide_layout(shape: tuple[int, ...], axes: frozenset[int], wanted: str | None) -> ChannelLayout:
    """Return the layout of an output: as the config sets it, else as the network shows it.

    Parameters
    ----------
    shape : (n, ...), of the output of n images
    axes : the axes that hold channels, as `ChannelTracker` finds them
    wanted : "channels-first", "channels-last" or "tokens"; None where the config does not set a layout

    Raises
    ------
    LayoutError : the layout is neither set nor found, or the layout of the config does not fit the number of axes
    """
    last = len(shape) - 1
    if last == 1:
        return ChannelLayout(VECTORS, shape[1:])
    of_last = TOKENS if last == 2 else CHANNELS_LAST
    names = f"{CHANNELS_FIRST} or {of_last}"
    if wanted == TOKENS and last != 2:
        raise LayoutError(f"expected {names} for an output of shape {_words(shape)}, found {TOKENS}")
    if wanted is not None:
        return ChannelLayout(CHANNELS_FIRST if wanted == CHANNELS_FIRST else of_last, shape[1:])
    if axes in ({1}, {last}):
        return ChannelLayout(CHANNELS_FIRST if axes == {1} else of_last, shape[1:])
    found = f"axis {min(axes)}" if len(axes) == 1 else "an unknown axis"
    raise LayoutError(
        f"expected channels on axis 1 or on the last, found them on {found} of its output {_words(shape)}; set "
        f"`layout` to {names}, or name another layer"
    )


def _words(shape: tuple[int, ...]) -> str:
    """Return a shape with n for the number of images."""
    return f"(n, {', '.join(map(str, shape[1:]))})"
