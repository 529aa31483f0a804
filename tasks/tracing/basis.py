"""A basis of query directions, on which few coefficients of an update give its contributions to any query nearby.

`gamma = <D, G>` with G the gradient of <z, layer(f; W)> by W (the direction of a query). The directions of reference
queries, each scaled to norm 1, have principal axes B_1 .. B_k. Then `gamma ~ sum_j <D, B_j> <B_j, G>`. An axis is a
weighted sum of references, so it is kept as its weights: products with references are gammas and need no G in memory.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from tasks.modules.rows import Inputs, Rows, padded
from tasks.tracing.checks import Doubles
from tasks.tracing.patches import Operation
from tasks.tracing.projections import contributions, gammas
from tasks.tracing.projector import Projector
from tasks.tracing.strategies import checked_operation, choose_strategy, queries_within

LEAST = 1e-5  # smallest eigenvalue of an axis over the largest; rounding in float32 would grow beyond it
PIECE = 64 * 2**20  # bytes of directions in memory


@dataclass(frozen=True)
class Directions:
    """The directions of some queries at a layer, of which only products are computed.

    Parameters
    ----------
    module : gives only the operation
    weight : the layer's final weight; with `bias`, both define z
    inputs : (n, ...) of the layer, or ragged rows
    anchor, bias : as in `tasks.tracing.contributions`
    """

    module: nn.Module
    weight: Tensor
    inputs: Inputs
    anchor: Tensor | None = None
    bias: Tensor | None = None

    def gammas(self, updates: Tensor, biases: Tensor | None = None) -> Doubles:
        """Return the products (T, n) of updates with the directions."""
        changes, options = None if self.bias is None else biases, {"anchor": self.anchor, "bias": self.bias}
        if self._projector is not None:
            found = self._projector.gammas(updates, changes)
        else:
            found = gammas(self.module, self.weight, self.inputs, updates, **options, bias_updates=changes)
        made: Doubles = found.T.double().cpu().numpy()
        return made

    def norms(self, updates: Tensor, biases: Tensor | None = None) -> Doubles:
        """Return the norms (T, n) of what updates change in the layer's outputs."""
        changes = None if self.bias is None else biases
        given = self.module, self.weight, self.inputs, updates
        made = contributions(*given, anchor=self.anchor, bias=self.bias, bias_updates=changes).norm
        found: Doubles = made.T.double().cpu().numpy()
        return found

    @cached_property
    def operation(self) -> Operation:
        """The operation of the checked tensors."""
        return checked_operation(self.module, self.weight, self.inputs, self.anchor, self.bias, None)

    @cached_property
    def _projector(self) -> Projector | None:
        """All queries prepared for any number of updates, where they fit into memory together."""
        operation = self.operation
        strategy = choose_strategy(operation, self.inputs, norms=False, n_steps=1)
        if queries_within(operation, self.inputs, strategy) < len(self.inputs):
            return None
        return Projector(self.module, self.weight, self.inputs, anchor=self.anchor, bias=self.bias, norms=False)

    def gradient(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Return the direction of a query: the weight's part (1, *shape) and the bias's (1, out), if that counts."""
        picked = self.inputs[index : index + 1]
        one = padded(picked.trimmed() if isinstance(picked, Rows) else picked).detach().clone()  # no row is padding
        given = [self.weight if self.anchor is None else self.anchor, *([] if self.bias is None else [self.bias])]
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [value.detach().clone().requires_grad_() for value in given]
            out = self._output(one.clone(), leaves[0], leaves[1] if self.bias is not None else None)
            found = torch.autograd.grad((out * out.detach()).sum(), leaves)
        return found[0][None], found[1][None] if self.bias is not None else None

    def _output(self, one: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the preactivation of an input (1, ...), differentiable in weight and bias; padding gives 0."""
        operation = self.operation
        if operation.convolves:
            return operation.convolve(operation.padded(one), weight, bias)
        return operation.matrices(weight[None], None if bias is None else bias[None])[0] @ operation.rows(one)

    def products(self, other: "Directions") -> Doubles:
        """Return the inner products (n, m) of these directions with those of `other`."""
        size = max(1, PIECE // (4 * self.weight.numel()))
        rows = []
        for first in range(0, len(other.inputs), size):
            made = [other.gradient(index) for index in range(first, min(first + size, len(other.inputs)))]
            weights = torch.cat([weight for weight, _ in made])
            biases = [bias for _, bias in made if bias is not None]
            rows.append(self.gammas(weights, torch.cat(biases) if biases else None))
        return np.concatenate(rows).T

    def squares(self) -> Doubles:
        """Return the squared norms (n,) of the directions."""
        found = np.zeros(len(self.inputs))
        for index in range(len(self.inputs)):
            weight, bias = self.gradient(index)
            found[index] = float(weight.double().square().sum())
            found[index] += 0.0 if bias is None else float(bias.double().square().sum())
        return found


@dataclass(frozen=True)
class Basis:
    """Principal axes of reference directions.

    Parameters
    ----------
    weights : (references, k) float64; axis j is the sum of the references' directions with these weights
    """

    weights: Doubles

    def coefficients(self, products: Doubles) -> Doubles:
        """Return the coefficients (..., k) of tensors from their products (..., references) with the references."""
        found: Doubles = products @ self.weights
        return found

    def share(self, coefficients: Doubles, squares: Doubles) -> Doubles:
        """Return the share (n,) of directions that lies in the span, from their coefficients and squared norms.

        Nothing of a direction of norm 0 lies outside.
        """
        inside = np.square(coefficients).sum(axis=-1)
        found: Doubles = np.divide(inside, squares, out=np.ones_like(squares), where=squares > 0).clip(0.0, 1.0)
        return found


def fit_basis(products: Doubles, count: int) -> Basis:
    """Return the first principal axes of directions scaled to norm 1.

    Parameters
    ----------
    products : (n, n) inner products of the references' directions
    count : largest number of axes; fewer where the references span fewer, and the others have weight 0
    """
    norms = np.sqrt(np.clip(np.diag(products), 0.0, None))
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    values, vectors = np.linalg.eigh(scale[:, None] * (products + products.T) / 2 * scale)
    order = np.argsort(-values, kind="stable")[:count]
    values, vectors = values[order], vectors[:, order]
    used = values > LEAST * max(float(values[0]), 0.0) if len(values) else values > 0
    inverse = np.divide(1.0, np.sqrt(np.where(used, values, 1.0)), out=np.zeros_like(values), where=used)
    weights = np.zeros((len(products), count))
    weights[:, : len(values)] = scale[:, None] * vectors * inverse
    return Basis(weights)


@dataclass(frozen=True)
class Calibration:
    """The errors of approximate numbers of held-out queries, from steps that were computed exactly.

    The numbers are gammas, in units of ||G|| ||D|| with the direction G, or norms of D f, in units of ||F|| ||D|| with
    the rows F that a query shows to the layer.

    Parameters
    ----------
    share : (H,) of each query in the span
    error : (H,) root mean square over the steps of approximate less exact number, in those units
    exact : (H,) root mean square of the exact number, in the same units
    """

    share: Doubles
    error: Doubles
    exact: Doubles

    @property
    def lowest(self) -> float:
        """The share in the span below which a query is unlike all held-out ones."""
        return float(self.share.min()) if len(self.share) else 1.0

    def outside(self, share: float) -> bool:
        """Return whether a query is out of the span: less of it is inside than of any held-out query."""
        return share < min(self.lowest, 1.0 - 1e-6)

    def scale(self, share: float) -> float:
        """Return the error of a query in the units above, which 90 of 100 held-out queries would keep.

        The part of a query outside the span is neglected, and its length bounds that error. What is kept is rounded, so
        the error is not below that of the held-out query which has the least.
        """
        beyond = np.sqrt(np.clip(1.0 - self.share, 1e-12, None))
        factor = float(np.quantile(self.error / beyond, 0.9)) if len(self.error) else 1.0
        least = float(self.error.min()) if len(self.error) else 0.0
        return max(least, min(factor, 1.0) * float(np.sqrt(max(1.0 - share, 0.0))))

    @property
    def relative(self) -> float:
        """The median over held-out queries of their error over their exact number."""
        ratio = np.divide(self.error, self.exact, out=np.zeros_like(self.error), where=self.exact > 0)
        return float(np.median(ratio)) if len(ratio) else float("nan")
