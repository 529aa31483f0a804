"""Why a step's update of a layer cannot be split by the members of its batch."""

from collections.abc import Sequence

import torch
from torch import nn

from tasks.recording.pieces import WIDE, weight_of
from tasks.recording.taps import Call


def odd_calls(name: str, module: nn.Module, calls: Sequence[Call]) -> str:
    """Return why calls of a layer cannot be split, whatever their gradients, "" if they can."""
    if any(call.inputs is None for call in calls):
        return f"layer {name!r}: expected calls with one tensor, found other arguments"
    given = [] if isinstance(module, nn.Embedding) else [call.inputs for call in calls]  # tokens are integers
    tensors = [weight_of(module), *given, *(call.gradients for call in calls)]
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    if calls and (len(dtypes) > 1 or not dtypes <= set(WIDE)):
        found = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        return f"layer {name!r}: expected float32 or float64 in weight, inputs and gradients, found {found}"
    return ""


def problem_of(
    optimizer: torch.optim.Optimizer, name: str, calls: Sequence[Call], members: int, factor: float | None
) -> str:
    """Return why an update cannot be split by its members, "" if it can."""
    linear = f"layer {name!r}: expected an optimiser that is linear in the gradient (torch's SGD), found"
    if type(optimizer) is not torch.optim.SGD:
        return f"{linear} {type(optimizer).__name__}"
    if any(group["maximize"] for group in optimizer.param_groups):
        return f"layer {name!r}: expected an optimiser that goes down the gradient, found SGD with maximize=True"
    if factor is None:
        return (
            f"layer {name!r}: expected a gradient that is the sum of its members' parts, found another: the weight is "
            "tied, or the loss has a term of the weights"
        )
    rows = [len(call.inputs) for call in calls if call.inputs is not None]
    if any(count != members for count in rows) and sum(rows) != members:
        return f"layer {name!r}: expected a row for each of {members} members, found {rows}"
    return ""
