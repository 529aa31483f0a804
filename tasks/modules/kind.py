"""What a kind of module is: a linear map in one weight, preactivation = weight matrix @ rows, group by group."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor, nn

from tasks.modules.rows import Inputs


@dataclass(frozen=True)
class Use:
    """A module of a kind with a weight of some shape; the module's own weight and bias play no part.

    Attributes
    ----------
    module : gives the settings
    shape : of the weight, as the module keeps it
    unit : index of the one output row or channel that is looked at, None for all
    """

    module: nn.Module
    shape: tuple[int, ...]
    unit: int | None = None

    @cached_property
    def groups(self) -> int:
        """Groups of the whole module."""
        return int(getattr(self.module, "groups", 1))


class OwnOperation(Protocol):
    """The operation that the module itself uses."""

    def prepare(self, use: Use, inputs: Tensor) -> Tensor:
        """Return inputs (Q, ...) as `apply` takes them."""
        ...

    def apply(self, use: Use, prepared: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return what a module with a weight (*shape) and bias (out,) makes of prepared inputs, (Q, o L)."""
        ...


class ModuleKind(Protocol):
    """How modules of one class compute: g groups, o outputs and n inputs per group, L output positions."""

    @property
    def forward(self) -> tuple[str, ...]:
        """Names of the methods that compute; a subclass that has its own is not of this kind."""
        ...

    @property
    def parameters(self) -> tuple[str, str]:
        """Names of weight and bias in the module."""
        ...

    @property
    def own(self) -> OwnOperation | None:
        """The module's own operation, where it can be faster than products of matrices."""
        ...

    @property
    def copies(self) -> bool:
        """Whether `matrices` copies the weights."""
        ...

    def inputs(self, module: nn.Module, given: tuple[object, ...]) -> Tensor:
        """Return what the weight is applied to, from the positional arguments of the module's call.

        Raises
        ------
        ValueError : these are not the arguments of such a module
        """
        ...

    def given(self, inputs: Tensor) -> Tensor:
        """Return kept inputs as the module's call takes them."""
        ...

    def join(self, calls: Sequence[Tensor]) -> Tensor:
        """Return the inputs (Q, ...) of several calls in one forward as those of one call.

        Raises
        ------
        ValueError : the module cannot take them in one call
        """
        ...

    def check(self, use: Use, inputs: Inputs) -> None:
        """Raise ValueError unless inputs (Q, ...) fit the weight; its number of axes is checked before."""
        ...

    def sizes(self, use: Use) -> tuple[int, int]:
        """Return the input and output features, or channels, of the whole module."""
        ...

    def of_unit(self, use: Use, weight: Tensor) -> Tensor:
        """Return the part of a weight (*shape) that makes the output of `use.unit`, a view."""
        ...

    def presence(self, use: Use, inputs: Tensor) -> Tensor | None:
        """Return (Q, L) of 1 where a bias counts and 0 at padding; None where all positions count."""
        ...

    def rows(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the rows (Q, g, n, L) of inputs (Q, ...), for a unit those of its group; holds them all."""
        ...

    def matrices(self, use: Use, weights: Tensor) -> Tensor:
        """Return weights (T, *shape) as (T, g, o, ...) with n = product of the rest; a view where it can be."""
        ...


class OfMaps(ModuleKind, Protocol):
    """What kinds of modules that take maps (Q, channels, ...) have in common."""

    def inputs(self, module: nn.Module, given: tuple[object, ...]) -> Tensor:
        """Return the one tensor of the call."""
        return only_tensor(given)

    def given(self, inputs: Tensor) -> Tensor:
        """Return the inputs."""
        return inputs

    def join(self, calls: Sequence[Tensor]) -> Tensor:
        """Return the inputs of the only call: maps of several calls do not lie side by side."""
        return _only_call(calls)

    def check(self, use: Use, inputs: Inputs) -> None:
        """Raise ValueError unless inputs are maps with the weight's channels."""
        _check_channels(inputs, self.sizes(use)[0], len(use.shape) - 2)

    def presence(self, use: Use, inputs: Tensor) -> Tensor | None:
        """Return None: a bias counts at all positions."""
        return None


def _check_channels(inputs: Inputs, channels: int, axes: int) -> None:
    """Raise ValueError unless inputs are (Q, channels, ...) with so many axes of positions."""
    if inputs.ndim != 2 + axes or inputs.shape[1] != channels:
        wanted = ", ".join(["any", str(channels), *["any"] * axes])
        raise ValueError(f"inputs: expected shape ({wanted}), found {tuple(inputs.shape)}")


def _only_call(calls: Sequence[Tensor]) -> Tensor:
    """Return the inputs of the only call.

    Raises
    ------
    ValueError : there are several
    """
    if len(calls) > 1:
        raise ValueError(
            f"expected one call, found {len(calls)}, which see maps of their own; name one call, 0 to "
            f"{len(calls) - 1}, as LAYER@CALL"
        )
    return calls[0]


def only_tensor(given: tuple[object, ...]) -> Tensor:
    """Return the one tensor that a module is called with.

    Raises
    ------
    ValueError : something else
    """
    if len(given) != 1 or not isinstance(given[0], Tensor):
        raise ValueError(f"expected one tensor as input, found {len(given)} inputs")
    return given[0]
