"""Whether a layer's gradient, as the optimiser got it, is the sum of its members' parts times a factor."""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks.recording.columns import Call
from tasks.recording.factors import Factors, factorable, sample_axes

TOLERANCE = 1e-3  # of the gradient's norm: rounding of float32, far below a missing part
COMBINED = 8  # random combinations of a gradient's rows that stand for all of them


def summed(module: nn.Module, calls: Sequence[Call], gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of all members' parts of a layer's gradient, and the gradient, to be compared.

    Of a linear layer or convolution with many outputs both are random combinations of the rows, which differ where the
    rows do and cost far less. The squared norm of the difference is kept on average, the norm within a factor of four
    in all but a thousandth of the cases (Johnson-Lindenstrauss).

    Parameters
    ----------
    calls : of the layer, at least one
    gradient : (*weight.shape)
    """
    groups, shape = int(getattr(module, "groups", 1)), tuple(gradient.shape)
    outputs = shape[0] // groups
    if not factorable(module) or outputs <= COMBINED or any(rows.ndim < sample_axes(module) for rows, _ in calls):
        return torch.stack([_weight_gradient(module, call) for call in calls]).sum(0), gradient
    chosen = _combinations(outputs).to(gradient)
    parts = [Factors(module, shape, *call).combined(chosen) for call in calls]
    return torch.stack(parts).sum(0), chosen @ gradient.reshape(groups, outputs, -1)


def factor_of(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """Return the one factor from sums of members' parts to gradients, None where there is not one."""
    total, wanted = (torch.cat([one.detach().double().flatten() for one in side]) for side in zip(*pairs, strict=True))
    square = float((total * total).sum())
    factor = float((total * wanted).sum()) / square if square else 0.0
    return factor if float((wanted - factor * total).norm()) <= TOLERANCE * float(wanted.norm()) else None


@lru_cache(maxsize=64)
def _combinations(outputs: int) -> Tensor:
    """Return COMBINED random combinations of the rows of an output, (COMBINED, outputs) in float64, always the same.

    Not signs: parts of two rows that cancel each other, as those of two logits do, would often cancel here too.
    """
    return torch.randn(COMBINED, outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _weight_gradient(module: nn.Module, call: Call) -> Tensor:
    """Return the gradient of <output gradients, layer(inputs)> by the weight."""
    weight: Tensor = module.weight.detach().requires_grad_(True)  # type: ignore[operator]  # torch's stub
    with torch.enable_grad():
        made = functional_call(module, {"weight": weight}, (call[0],))
        (found,) = torch.autograd.grad((made * call[1]).sum(), weight)
    return found
