"""Weighted sums of chosen rows of a matrix for training, with a fast gradient by the rows."""

from typing import Any  # Any: the context of torch's own functions

import torch
from torch import Tensor
from torch.nn import functional as F

NARROW = ((2**15, torch.int16), (2**31, torch.int32))  # numbers of rows below which indices sort faster


def weighted_rows(rows: Tensor, indices: Tensor, weight: Tensor) -> Tensor:
    """Return sums (C, n) with sum over j of weight[c, j] rows[indices[c, j]].

    Neither this nor its gradients hold (C, k, n). The gradient by the rows is a sum of the same kind, over the outputs
    that a row enters. torch's own sorts 64-bit indices and adds row by row: it takes four times as long.

    Parameters
    ----------
    rows : (d, n)
    indices : (C, k) int64
    weight : (C, k)
    """
    # `torch.func` refuses tensors of integers
    found: Tensor = _WeightedRows.apply(rows, weight, lambda: indices)  # type: ignore[no-untyped-call]  # torch's stub
    return found


class _WeightedRows(torch.autograd.Function):
    """The sums, and their gradients."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, weight: Tensor, chosen: Any) -> Tensor:
        """Return the sums."""
        return F.embedding_bag(chosen(), rows, mode="sum", per_sample_weights=weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Any], output: Tensor) -> None:
        """Keep what the gradients need."""
        rows, weight, ctx.chosen = inputs
        ctx.save_for_backward(rows, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return the gradients of rows and weight."""
        rows, weight = ctx.saved_tensors
        by_rows, by_weight, _ = ctx.needs_input_grad
        gradient, indices = gradient.contiguous(), ctx.chosen()
        return (
            _rows_gradient(gradient, indices, weight, len(rows)) if by_rows else None,
            _weight_gradient(gradient, indices, rows) if by_weight else None,
            None,
        )


def _rows_gradient(gradient: Tensor, indices: Tensor, weight: Tensor, count: int) -> Tensor:
    """Return the gradient (count, n) of the rows: of each, the weighted sum of the outputs that it enters."""
    flat, k = indices.reshape(-1), indices.shape[1]
    dtype = next((narrow for limit, narrow in NARROW if count <= limit), torch.int64)
    order = flat.to(dtype).argsort(stable=True)
    sizes = flat.new_zeros(count).scatter_add_(0, flat, torch.ones_like(flat))
    parts = weight.reshape(-1).index_select(0, order)
    outputs, starts = order.div(k, rounding_mode="floor"), sizes.cumsum(0) - sizes
    return F.embedding_bag(outputs, gradient, starts, mode="sum", per_sample_weights=parts)


def _weight_gradient(gradient: Tensor, indices: Tensor, rows: Tensor) -> Tensor:
    """Return the gradient (C, k) of the weights, which torch has as an operation of its own."""
    classes, k = indices.shape
    bags = torch.arange(classes, device=indices.device)
    found: Tensor = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        gradient, rows, indices.reshape(-1), bags * k, bags.repeat_interleave(k), 0
    )
    return found.view(classes, k)
