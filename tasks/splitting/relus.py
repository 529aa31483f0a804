"""The ReLU calls of a network, in the order of a run: modules, functions and methods, in place or not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

See = Callable[[int, Tensor], None]  # number of the call, output (n, f, ...); it may change the output in place

RELUS = {F.relu, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}
BOUNDED = {F.hardtanh, F.hardtanh_}  # with a lower bound of 0, as in the module ReLU6


class ReluCalls(TorchFunctionMode):
    """Within this context, every ReLU call shows its output to a function.

    Parameters
    ----------
    see : called with the number of the call, from 0, and its output
    """

    def __init__(self, see: See) -> None:
        super().__init__()
        self._see, self.calls = see, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # Any: torch's own
        """Run a function of torch; show the output of a ReLU."""
        found = func(*args, **(kwargs or {}))
        if func in RELUS or (func in BOUNDED and _lower_bound(args, kwargs or {}) == 0):
            self._see(self.calls, found)
            self.calls += 1
        return found


def relu_maps(run: Callable[[Tensor], object], images: Tensor) -> list[Tensor]:
    """Return the output of every ReLU call of a run as maps.

    Parameters
    ----------
    run : a network or its first part
    images : (n, C, H, W)

    Returns
    -------
    by call: (n, f, h, w), outputs (n, f) with h = w = 1; copies, since later operations may change them in place

    Raises
    ------
    ValueError : the run does not call a ReLU, or an output is neither (n, f) nor (n, f, h, w)
    """
    found: list[Tensor] = []
    with ReluCalls(lambda number, output: found.append(as_maps(number, output).clone())):
        run(images)
    if not found:
        raise ValueError("expected at least one ReLU up to the layer, found none; VEBI selects outputs of ReLUs")
    return found


def zeroed(run: Callable[[Tensor], Tensor], images: Tensor, units: Mapping[int, Sequence[int]]) -> Tensor:
    """Return the output of a run in which units are 0: by number of the ReLU call, channels of its output."""

    def erase(number: int, output: Tensor) -> None:
        if number in units:
            output[:, list(units[number])] = 0

    with ReluCalls(erase):
        return run(images)


def as_maps(number: int, output: Tensor) -> Tensor:
    """Return a view (n, f, h, w) of a ReLU's output; raise ValueError for other shapes."""
    if output.ndim == 2:
        return output[:, :, None, None]
    if output.ndim != 4:
        raise ValueError(
            f"ReLU call {number}: expected an output (n, f) or (n, f, h, w), found shape {tuple(output.shape)}"
        )
    return output


def _lower_bound(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # Any: a number
    """Return the lower bound of a call of hardtanh."""
    return args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
