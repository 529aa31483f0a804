"""Contributions of updates to queries in one call, with bounded memory."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tasks.modules import Embedding, kind_of
from tasks.modules.embedding import tokens_as_floats
from tasks.modules.rows import Inputs, values_of
from tasks.tracing.checks import check_shape, check_tensors
from tasks.tracing.contributed import Contributions
from tasks.tracing.projector import Projector
from tasks.tracing.strategies import checked_operation, choose_strategy, queries_within


def contributions(
    module: nn.Module,
    weight: Tensor,
    inputs: Inputs,
    updates: Tensor,
    *,
    anchor: Tensor | None = None,
    bias: Tensor | None = None,
    bias_updates: Tensor | None = None,
) -> Contributions:
    """Project T updates of a layer's weight on the preactivations z = W f of Q queries.

    Parameters
    ----------
    module : Linear, Conv1d-3d, ConvTranspose1d-3d or Embedding; gives only the operation (stride, padding, groups, ...)
    weight : (*shape) in the module's layout, final weights W
    inputs : (Q, ...) inputs of the layer; those of a linear layer may have any number of token axes, or any number of
        rows for each query: `tasks.modules.rows.Rows(values, offsets)`. Tokens of an embedding are integers or floats
    updates : (T, *shape), D_t = W_{t+1} - W_t
    anchor : None, or a tensor of the weight's shape that gives z as preactivation (displacement: W - W_0)
    bias, bias_updates : (out,), (T, out); then z = W f + b, and an update contributes D f + db

    Returns
    -------
    Contributions on the inputs' device; float64 for float64, else float32 with errors within 2e-5 of
    `preactivation_norm * norm`

    Raises
    ------
    TypeError : a module that is not covered, or an array instead of a tensor
    ValueError : wrong shapes, NaN, two dtypes or devices, one of bias and bias_updates without the other

    Notes
    -----
    Pfahler & Morik 2022, Eqs. 6 and 7; sums run over all outputs, positions and groups. The initial weights'
    contribution is the same call with `initial[None]` as updates. A batch of queries holds at most 256 MiB (one query
    may exceed it). Temporaries take about 16 MiB, or the memory of one update.
    """
    return _all(module, weight, inputs, updates, (anchor, bias, bias_updates), None)


def gammas(
    module: nn.Module,
    weight: Tensor,
    inputs: Inputs,
    updates: Tensor,
    *,
    anchor: Tensor | None = None,
    bias: Tensor | None = None,
    bias_updates: Tensor | None = None,
) -> Tensor:
    """Return gamma (Q, T) alone: the same as from `contributions`, but much faster for convolutions.

    Without norms the error of float32 is not checked against them. It is within 5e-7 ||D_t|| ||G||, where G is
    grad_W <z, layer(f; W)>.
    """
    _check_biases(bias, bias_updates)
    weight, inputs, updates, anchor = _narrowed(module, weight, inputs, updates, anchor)
    found = [_empty(inputs, updates)[0][:0]]
    for batch in _batches(module, weight, inputs, updates, (anchor, bias, None), norms=False):
        projector = Projector(module, weight, inputs[batch], anchor=anchor, bias=bias, norms=False)
        found.append(projector.gammas(updates, bias_updates))
    return torch.cat(found)


def unit_contributions(
    module: nn.Module,
    weight: Tensor,
    inputs: Inputs,
    updates: Tensor,
    unit: int,
    *,
    anchor: Tensor | None = None,
    bias: Tensor | None = None,
    bias_updates: Tensor | None = None,
) -> Contributions:
    """Project updates on the preactivation of one unit alone, a neuron or a filter.

    Parameters
    ----------
    unit : output feature of a linear layer or output channel of a convolution, 0..out-1

    Returns
    -------
    Contributions of that unit's row of the weight, as from `contributions`. Gammas and squared norms, summed over all
    units, are those of the layer.
    """
    return _all(module, weight, inputs, updates, (anchor, bias, bias_updates), unit)


def _all(
    module: nn.Module,
    weight: Tensor,
    inputs: Inputs,
    updates: Tensor,
    options: tuple[Tensor | None, Tensor | None, Tensor | None],
    unit: int | None,
) -> Contributions:
    """Project updates on all queries, batch by batch; `options` are anchor, bias and bias_updates."""
    anchor, bias, bias_updates = options
    _check_biases(bias, bias_updates)
    weight, inputs, updates, anchor = _narrowed(module, weight, inputs, updates, anchor)
    parts, n_steps = [], len(updates)
    for batch in _batches(module, weight, inputs, updates, (anchor, bias, unit), norms=True):
        projector = Projector(module, weight, inputs[batch], anchor=anchor, bias=bias, unit=unit, n_steps=n_steps)
        parts.append(projector.contributions(updates, bias_updates))
    return _joined(parts, inputs, updates)


def _narrowed(
    module: nn.Module, weight: Tensor, inputs: Inputs, updates: Tensor, anchor: Tensor | None
) -> tuple[Tensor, Inputs, Tensor, Tensor | None]:
    """Return weight, inputs, updates and anchor of an embedding with the rows that the tokens pick; others as given."""
    kind = kind_of(module)
    if not isinstance(kind, Embedding):
        return weight, inputs, updates, anchor
    inputs = tokens_as_floats(module, weight, inputs)
    checked_operation(module, weight, inputs, anchor, None, None)
    check_tensors(inputs=inputs, updates=updates)
    check_shape("updates", updates, (-1, *weight.shape))
    assert isinstance(inputs, Tensor)  # as its kind has checked
    used, tokens = kind.narrow(inputs)
    if not len(used):  # only padding; a table without rows is not a table
        used = used.new_zeros(1)
    return weight[used], tokens, updates[:, used], None if anchor is None else anchor[used]


def _check_biases(bias: Tensor | None, bias_updates: Tensor | None) -> None:
    """Check that bias and its updates are both given or both missing."""
    if (bias is None) != (bias_updates is None):
        raise ValueError("bias, bias_updates: expected both or neither, found one")


def _batches(
    module: nn.Module,
    weight: Tensor,
    inputs: Inputs,
    updates: Tensor,
    options: tuple[Tensor | None, Tensor | None, int | None],
    *,
    norms: bool,
) -> Iterator[slice]:
    """Check the inputs, and yield batches of queries that fit the budget."""
    operation = checked_operation(module, weight, inputs, *options)
    check_tensors(inputs=inputs, updates=updates)
    check_shape("updates", updates, (-1, *operation.shape))
    count = len(inputs)
    if not count:
        return
    strategy = choose_strategy(operation, inputs, norms, len(updates))
    size = min(count, queries_within(operation, inputs, strategy))
    yield from (slice(start, start + size) for start in range(0, count, size))


def _empty(inputs: Inputs, updates: Tensor) -> tuple[Tensor, Tensor]:
    """Return results (0, T) and (0,) for an empty set of queries."""
    check_tensors(inputs=inputs, updates=updates)
    dtype = torch.promote_types(inputs.dtype, torch.float32)
    values = values_of(inputs)
    return values.new_empty(0, len(updates), dtype=dtype), values.new_empty(0, dtype=dtype)


def _joined(parts: list[Contributions], inputs: Inputs, updates: Tensor) -> Contributions:
    """Join the results of the batches of queries in order."""
    table, vector = _empty(inputs, updates)
    return Contributions(
        torch.cat([table, *(part.gamma for part in parts)]),
        torch.cat([table, *(part.norm for part in parts)]),
        torch.cat([table, *(part.cosine for part in parts)]),
        torch.cat([vector, *(part.preactivation_norm for part in parts)]),
    )
