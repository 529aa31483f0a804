"""Modules that hold several linear maps: what is archived of them, and what is traced.

An archive keeps each weight of such a module as it is, as a piece. A traced map is put together from pieces: some rows
or columns of one, or two side by side. So the head of an attention, and the gates of a recurrent layer, are linear
layers like others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from tasks.modules.rows import Inputs

Stack = tuple[Tensor, Tensor | None]  # weights (n, out, in), biases (n, out)


@dataclass(frozen=True)
class Piece:
    """A weight of a module, and the bias next to it: names of parameters in the module."""

    weight: str
    bias: str | None = None

    @property
    def names(self) -> dict[str, str]:
        """Return the names by the part that they play."""
        return {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})


class LinearMap(Protocol):
    """A traced map of a module, (out, in)."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """Names of the pieces that it is made of."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Outputs and inputs."""
        ...

    @property
    def part(self) -> bool:
        """Whether it is a part of another map, such as a head, which is traced where a config names it."""
        ...

    def assemble(self, stacks: Sequence[Stack]) -> Stack:
        """Return the map's weights and biases, or updates of them, from those of its pieces in order."""
        ...


class ComposedKind(Protocol):
    """How the modules of one class are archived and traced."""

    @property
    def forward(self) -> tuple[str, ...]:
        """Names of the methods that compute; a subclass that has its own is not of this kind."""
        ...

    def problem(self, module: nn.Module) -> str:
        """Return what keeps a module from being covered, "" if it is covered."""
        ...

    def pieces(self, module: nn.Module) -> dict[str, Piece]:
        """Return the pieces by name."""
        ...

    def maps(self, module: nn.Module) -> dict[str, LinearMap]:
        """Return the maps by name."""
        ...

    def stand_in(self, size: tuple[int, int]) -> nn.Module:
        """Return a module without values that computes a map of that size."""
        ...

    def inputs(self, module: nn.Module, given: tuple[object, ...], named: Mapping[str, object]) -> dict[str, Inputs]:
        """Return the inputs of each map as its stand-in takes them, from the arguments of the module's call.

        Raises
        ------
        ValueError : these are not the arguments of such a module, or its maps cannot be traced in this call
        """
        ...


@dataclass(frozen=True)
class SliceMap:
    """Some rows, or some columns, of one piece.

    Attributes
    ----------
    rows, columns : first and past the last, of the weight
    biased : first and past the last value of the bias; None where the bias belongs to no part of the map
    """

    piece: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    biased: tuple[int, int] | None
    part: bool = False

    @property
    def pieces(self) -> tuple[str, ...]:
        """The one piece."""
        return (self.piece,)

    @property
    def size(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def assemble(self, stacks: Sequence[Stack]) -> Stack:
        """Return the part of the piece, views."""
        ((weights, biases),) = stacks
        kept = weights[:, slice(*self.rows), slice(*self.columns)]
        return kept, None if biases is None or self.biased is None else biases[:, slice(*self.biased)]


@dataclass(frozen=True)
class GateMap:
    """The gates of a recurrent layer as one map of [x_t, h_{t-1}, 1], or [x_t, h_{t-1}] without biases.

    Attributes
    ----------
    pieces : of the input and of the hidden state
    rows : of each
    widths : inputs and hidden units that the gates see
    bias : whether the layer has biases, which are the last column
    apart : how many of the last rows do not add up the two parts, as the new gate of a GRU: it has rows of [x_t, 1]
        and rows of [h_{t-1}, 1]
    """

    pieces: tuple[str, str]
    rows: int
    widths: tuple[int, int]
    bias: bool
    apart: int = 0
    part: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.rows + self.apart, sum(self.widths) + self.bias

    def assemble(self, stacks: Sequence[Stack]) -> Stack:
        """Return the joined weights; their biases are a column of them."""
        (seen, seen_bias), (held, held_bias) = stacks
        n, together = len(seen), self.rows - self.apart
        found = seen.new_zeros(n, *self.size)
        x, h = slice(0, self.widths[0]), slice(self.widths[0], sum(self.widths))
        second = slice(self.rows, self.rows + self.apart)
        found[:, : self.rows, x] = seen
        found[:, :together, h] = held[:, :together]
        found[:, second, h] = held[:, together:]
        if self.bias:
            assert seen_bias is not None
            assert held_bias is not None
            found[:, : self.rows, -1] = seen_bias
            found[:, :together, -1] += held_bias[:, :together]
            found[:, second, -1] = held_bias[:, together:]
        return found, None


class PieceModule(nn.Module):
    """A piece of a module under a name of its own; it does not compute, and holds no parameter itself.

    Parameters
    ----------
    name : of the module in the network
    """

    def __init__(self, name: str, module: nn.Module, piece: Piece) -> None:
        super().__init__()
        self.module_name, self.piece = name, piece
        self._module = (module,)  # a tuple, so that torch does not take it for a child

    @property
    def owner(self) -> nn.Module:
        """The module that the piece belongs to."""
        return self._module[0]

    def places(self) -> dict[str, tuple[str, nn.Module, str]]:
        """Return by part, weight or bias: the parameter's name in the network, its module and its attribute there."""
        found = {}
        for part, path in self.piece.names.items():
            inner, _, attribute = path.rpartition(".")
            found[part] = f"{self.module_name}.{path}".lstrip("."), self._module[0].get_submodule(inner), attribute
        return found


class PaddedLinear(nn.Module):
    """A linear map of rows (Q, ..., in + 1); their last column is what the bias sees: 1, or 0 at padding."""

    def __init__(self, n_in: int, n_out: int, *, device: torch.device | str | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in, device=device))
        self.bias = nn.Parameter(torch.empty(n_out, device=device))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return W x + b, and 0 at padding."""
        return inputs[..., :-1] @ self.weight.T + inputs[..., -1:] * self.bias
