"""Contributions of the members of a batch to queries, from the inputs and output gradients of a layer's calls.

A member's contribution is <H, G_b>. H = grad_W <z, layer(f; W)> is a query's, G_b the sum over the member's positions
of d_l x_l^T. One of three products gives it, that with the fewest multiplications: of the positions of query and member
(<z_k, d_l> <f_k, x_l>), of the layer with H as its weight (<d_l, H x_l>), or of H and G_b themselves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tasks.modules import kind_of
from tasks.modules.embedding import with_dense_gradients
from tasks.modules.rows import Rows, values_of, with_values
from tasks.recording.factors import Factors, factorable, sample_axes
from tasks.tracing import gammas
from tasks.tracing.checks import check_finite
from tasks.tracing.patches import Operation
from tasks.tracing.prepared import Given, Queries
from tasks.tracing.products import inner, product_type
from tasks.tracing.strategies import BUDGET, checked_operation, n_positions

AT_ONCE = 64 * 2**20  # bytes of gradients by member of other layers than linear ones and convolutions
CHUNK = 8 * 2**20  # bytes of a temporary; larger ones need new memory pages and leave the processor's cache
EACH, FORMED = (
    1.5,
    64.0,
)  # cost of a gradient by member: multiplications of each weight, per position and once; measured

Call = tuple[Tensor, Tensor]  # inputs and output gradients of a call of the layer, (rows, ...)
# gradient: a gradient has all updates that it enters, also later ones through momentum. step: a gradient has its part
# of its own step's update; the examples of the step share equally what momentum carries over.
Credit = Literal["gradient", "step"]


def check_credit(credit: str) -> None:
    """Raise ValueError for another credit than those of `Credit`."""
    if credit not in ("gradient", "step"):
        raise ValueError(f"credit: expected gradient or step, found {credit!r}")


def share_rest(columns: Tensor, gamma: Tensor, decay: Tensor, examples: int) -> Tensor:
    """Return columns (Q, members) with the rest of gamma (Q,), without decay (Q,), shared equally by the examples."""
    return share_equally(columns, gamma - decay - columns.sum(dim=1), examples)


def share_equally(columns: Tensor, part: Tensor, examples: int) -> Tensor:
    """Return columns (Q, members) with a part (Q,) shared equally by the examples."""
    shared = torch.zeros_like(columns)
    shared[:, :examples] = (part / max(1, examples))[:, None]
    return columns + shared


class MemberColumns:
    """Queries at a layer, prepared for the gradients of any number of steps.

    Parameters
    ----------
    queries : without a bias, Q of them, at least 1
    """

    def __init__(self, queries: Queries) -> None:
        self._queries, inputs = queries, queries.inputs
        self._operation = checked_operation(queries.module, queries.weight, inputs, queries.anchor, None, None)
        self._type, self._out = product_type(inputs), torch.promote_types(inputs.dtype, torch.float32)
        self._convolves = self._operation.convolves and self._type == torch.float32
        self._first: Tensor | None = None
        self._second: Tensor | None = None
        if factorable(queries.module):
            self._first, self._second = self._prepared()

    @property
    def nbytes(self) -> int:
        """The bytes that are held, besides the queries."""
        return sum(0 if one is None else one.nbytes for one in (self._first, self._second))

    def of(self, calls: Sequence[Call], members: int) -> Tensor:
        """Return <z, G_b f> of the gradient G_b of each member, (Q, members).

        Parameters
        ----------
        calls : either each has all members, or together they have each member once

        Raises
        ------
        ValueError : NaN or inf
        """
        values = values_of(self._queries.inputs)
        columns = [self._of(rows.to(values), outputs.to(values)) for rows, outputs in calls]
        if not columns:
            return values.new_zeros((len(self._queries.inputs), members))
        whole = columns[0].shape[1] == members
        return torch.stack(columns).sum(0) if whole else torch.cat(columns, dim=1)

    @torch.no_grad()
    def _prepared(self) -> tuple[Tensor, Tensor | None]:
        """Return positions and preactivations of the queries, (Q, g, n, L) and (Q, g, o, L), or H (Q, P) and None."""
        given = self._queries.inputs
        inputs = given.trimmed() if isinstance(given, Rows) else given
        weight = self._queries.weight if self._queries.anchor is None else self._queries.anchor
        matrix = self._operation.matrices(weight.detach().double()[None], None)[0]
        groups, outputs, width = self._operation.matrix_shape
        positions, count = n_positions(self._operation, inputs), len(inputs)
        paired = _paired(self._operation, positions, count, convolves=self._convolves)
        empty, second = values_of(inputs).new_empty((0,), dtype=self._type), None
        if paired:
            first, second = (empty.new_empty(count, groups, each, positions) for each in (width, outputs))
        else:
            first = empty.new_empty(count, groups * outputs * width)
        size = max(1, CHUNK // (8 * groups * (outputs + width) * max(1, positions)))
        for low in range(0, count, size):
            part = slice(low, low + size)
            rows = self._operation.rows(with_values(inputs[part], values_of(inputs[part]).detach().double()))
            z = matrix @ rows
            first[part] = rows if paired else (z @ rows.mT).flatten(1)
            if second is not None:
                second[part] = z
        return first, second

    @torch.no_grad()
    def _of(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """Return the columns (Q, rows) of a call."""
        module, shape = self._queries.module, tuple(self._queries.weight.shape)
        if self._first is None or rows.ndim < sample_axes(module):
            return self._by_gammas(rows, outputs)
        positions = outputs[:1].numel() // max(1, self._operation.n_outputs)
        make, bytes_ = self._way(positions)
        size, found = max(1, CHUNK // max(1, bytes_)), []
        for low in range(0, len(rows), size):
            found.append(make(Factors(module, shape, rows[low : low + size], outputs[low : low + size])))
        columns = torch.cat(found, dim=1) if found else rows.new_zeros(len(self._queries.inputs), 0)
        check_finite("updates", columns.T)
        return columns.to(self._out)

    def _way(self, positions: int) -> tuple[Callable[[Factors], Tensor], int]:
        """Return the product for members of so many positions, and its bytes for a member."""
        count, (groups, outputs, width) = len(self._queries.inputs), self._operation.matrix_shape
        size, seen = torch.finfo(self._type).bits // 8, groups * (outputs + width) * positions
        if self._second is not None:
            return self._by_positions, size * (seen + 2 * groups * count * self._second.shape[3] * positions)
        if self._convolves and count * positions < EACH * positions + FORMED + count:
            return self._by_layer, size * (count * groups * outputs * positions + seen)
        return self._by_gradients, size * (groups * outputs * width + seen)

    def _by_positions(self, factors: Factors) -> Tensor:
        """Return <z_k, d_l> <f_k, x_l>, summed over positions k of the queries and l of the members."""
        assert self._first is not None
        assert self._second is not None
        pairs = []
        for mine, theirs in ((self._second, factors.sample_outputs), (self._first, factors.sample_rows)):
            left, right = (one.permute(1, 0, 3, 2).flatten(1, 2) for one in (mine, theirs.to(self._type)))
            pairs.append(left @ right.mT)
        each, ends = pairs[0].mul_(pairs[1]), (self._first.shape[3], factors.sample_rows.shape[3])
        return each.reshape(len(each), len(self._first), ends[0], factors.samples, ends[1]).sum(dim=(0, 2, 4))

    def _by_layer(self, factors: Factors) -> Tensor:
        """Return <d_l, H x_l>, summed over positions, from the layer with every H as weights."""
        assert self._first is not None
        operation, count = self._operation, len(self._first)
        groups, outputs, width = operation.matrix_shape
        weights = self._first.reshape(count, groups, outputs, width).transpose(0, 1)
        weights = weights.reshape(count * operation.shape[0], *operation.shape[1:])
        made = operation.convolve(operation.padded(factors.inputs.to(self._type)), weights, None)
        gradients = factors.sample_outputs.to(self._type).reshape(factors.samples, groups, -1, 1)
        return (made.reshape(factors.samples, groups, count, -1) @ gradients).sum(dim=1)[..., 0].T

    def _by_gradients(self, factors: Factors) -> Tensor:
        """Return <H, G_b> from the gradient of each member."""
        assert self._first is not None
        return inner(factors.gradients_by_sample().flatten(1), self._first).T

    def _by_gammas(self, rows: Tensor, outputs: Tensor) -> Tensor:
        """Return the columns of a call of a layer of another kind, or of calls without an axis of samples."""
        queries = self._queries
        weight, positions = queries.weight, outputs[:1].numel() // max(1, queries.weight.shape[0])
        groups = getattr(queries.module, "groups", 1)
        seen = positions * weight[:1].numel() * groups * weight.element_size()  # of a row, unfolded
        size, found = max(1, AT_ONCE // max(1, weight.nbytes, seen)), []
        for low in range(0, len(rows), size):
            gradients = _gradients(queries.module, weight, rows[low : low + size], outputs[low : low + size])
            found.append(gammas(queries.module, weight, queries.inputs, gradients, anchor=queries.anchor))
        return torch.cat(found, dim=1)


@dataclass
class KeptColumns:
    """The last queries of some layers, prepared once for all blocks of a segment.

    They hold at most `budget` bytes, with the copies of their inputs.
    """

    budget: int = BUDGET
    _kept: dict[tuple[str, int], tuple[Given, MemberColumns]] = field(default_factory=dict, init=False)

    def of(self, layer: str, queries: Queries, steps: Sequence[tuple[Sequence[Call], int]]) -> list[Tensor]:
        """Return the columns (Q, members) of steps, from the calls of each and its number of members.

        Parameters
        ----------
        layer : name under which the queries are kept; those of its units have anchors of their own
        """
        key = layer, id(queries.anchor)
        kept = self._kept.get(key)
        if kept is not None and kept[0].are(queries):
            return [kept[1].of(*step) for step in steps]
        self._kept.pop(key, None)
        found, batches = [], list(_batches(queries))
        for batch in batches:
            made = MemberColumns(batch)
            found.append([made.of(*step) for step in steps])
            if len(batches) == 1 and self._held() + made.nbytes + values_of(batch.inputs).nbytes <= self.budget:
                self._kept[key] = Given.of(queries), made
            del made  # before the next batch is prepared
        empty = values_of(queries.inputs)
        parts = zip(*found, strict=True) if found else ([empty.new_zeros(0, members)] for _, members in steps)
        return [torch.cat(list(part)) for part in parts]

    def _held(self) -> int:
        """Return the bytes of what is kept."""
        return sum(given.values.nbytes + made.nbytes for given, made in self._kept.values())


def _batches(queries: Queries) -> Iterator[Queries]:
    """Yield batches of queries of which at most BUDGET bytes are held; all where nothing is."""
    module, weight, inputs, anchor = queries.module, queries.weight, queries.inputs, queries.anchor
    size, bits = len(inputs), torch.finfo(product_type(inputs)).bits
    if factorable(module) and size:
        operation = checked_operation(module, weight, inputs, anchor, None, None)
        groups, outputs, width = operation.matrix_shape
        positions = n_positions(operation, inputs)
        paired = _paired(operation, positions, size, convolves=operation.convolves and bits == 32)
        held = groups * ((outputs + width) * positions if paired else outputs * width)
        size = max(1, BUDGET // max(1, held * bits // 8))
    for low in range(0, len(inputs), max(1, size)):
        some = inputs if size >= len(inputs) else inputs[low : low + size]
        yield Queries(module, weight, some, anchor, None)


def _paired(operation: Operation, positions: int, count: int, *, convolves: bool) -> bool:
    """Return whether products of positions need the fewest multiplications for so many queries."""
    _, outputs, width = operation.matrix_shape
    formed = 1 + (EACH * positions + FORMED) / count
    others = min(positions, formed) if convolves else formed
    return positions**2 * (outputs + width) <= outputs * width * others


def _gradients(module: nn.Module, weight: Tensor, rows: Tensor, outputs: Tensor) -> Tensor:
    """Return the gradient of each row (rows, *shape)."""
    kind, module = kind_of(module), with_dense_gradients(module)
    assert kind is not None, module
    blank = {name: weight.new_zeros(value.shape) for name, value in module.named_parameters(recurse=False)}

    def product(value: Tensor, row: Tensor, output: Tensor) -> Tensor:
        made: Tensor = functional_call(module, {**blank, "weight": value}, (kind.given(row[None]),))
        return (made * output[None]).sum()

    found: Tensor = vmap(grad(product), in_dims=(None, 0, 0))(blank["weight"], rows, outputs)
    return found
