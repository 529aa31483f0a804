"""The ReLU calls of a network, in the order of a run: modules, functions and methods, in place or not."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tasks.splitting.channels import CHANNELS_FIRST, ChannelLayout, LayoutError, decide_layout
from tasks.splitting.token_grid import TokenGrid
from tasks.splitting.tracking import ChannelTracker

See = Callable[[int, Tensor], None]  # number of the call, output; it may change the output in place
Layouts = Sequence[ChannelLayout]  # by call

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


def relu_layouts(run: Callable[[Tensor], object], image: Tensor) -> tuple[ChannelLayout, ...]:
    """Return the layout of the output of every ReLU call, as the network's operations show it.

    Parameters
    ----------
    run : a network or its first part
    image : (1, C, H, W)

    Raises
    ------
    ValueError : the run does not call a ReLU, or the channels of an output are on an unknown axis
    """
    found: list[ChannelLayout] = []

    def look(number: int, output: Tensor) -> None:
        try:
            found.append(decide_layout(tuple(output.shape), tracker.axes(output), None))
        except LayoutError as error:
            known = str(error).partition(";")[0]
            raise ValueError(f"ReLU call {number}: {known}; take another network, layer or interpreter") from None

    with torch.inference_mode(), ChannelTracker(image) as tracker, ReluCalls(look):
        run(image)
    if not found:
        raise ValueError(
            "expected at least one ReLU up to the layer, found none; VEBI selects outputs of ReLUs: leave it out, and "
            "take ice or topics for a network with other activations"
        )
    return tuple(found)


def relu_maps(run: Callable[[Tensor], object], images: Tensor, layouts: Layouts | None = None) -> list[Tensor]:
    """Return the output of every ReLU call of a run as maps.

    Parameters
    ----------
    run : a network or its first part
    images : (n, C, H, W)
    layouts : those of the outputs, as `relu_layouts` gives them; None: found by a run of the first image

    Returns
    -------
    by call: (n, f, h, w), outputs (n, f) with h = w = 1, tokens with h = 1; copies, since later operations may change
    them in place

    Raises
    ------
    ValueError : the run does not call a ReLU, the channels of an output are on an unknown axis, or an output is not a
        vector, tokens or a map
    """
    known, found = layouts or relu_layouts(run, images[:1]), list[Tensor]()
    with ReluCalls(lambda number, output: found.append(as_maps(number, output, known[number]).clone())):
        run(images)
    return found


def zeroed(
    run: Callable[[Tensor], Tensor],
    images: Tensor,
    units: Mapping[int, Sequence[int]],
    layouts: Layouts | None = None,
) -> Tensor:
    """Return the output of a run in which units are 0: by number of the ReLU call, channels of its output."""
    known = layouts or relu_layouts(run, images[:1])

    def erase(number: int, output: Tensor) -> None:
        if number in units:
            as_maps(number, output, known[number])[:, list(units[number])] = 0

    with ReluCalls(erase):
        return run(images)


def as_maps(number: int, output: Tensor, layout: ChannelLayout) -> Tensor:
    """Return a view (n, f, h, w) of a ReLU's output; raise ValueError where it is not a vector, tokens or a map."""
    first = output if layout.name == CHANNELS_FIRST else output.movedim(-1, 1)
    if output.ndim > 4:
        raise ValueError(
            f"ReLU call {number}: expected vectors, tokens or maps, found an output of shape {tuple(output.shape)}"
        )
    while first.ndim < 4:  # positions on one axis are a map of one row
        first = first.unsqueeze(2)
    return first


def on_patches(maps: Tensor, grid: TokenGrid | None) -> Tensor:
    """Return the maps (n, f, 1, l) of tokens as those of the patches, (n, f, h, w); other maps unchanged."""
    if grid is None or maps.shape[2:] != (1, grid.n_tokens):
        return maps
    return maps[:, :, 0, list(grid.cells)].reshape(*maps.shape[:2], grid.rows, grid.columns)


def _lower_bound(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # Any: a number
    """Return the lower bound of a call of hardtanh."""
    return args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
