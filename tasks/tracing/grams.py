"""A small Gram matrix of each update, from which the norm of its change to any query nearby follows.

`||D f||^2 = <D' D, F F'>`, with F the rows that a query shows to a layer. The rows of reference queries, each query
scaled to norm 1, have principal axes V. Where F ~ V V' F, the norm follows from the Gram matrix (D V)' (D V) alone.
Axes of a grouped convolution lie in one group each. An embedding's rows are unit vectors of tokens, which never mix:
each token is a group of its own, and its Gram matrix is one number. Axes are kept by falling variance over all groups,
as many as a number of stored values allows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tasks.modules import Embedding
from tasks.modules.rows import Inputs, values_of, with_values
from tasks.tracing.patches import Operation
from tasks.tracing.products import product_type
from tasks.tracing.strategies import n_positions

LEAST = 1e-9  # smallest variance of an axis over the largest; the rest is rounding
EXACT = 64 * 2**20  # bytes of covariances up to which they are decomposed whole
CHUNK = 16 * 2**20  # bytes of a temporary
FURTHER, PASSES = 16, 4  # axes beyond the wanted ones, and passes, of a subspace iteration


@dataclass(frozen=True)
class GramShape:
    """The largest sizes of a layer's axes and Gram matrices.

    Attributes
    ----------
    groups : that have axes
    rank : axes of a group
    width : values of an axis
    values : of an update's Gram matrices
    """

    groups: int
    rank: int
    width: int
    values: int


def gram_shape(operation: Operation, rank: int) -> GramShape:
    """Return the sizes of a layer's Gram matrices, with as many values as one matrix of `rank` axes has at most."""
    groups, _, width = _blocks(operation)
    most = rank * (rank + 1) // 2
    kept, held = min(groups, most), min(rank, width)
    return GramShape(kept, held, width, min(most, kept * held * (held + 1) // 2))


@dataclass(frozen=True)
class InputAxes:
    """Principal axes of the rows that reference queries show to a layer.

    Attributes
    ----------
    axes : (groups, rank, width) float64, orthonormal within a group; zeros where a group has fewer
    groups : (groups,) int64, which group of the layer
    values : number of values of a Gram matrix; the last ones are 0 where the axes need fewer
    """

    axes: Tensor
    groups: Tensor
    values: int

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The pairs of axes in one group (first <= second): group, first, second."""
        there = self.axes.square().sum(dim=2) > 0
        upper = (there[:, :, None] & there[:, None, :]).triu()
        group, first, second = upper.nonzero().T
        return group, first, second

    @torch.no_grad()
    def of_updates(self, operation: Operation, updates: Tensor, biases: Tensor | None, sizes: Tensor) -> Tensor:
        """Return the Gram matrices (T, values) float64 of updates (T, *shape), each divided by its size to norm 1.

        Parameters
        ----------
        biases : (T, out), where they count
        sizes : (T,) norms of the updates; the matrix of an update of norm 0 is 0
        """
        found = torch.zeros(len(updates), self.values, dtype=torch.float64, device=updates.device)
        axes = self.axes.to(updates.device, product_type(updates))
        scale = torch.where(sizes > 0, 1 / sizes, 0.0).to(axes)
        groups, outputs, width = _blocks(operation)
        of_step = max(groups * outputs * width, axes.shape[0] * axes.shape[1] * (outputs + axes.shape[1]))
        size = max(1, CHUNK // (8 * of_step))
        for start in range(0, len(updates), size):
            part = slice(start, start + size)
            matrices = operation.matrices(updates[part], None if biases is None else biases[part])
            moved = self._chosen(operation, matrices).to(axes.dtype) @ axes.mT  # (t, groups, outputs, rank)
            moved *= scale[part, None, None, None]
            found[part] = self._packed(moved.mT @ moved)
        return found

    @torch.no_grad()
    def of_queries(self, operation: Operation, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the products with Gram matrices (Q, values) of inputs (Q, ...), and their share (Q,) in the span.

        The products are of inputs as they are; `squares_of` gives their squared norms. Nothing of a query without rows
        lies outside.
        """
        products, inside = [], []
        axes, (_, first, second) = self.axes.to(inputs.device), self._pairs
        twice = torch.where(first == second, 1.0, 2.0).to(axes)
        for rows in _row_chunks(operation, inputs, self.groups):
            seen = axes @ rows
            packed = self._packed(seen @ seen.mT)
            packed[:, : len(twice)] *= twice
            products.append(packed)
            inside.append(seen.square().sum(dim=(1, 2, 3)))
        whole = squares_of(operation, inputs)
        share = torch.where(whole > 0, torch.cat(inside) / torch.where(whole > 0, whole, 1.0), 1.0)
        return torch.cat(products), share.clamp(0.0, 1.0)

    def _chosen(self, operation: Operation, matrices: Tensor) -> Tensor:
        """Return the matrices (t, groups, o, n) of the groups that have axes."""
        if isinstance(operation.kind, Embedding):
            return matrices[:, 0][:, :, self.groups.to(matrices.device)].mT[..., None]
        whole = len(self.groups) == matrices.shape[1]
        return matrices if whole else matrices[:, self.groups.to(matrices.device)]

    def _packed(self, square: Tensor) -> Tensor:
        """Return matrices (t, groups, rank, rank) as the values of their pairs, (t, values) float64."""
        group, first, second = self._pairs
        found = torch.zeros(len(square), self.values, dtype=torch.float64, device=square.device)
        found[:, : len(group)] = square[:, group, first, second].double()
        return found


@torch.no_grad()
def fit_axes(operation: Operation, references: Inputs, rank: int) -> InputAxes:
    """Return the principal axes of the references' rows, each reference scaled to norm 1.

    Parameters
    ----------
    references : (Q, ...) inputs of the layer, or ragged rows
    rank : axes of a layer without groups; the matrices of a layer with groups have as many values at most
    """
    shape = gram_shape(operation, rank)
    variances, axes = _principal(operation, references, shape.rank)
    most = rank * (rank + 1) // 2
    counts, used = torch.zeros(len(variances), dtype=torch.int64), 0
    flat = variances.flatten()
    for place in torch.argsort(flat, descending=True, stable=True).tolist():
        group = place // shape.rank
        cost = int(counts[group]) + 1
        if flat[place] <= LEAST * flat.max() or flat[place] <= 0 or used >= most:
            break
        if used + cost <= most:
            counts[group] += 1
            used += cost
    chosen = torch.argsort(counts > 0, descending=True, stable=True)[: shape.groups]
    kept = torch.arange(shape.rank) < counts[chosen, None]
    return InputAxes(torch.where(kept[..., None], axes[chosen], 0.0), chosen, shape.values)


def squares_of(operation: Operation, inputs: Inputs) -> Tensor:
    """Return ||F||^2 (Q,) float64 of all rows of each query."""
    if isinstance(operation.kind, Embedding):
        return (values_of(inputs).flatten(1) >= 0).sum(dim=1).double()
    rows = _row_chunks(operation, inputs, None)
    return torch.cat([part.square().sum(dim=(1, 2, 3)) for part in rows])


def norms_of(grams: Tensor, products: Tensor, sizes: Tensor) -> Tensor:
    """Return the approximate ||D_t f|| (T, Q) from Gram matrices (T, values), products (Q, values) and sizes (T,)."""
    return (grams.double() @ products.T).clamp(min=0.0).sqrt() * sizes.double()[:, None]


def _blocks(operation: Operation) -> tuple[int, int, int]:
    """Return groups, outputs and inputs of a group, with a group for each token of an embedding."""
    groups, outputs, width = operation.matrix_shape
    return (width, outputs, 1) if isinstance(operation.kind, Embedding) else (groups, outputs, width)


def _row_chunks(operation: Operation, inputs: Inputs, groups: Tensor | None) -> Iterator[Tensor]:
    """Yield the rows (q, groups, n, L) float64 of a few queries at a time, of some groups or all."""
    count, _, width = _blocks(operation)
    held = count if groups is None or not isinstance(operation.kind, Embedding) else len(groups)
    size = max(1, CHUNK // (8 * held * width * max(n_positions(operation, inputs), 1)))
    for start in range(0, len(inputs), size):
        part = inputs[start : start + size]
        if isinstance(operation.kind, Embedding):
            tokens = values_of(part).flatten(1)[:, None, None, :]
            every = torch.arange(count) if groups is None else groups
            yield (tokens == every.to(tokens)[:, None, None]).double()
            continue
        rows = operation.rows(with_values(part, values_of(part).detach().double()))
        yield rows if groups is None or len(groups) == count else rows[:, groups.to(rows.device)]


def _principal(operation: Operation, references: Inputs, rank: int) -> tuple[Tensor, Tensor]:
    """Return variances (g, rank) of falling order and axes (g, rank, n) of all groups, on the CPU."""
    groups, _, width = _blocks(operation)
    whole = squares_of(operation, references)
    scale = torch.where(whole > 0, 1 / torch.where(whole > 0, whole, 1.0), 0.0)
    if isinstance(operation.kind, Embedding):
        return _token_shares(values_of(references).flatten(1), scale, groups), torch.ones(groups, 1, 1).double()
    if 8 * groups * width * width <= EXACT:
        values, vectors = torch.linalg.eigh(_covariance(operation, references, scale, None))
    else:
        start = torch.randn(groups, width, min(width, rank + FURTHER), generator=torch.Generator().manual_seed(0))
        axes = torch.linalg.qr(start.to(whole)).Q
        for _ in range(PASSES):
            axes = torch.linalg.qr(_covariance(operation, references, scale, axes)).Q
        values, turn = torch.linalg.eigh(axes.mT @ _covariance(operation, references, scale, axes))
        vectors = axes @ turn
    return values.flip(1)[:, :rank].cpu(), vectors.flip(2)[:, :, :rank].mT.cpu().contiguous()


def _covariance(operation: Operation, references: Inputs, scale: Tensor, right: Tensor | None) -> Tensor:
    """Return the sum over queries of scaled F F' (g, n, n), or its product with `right` (g, n, k)."""
    total: Tensor | None = None
    done = 0
    for rows in _row_chunks(operation, references, None):
        flat = rows.permute(1, 2, 0, 3)  # (g, n, q, L)
        weighted = (flat * scale[done : done + len(rows), None]).flatten(2)
        part = weighted @ (flat.flatten(2).mT if right is None else flat.flatten(2).mT @ right)
        done, total = done + len(rows), part if total is None else total + part
    assert total is not None
    return total


def _token_shares(tokens: Tensor, scale: Tensor, vocabulary: int) -> Tensor:
    """Return how often each token occurs (vocabulary, 1), with each query scaled."""
    there = tokens >= 0
    found = torch.zeros(vocabulary, dtype=torch.float64)
    weights = torch.where(there, scale[:, None], 0.0)[there].cpu()
    return found.index_add_(0, tokens[there].long().cpu(), weights)[:, None]
