"""Contributions of the members of a batch to queries, from the inputs and output gradients of a layer's calls."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tasks.modules import kind_of
from tasks.modules.rows import Inputs, values_of
from tasks.recording.factors import Factors, factorable, sample_axes
from tasks.tracing import gammas

AT_ONCE = 64 * 2**20  # bytes of gradients by member, or of what they are made of, that are computed together

Call = tuple[Tensor, Tensor]  # inputs and output gradients of a call of the layer, (rows, ...)
# gradient: a gradient has all updates that it enters, also later ones through momentum. step: a gradient has its part
# of its own step's update; the examples of the step share equally what momentum carries over.
Credit = Literal["gradient", "step"]


def check_credit(credit: str) -> None:
    """Raise ValueError for another credit than those of `Credit`."""
    if credit not in ("gradient", "step"):
        raise ValueError(f"credit: expected gradient or step, found {credit!r}")


def member_columns(
    calls: Sequence[Call], members: int, module: nn.Module, weight: Tensor, inputs: Inputs, anchor: Tensor | None
) -> Tensor:
    """Return <z, G_b f> of the gradient G_b of each member, (Q, members).

    Parameters
    ----------
    calls : either each has all members, or together they have each member once
    module, weight, inputs, anchor : as in `tasks.tracing.contributions`
    """
    columns = [_call_columns(call, module, weight, inputs, anchor) for call in calls]
    if not columns:
        return values_of(inputs).new_zeros((len(inputs), members))
    whole = columns[0].shape[1] == members
    return torch.stack(columns).sum(0) if whole else torch.cat(columns, dim=1)


def share_rest(columns: Tensor, gamma: Tensor, decay: Tensor, examples: int) -> Tensor:
    """Return columns (Q, members) with the rest of gamma (Q,), without decay (Q,), shared equally by the examples."""
    rest = gamma - decay - columns.sum(dim=1)
    shared = torch.zeros_like(columns)
    shared[:, :examples] = (rest / max(1, examples))[:, None]
    return columns + shared


def _call_columns(call: Call, module: nn.Module, weight: Tensor, inputs: Inputs, anchor: Tensor | None) -> Tensor:
    """Return <z, G_b f> (Q, rows) for the gradient G_b of each row of a call."""
    values = values_of(inputs)
    rows, outputs = call[0].to(values), call[1].to(values)
    if isinstance(module, nn.Linear) and rows.ndim == inputs.ndim == 2:
        z = values @ (weight if anchor is None else anchor).T
        return (z @ outputs.T) * (values @ rows.T)
    positions = outputs[:1].numel() // max(1, weight.shape[0])
    seen = positions * weight[:1].numel() * getattr(module, "groups", 1) * weight.element_size()  # of a row, unfolded
    size = max(1, AT_ONCE // max(1, weight.nbytes, seen))
    found = []
    for low in range(0, len(rows), size):
        part = slice(low, low + size)
        gradients = _gradients(module, weight, rows[part], outputs[part])
        found.append(gammas(module, weight, inputs, gradients, anchor=anchor))
    return torch.cat(found, dim=1)


def _gradients(module: nn.Module, weight: Tensor, rows: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient of each row (rows, *shape)."""
    if factorable(module) and rows.ndim >= sample_axes(module):
        return Factors(module, tuple(weight.shape), rows, outputs).gradients_by_sample()
    kind = kind_of(module)
    assert kind is not None, module
    blank = {name: weight.new_zeros(value.shape) for name, value in module.named_parameters(recurse=False)}

    def product(value: Tensor, row: Tensor, output: Tensor) -> Tensor:
        made: Tensor = functional_call(module, {**blank, "weight": value}, (kind.given(row[None]),))
        return (made * output[None]).sum()

    found: Tensor = vmap(grad(product), in_dims=(None, 0, 0))(blank["weight"], rows, outputs)
    return found
