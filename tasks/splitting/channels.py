"""The axis of the channels in a layer's output, and the form that all analyses use: channels last."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

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
    """

    name: str
    shape: tuple[int, ...]

    @property
    def n_channels(self) -> int:
        """Return the number of channels, d."""
        return self.shape[0] if self.name == CHANNELS_FIRST else self.shape[-1]

    @property
    def positions(self) -> tuple[int, ...]:
        """Return the sizes of the axes that do not hold channels, () for vectors."""
        return self.shape[1:] if self.name == CHANNELS_FIRST else self.shape[:-1]

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Return (d, h, w) of the output read as a map; positions on one axis are a map of one row."""
        height = prod(self.positions[:-1])
        return self.n_channels, height, prod(self.positions) // height

    def common(self, values: Tensor) -> Tensor:
        """Return a view of the layer's outputs (n, *shape) in the common form (n, *positions, d)."""
        return values.movedim(1, -1) if self.name == CHANNELS_FIRST else values

    def native(self, values: Tensor) -> Tensor:
        """Return values in the network's layout (n, *shape), from the common form or from maps (n, h, w, d)."""
        whole = values.reshape(len(values), *self.positions, self.n_channels)
        return whole.movedim(-1, 1) if self.name == CHANNELS_FIRST else whole


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
