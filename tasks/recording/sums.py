"""Whether a layer's gradient, as the optimiser got it, is the sum of its members' parts times a factor."""

from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks.modules.embedding import with_dense_gradients
from tasks.recording.columns import Call
from tasks.recording.factors import Factors, factorable, sample_axes
from tasks.tracing.products import product_type

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
    exact = product_type(gradient) == gradient.dtype  # else products of combinations are rounded in another way
    if not exact or outputs <= COMBINED or not all(_combines(module, rows) for rows, _ in calls):
        return _total(_weight_gradient(module, call) for call in calls), gradient
    chosen = _combinations(outputs).to(gradient)
    total = _total(Factors(module, shape, *call).combined(chosen) for call in calls)
    return total, chosen @ gradient.reshape(groups, outputs, -1)


def factor_of(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """Return the one factor from sums of members' parts to gradients, None where there is not one."""
    total, wanted = (torch.cat([one.detach().double().flatten() for one in side]) for side in zip(*pairs, strict=True))
    square = float((total * total).sum())
    factor = float((total * wanted).sum()) / square if square else 0.0
    return factor if float((wanted - factor * total).norm()) <= TOLERANCE * float(wanted.norm()) else None


def _combines(module: nn.Module, rows: Tensor) -> bool:
    """Return whether combinations of the gradient's rows can be had from a call's inputs."""
    return factorable(module) and len(rows) > 0 and rows.ndim >= sample_axes(module)


def _total(parts: Iterable[Tensor]) -> Tensor:
    """Return the sum of tensors, two of which lie in memory at a time."""
    found: Tensor = reduce(Tensor.add_, parts)
    return found


@lru_cache(maxsize=64)
def _combinations(outputs: int) -> Tensor:
    """Return COMBINED random combinations of rows, (COMBINED, outputs) in float64, always the same.

    Every row counts alike. Not signs: parts of two rows that cancel each other, as those of two logits do, would often
    cancel here too.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randn(COMBINED, outputs, dtype=torch.float64, generator=generator, device="cpu")
    found: Tensor = drawn * (COMBINED**0.5 / torch.linalg.vector_norm(drawn, dim=0))
    return found


def _weight_gradient(module: nn.Module, call: Call) -> Tensor:
    """Return the gradient of <output gradients, layer(inputs)> by the weight."""
    weight: Tensor = module.weight.detach().requires_grad_(True)  # type: ignore[operator]  # torch's stub
    with torch.enable_grad():
        made = functional_call(with_dense_gradients(module), {"weight": weight}, (call[0],))
        (found,) = torch.autograd.grad((made * call[1]).sum(), weight)
    return found
