"""Choose the products of a layer's projection, and the number of queries that fit into memory."""

from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from tasks.modules.rows import Inputs, values_of
from tasks.tracing.checks import check_finite, check_operation, check_shape, check_tensors
from tasks.tracing.coverage import check_covered
from tasks.tracing.patches import Operation
from tasks.tracing.products import product_type

Strategy = Literal["matrices", "convolution", "gradient", "gram"]

BUDGET = 256 * 2**20  # largest number of bytes for the queries of one projector
DOUBLE_COST = 4.5  # cost of a float64 product relative to a float32 convolution; measured


def checked_operation(
    module: nn.Module, weight: Tensor, inputs: Inputs, anchor: Tensor | None, bias: Tensor | None, unit: int | None
) -> Operation:
    """Check the tensors that describe the queries, and return the operation."""
    check_covered("module", module)
    check_tensors(inputs=inputs, weight=weight, anchor=anchor, bias=bias)
    operation = Operation(module, tuple(weight.shape), bias is not None, unit)
    check_operation(operation, inputs)
    for name, tensor in (("weight", weight), ("inputs", values_of(inputs)), ("anchor", anchor), ("bias", bias)):
        if tensor is not None:
            check_finite(name, tensor)
    if anchor is not None:
        check_shape("anchor", anchor, operation.shape)
    if bias is not None:
        check_shape("bias", bias, (operation.n_outputs,))
    return operation


def n_positions(operation: Operation, inputs: Inputs) -> int:
    """Return the number of output positions L of one query, after padding, from shapes alone."""
    one = torch.empty((1, *inputs.shape[1:]), dtype=inputs.dtype, device="meta")
    return int(operation.rows(one).shape[-1])


def choose_strategy(operation: Operation, inputs: Inputs, norms: bool, n_steps: int) -> Strategy:
    """Return the method with fewer multiplications per step and query.

    Linear layers of one row use `matrices`: their norm is free, and G would be as large as the layer.
    """
    groups, outputs, width = operation.matrix_shape
    positions = n_positions(operation, inputs)
    if positions <= 1:
        return "matrices"
    if not norms:
        return "gradient"
    within = BUDGET // (8 * groups * width * width)  # number of queries with Gram matrices that fit
    narrow = product_type(inputs) == torch.float32
    moved: Strategy = "convolution" if narrow and operation.convolves else "matrices"
    if within == 0:
        return moved
    shared = max(1, min(len(inputs), within))
    gram = width * (1 + outputs / shared + positions / max(n_steps, 1)) * (DOUBLE_COST if narrow else 1) + outputs
    return "gram" if gram < outputs * positions else moved


def queries_within(operation: Operation, inputs: Inputs, strategy: Strategy, budget: int = BUDGET) -> int:
    """Return the number of queries that a projector can hold in `budget` bytes, at least 1."""
    groups, outputs, width = operation.matrix_shape
    size = torch.finfo(product_type(inputs)).bits // 8
    positions = n_positions(operation, inputs)
    held = {
        "matrices": size * groups * (width + outputs) * positions,
        "convolution": size * (2 * groups * outputs * positions + prod(inputs.shape[1:])),
        "gradient": size * groups * outputs * width,
        "gram": size * groups * outputs * width + 8 * groups * width * width,
    }
    return max(1, budget // max(held[strategy], 1))
