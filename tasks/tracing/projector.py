"""Projections of weight updates on the preactivations of a batch of queries (Pfahler & Morik 2022, Eqs. 6 and 7).

With z = W F, `gamma = <z, D F> = <D, z F'>`. All gammas of a layer are therefore one matrix product with the gradients
G = z F'. `norm^2 = <D' D, F F'>` is another product, with the Gram matrices of the patches. The cost of both does not
grow with the output positions. For few positions D F itself is cheaper, by matrices or by the layer's convolution.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tasks.modules.rows import Inputs, Rows, values_of, with_values
from tasks.tracing.checks import check_finite, check_shape, check_tensors
from tasks.tracing.contributed import Contributions, described
from tasks.tracing.products import (
    by_convolution,
    by_matrices,
    for_one_product,
    inner,
    of_moved,
    product_type,
    step_norms,
    surely_squared,
)
from tasks.tracing.strategies import checked_operation, choose_strategy, n_positions

CHUNK = 16 * 2**20  # bytes of a temporary per chunk of steps; larger ones need new memory pages and are slower
CACHED = 2**21  # bytes of an update's rows that stay in the processor's cache
# Largest errors of float32 products in units of eps |D| |G| and eps |D| |F|; measured: 3.5 and 1.1 on cancelling sums.
INNER_ERROR = 4 * torch.finfo(torch.float32).eps
MOVED_ERROR = 1.5 * torch.finfo(torch.float32).eps
TOLERANCE = 2e-5  # largest error in units of |z| |D f|, guaranteed for float32
CANCELLED = {torch.float32: 1e-9, torch.float64: 1e-6}  # share of |D|^2 |F|^2 below which a Gram norm is recomputed


class Projector:
    """A batch of queries at one layer, prepared for any number of blocks of updates.

    Holds per query, in the inputs' dtype, the patches and z; or a gradient of the weight's size and, for norms, a
    float64 Gram matrix of the patches. `strategies.queries_within` gives the number of queries that fit into memory.

    Parameters
    ----------
    module : a covered module; gives only the operation
    weight : final weights, in the module's layout
    inputs : (Q, ...) inputs of the layer, or ragged rows of a linear layer, Q at least 1
    anchor : None, or a tensor of the weight's shape that gives z as preactivation
    bias : (out,), part of z; None leaves biases out
    unit : the one output feature or channel to project on; None for all
    norms : whether norms are needed
    n_steps : approximate number of updates; decides which products are prepared
    """

    def __init__(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
        unit: int | None = None,
        norms: bool = True,
        n_steps: int = 256,
    ) -> None:
        if isinstance(inputs, Rows):
            inputs = inputs.trimmed()
        self.operation = checked_operation(module, weight, inputs, anchor, bias, unit)
        self._bias = bias is not None
        with torch.no_grad():
            matrices = self.operation.matrices(_double((weight if anchor is None else anchor)[None]), _row(bias))
        self._matrix = matrices[0]
        self._inputs = with_values(inputs, values_of(inputs).detach())
        self._out = torch.promote_types(inputs.dtype, torch.float32)
        self._type = product_type(inputs)
        self._norms = norms
        self.strategy = choose_strategy(self.operation, inputs, norms, n_steps)
        with torch.no_grad():
            self._prepare()

    @property
    def preactivation_norm(self) -> Tensor:
        """Return ||z|| (Q,)."""
        return self._z_norm.to(self._out)

    @property
    def nbytes(self) -> int:
        """Return the bytes that the projector holds, besides the inputs."""
        return sum(tensor.nbytes for tensor in (self._matrix, self._first, self._second))

    @torch.no_grad()
    def gammas(self, updates: Tensor, bias_updates: Tensor | None = None) -> Tensor:
        """Return gamma (Q, T) alone; see `contributions` for the parameters.

        The error of float32 is within 5e-7 ||D_t|| ||G||; G is the gradient of ||z||^2 / 2 with respect to the anchor.
        """
        self._check_updates(updates, bias_updates)
        return self._project(updates, bias_updates, norms=False)[0].T.to(self._out)

    @torch.no_grad()
    def contributions(self, updates: Tensor, bias_updates: Tensor | None = None) -> Contributions:
        """Project updates on the queries.

        Parameters
        ----------
        updates : (T, *weight.shape), of the inputs' dtype and device
        bias_updates : (T, out), given if and only if the projector has a bias

        Raises
        ------
        ValueError : wrong shape, dtype or device, NaN; or the projector does not compute norms
        """
        if not self._norms:
            raise ValueError("norms: expected a projector with norms=True, found False; call gammas instead")
        self._check_updates(updates, bias_updates)
        return described(*self._project(updates, bias_updates, norms=True), self._z_norm, self._out)

    @property
    def takes_ends(self) -> bool:
        """Return whether `between` can be used: products in float32 with a view of the weight, in one group."""
        plain = self.operation.groups == 1 and not self.operation.copies
        return plain and self.strategy == "matrices" and self._type == torch.float32 and self._norms

    @torch.no_grad()
    def between(self, before: Tensor, after: Tensor) -> Contributions:
        """Project one update, the difference of the weights after and before it; as `contributions` of it does.

        The difference never lies in memory whole: its rows are used while they are in the processor's cache.

        Parameters
        ----------
        before, after : (*weight.shape), float32, on the inputs' device
        """
        first, last = (self.operation.matrices(weights[None], None)[0, 0] for weights in (before, after))
        rows = max(1, CACHED // (first.element_size() * first.shape[1]))
        piece, sizes = first.new_empty(min(rows, len(first)), first.shape[1]), first.new_empty(-(-len(first) // rows))
        moved = first.new_empty(len(first), self._first.shape[2])
        for size, start in zip(sizes, range(0, len(first), rows), strict=True):
            part = slice(start, start + rows)
            update = torch.sub(last[part], first[part], out=piece[: len(first[part])])
            torch.linalg.vector_norm(update, out=size)
            torch.mm(update, self._first[0], out=moved[part])
        size = sizes.double().square().sum().sqrt()[None]
        if not surely_squared(size):
            size = step_norms((after - before)[None])
            check_finite("updates", (after - before)[None])
        found = of_moved(moved.view(1, 1, len(first), *self._second.shape[2:]), self._second)
        if self._doubtful(size[:, None], found[1]).any():
            self._repair((after - before)[None], None, size, found)
        return described(*found, self._z_norm, self._out)

    def _check_updates(self, updates: Tensor, bias_updates: Tensor | None) -> None:
        """Check the updates but not their values."""
        check_tensors(inputs=self._inputs, updates=updates, bias_updates=bias_updates)
        check_shape("updates", updates, (-1, *self.operation.shape))
        if (bias_updates is not None) != self._bias:
            raise ValueError("bias, bias_updates: expected both or neither, found one")
        if bias_updates is not None:
            check_shape("bias_updates", bias_updates, (len(updates), self.operation.n_outputs))

    def _prepare(self) -> None:
        """Compute z and the factors of the chosen method, a few queries at a time."""
        kept: list[tuple[Tensor, ...]] = []
        squares, spans = [], []
        for part in self._parts(len(self._inputs)):
            rows = self.operation.rows(_wide(self._inputs[part]))
            z = self._matrix @ rows
            squares.append(z.square().sum(dim=(1, 2, 3)))
            spans.append(rows.square().sum(dim=(1, 2, 3)))
            if self.strategy == "matrices":
                kept.append((rows.to(self._type), z.to(self._type)))
            elif self.strategy == "convolution":
                kept.append(
                    (self.operation.padded(values_of(self._inputs[part])).to(self._type), z.flatten(1).to(self._type))
                )
            else:
                gradient = (z @ rows.mT).flatten(1)
                gram = (rows @ rows.mT).flatten(1) if self.strategy == "gram" else rows.new_empty(len(rows), 0)
                kept.append((gradient.to(self._type), gram))
        self._z_norm, self._span = torch.cat(squares).sqrt(), torch.cat(spans).sqrt()
        self._first, self._second = (torch.cat(parts) for parts in zip(*kept, strict=True))
        self._size = self._first.flatten(1).double().norm(dim=1) if self.strategy == "gram" else self._span
        if self.strategy == "matrices":
            self._first, self._second = for_one_product(self._first, self._second)

    def _parts(self, count: int) -> Iterator[slice]:
        """Yield groups of queries with float64 patches and preactivations of about a chunk."""
        groups, outputs, width = self.operation.matrix_shape
        positions = n_positions(self.operation, self._inputs)
        step = max(1, CHUNK // (8 * groups * (outputs + width) * max(positions, 1)))
        return (slice(start, min(start + step, count)) for start in range(0, count, step))

    def _project(self, updates: Tensor, biases: Tensor | None, *, norms: bool) -> tuple[Tensor, Tensor]:
        """Return gamma and norm (T, Q) in float64; norm is zeros unless `norms`."""
        shape = (len(updates), len(self._inputs))
        gamma, norm = (torch.zeros(shape, dtype=torch.float64, device=updates.device) for _ in range(2))
        step = max(1, CHUNK // self._step_bytes(norms))
        for start in range(0, len(updates), step):
            part = slice(start, start + step)
            some, changes = updates[part].detach(), None if biases is None else biases[part].detach()
            sizes = step_norms(some)
            if changes is not None:
                sizes = torch.hypot(sizes, step_norms(changes))
            if not torch.isfinite(sizes).all():
                check_finite("updates", updates)
                check_finite("bias_updates", updates if biases is None else biases)
            found = self._chunk(some, changes, norms)
            if norms:
                self._repair(some, changes, sizes, found)
            gamma[part], norm[part] = found
        return gamma, norm

    def _step_bytes(self, norms: bool) -> int:
        """Return the bytes of the temporaries per step."""
        groups, outputs, width = self.operation.matrix_shape
        size = torch.finfo(self._type).bits // 8
        weights, results = size * groups * outputs * width, 16 * len(self._inputs)
        if self.strategy == "convolution":
            return results
        if self.strategy == "matrices":
            return max(weights, size * self._second.numel())
        if self.strategy == "gram" and norms:
            return max(2 * weights, 8 * groups * width * width)
        return max(results, weights if self.operation.copies else 0)

    def _chunk(self, updates: Tensor, biases: Tensor | None, norms: bool) -> tuple[Tensor, Tensor]:
        """Return gamma and norm (t, Q) of a few steps."""
        if self.strategy == "convolution":
            wide = updates.to(self._type), None if biases is None else biases.to(self._type)
            return by_convolution(self.operation, *wide, self._first, self._second)
        matrices = self.operation.matrices(updates, biases)
        if self.strategy == "matrices":
            return by_matrices(matrices.to(self._type), self._first, self._second)
        gamma = inner(matrices.flatten(1), self._first)
        if self.strategy == "gradient" or not norms:
            return gamma, torch.zeros_like(gamma)
        double = matrices.double()
        return gamma, inner((double.mT @ double).flatten(1), self._second).clamp(min=0).sqrt()

    def _repair(self, updates: Tensor, biases: Tensor | None, sizes: Tensor, found: tuple[Tensor, Tensor]) -> None:
        """Recompute in float64, from D F, where |D f| is so small relative to |D| |F| that digits are lost."""
        doubtful = self._doubtful(sizes[:, None], found[1])
        steps, queries = (doubtful.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        if not len(steps):
            return
        matrices = self.operation.matrices(updates[steps], None if biases is None else biases[steps]).double()
        for part in self._parts(len(queries)):
            chosen = queries[part]
            rows = self.operation.rows(_wide(self._inputs[chosen]))
            exact = by_matrices(matrices, *for_one_product(rows, self._matrix @ rows))
            where = steps[:, None], chosen[None]
            for target, values in zip(found, exact, strict=True):
                target[where] = torch.where(doubtful[where], values, target[where])

    def _doubtful(self, sizes: Tensor, norm: Tensor) -> Tensor:
        """Return a mask (t, Q) of norms and gammas that rounding or the range of float32 may have changed."""
        largest = sizes * self._span  # largest possible ||D f||
        found = torch.zeros_like(norm, dtype=torch.bool)
        if self.strategy == "gram":
            found |= norm.square() < CANCELLED[self._type] * largest.square()
        if self._type == torch.float64:
            return found
        if self.strategy == "gram":
            scale = self._z_norm * norm
            found |= sizes * INNER_ERROR * self._size > TOLERANCE * scale
        else:
            found |= MOVED_ERROR * largest > TOLERANCE * norm
        for value in (norm, self._z_norm * norm):
            found |= ~surely_squared(value)
        return found & (largest > 0)


def _wide(inputs: Inputs) -> Inputs:
    """Return inputs in float64."""
    return with_values(inputs, values_of(inputs).double())


def _double(tensor: Tensor) -> Tensor:
    """Return a detached float64 copy or view."""
    return tensor.detach().double()


def _row(bias: Tensor | None) -> Tensor | None:
    """Return a bias as a stack of one row, float64."""
    return None if bias is None else _double(bias)[None]
