"""Counterfactual influence: the derivative of an answer by each example's weight, through the whole training."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.tracing.adjoint import Adjoint, go_back, norms, rows_of_jacobian, run_forward, twice_differentiable
from tasks.tracing.checks import check_integers
from tasks.tracing.optimizer_rules import WEIGHT, State, Tensors, advance, check_settings

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]


class Row(Protocol):
    """A step: the ids of its examples, in the order of their losses, and its learning rate."""

    @property
    def examples(self) -> NDArray[np.integer]: ...

    @property
    def lr(self) -> float: ...


@dataclass(frozen=True)
class TrainingDerivatives:
    """What the weights of the examples did to the measures of the trained network.

    Attributes
    ----------
    ids : (n,) int64 ascending, the examples of all steps
    derivatives : (Q, n) float64, of each measure by the weight of each example at weight 1; its uses add up. Without
        an example a measure changes by about minus its derivative.
    growth : (T,) float64, the largest norm of a query's adjoint of the parameters before each step, over its norm at
        the end; an adjoint that grows without bound makes the derivatives useless
    """

    ids: Ids
    derivatives: Doubles
    growth: Doubles


class CreditSums:
    """Derivatives summed over the uses of each example, and the growth of the adjoint.

    Parameters
    ----------
    examples : ids of each step's examples
    ids : (n,) int64 ascending, all of them
    sums : (Q, n) float64, to which the derivatives are added in place
    end : (Q,) norms of the adjoint after the last step
    """

    def __init__(self, examples: Callable[[int], Ids], ids: Ids, sums: Doubles, end: Doubles) -> None:
        self._examples, self._ids, self._end = examples, ids, end
        self.sums = sums
        self.growth: dict[int, float] = {}

    def __call__(self, step: int, derivatives: Tensor, adjoint: Adjoint) -> None:
        """Add the derivatives (Q, B) of a step; `adjoint` is that before it."""
        index = np.searchsorted(self._ids, self._examples(step))
        np.add.at(self.sums.T, index, derivatives.detach().double().cpu().numpy().T)
        before = norms(adjoint, len(self.sums)).double().cpu().numpy()
        ratio = np.divide(before, self._end, out=np.zeros_like(before), where=self._end > 0)
        self.growth[step] = float(ratio.max())


def training_derivatives(
    losses: Callable[[Tensors, Any], Tensor],  # Any: the caller's own row
    optimizer: Mapping[str, Any],  # Any: settings of torch.optim
    start: Mapping[str, Tensor],
    rows: Sequence[Row],
    measures: Callable[[Tensors], Tensor],
) -> TrainingDerivatives:
    """Differentiate a whole training: measures of the trained weights by the weight of each training example.

    Parameters
    ----------
    losses : (parameters, row) -> (B,), the losses of `row.examples` in order, differentiable in the parameters; random
        numbers inside, such as dropout's, must be a function of the row
    optimizer : `kind` (sgd, adam, adamw or sam) with torch's settings; `lr` comes from the rows
    start : parameters before the first row, floats of one dtype
    rows : the steps; a step minimises `sum_b w_b losses_b / B` at w = 1
    measures : parameters -> (Q,), differentiable

    Returns
    -------
    TrainingDerivatives, computed in the dtype of `start`

    Raises
    ------
    ValueError : unknown settings, steps without examples, losses or measures of a wrong shape or not finite; the
        message names the step
    RuntimeError : losses or measures without the derivatives that this needs; the message names the step

    Notes
    -----
    Holds about 2 sqrt(T) states of the training (parameters and what the optimiser keeps), and the adjoints of Q
    queries by one state.
    """
    course = _Rows(losses, check_settings(optimizer), rows, [_ids_of(row, t) for t, row in enumerate(rows)])
    first = _first_state(start)
    if not rows:
        raise ValueError("rows: expected at least one step, found none")
    passed = run_forward(course, first, 0, len(rows), math.isqrt(len(rows) - 1) + 1)
    adjoint, n_queries = _adjoint_of(measures, passed.last)
    ids = np.unique(np.concatenate(course.ids))
    end = norms(adjoint, n_queries).double().cpu().numpy()
    sums = CreditSums(course.ids.__getitem__, ids, np.zeros((n_queries, len(ids))), end)
    if adjoint:
        go_back(course, passed, adjoint, sums)
    growth = np.array([sums.growth.get(step, 0.0) for step in range(len(rows))])
    return TrainingDerivatives(ids, sums.sums, growth)


@dataclass(frozen=True)
class _Rows:
    """The steps of a function of losses."""

    losses: Callable[[Tensors, Any], Tensor]  # Any: the caller's own row
    settings: dict[str, Any]  # Any: settings of torch.optim
    rows: Sequence[Row]
    ids: Sequence[Ids]

    def states(self, state: State, start: int, stop: int) -> Iterator[State]:
        """Yield the state after each of the steps `start:stop`."""
        for step in range(start, stop):
            leaves = {part: tensor.detach().requires_grad_(part[0] == WEIGHT) for part, tensor in state.tensors.items()}
            one = next(iter(leaves.values()))
            with twice_differentiable():
                after = self.step(step, State(leaves, state.counts), one.new_ones(self.examples(step)))
            state = State({part: tensor.detach() for part, tensor in after.tensors.items()}, after.counts)
            yield state

    def examples(self, step: int) -> int:
        """Return the number of examples of a step."""
        return len(self.ids[step])

    def step(self, step: int, state: State, weights: Tensor) -> State:
        """Return the state after a step."""
        row, keep = self.rows[step], weights.requires_grad

        def gradient(parameters: Tensors) -> dict[str, Tensor | None]:
            with torch.enable_grad():
                total = (weights * self._checked(parameters, step)).sum() / len(weights)
                found = torch.autograd.grad(total, list(parameters.values()), create_graph=keep, allow_unused=True)
            return dict(zip(parameters, found, strict=True))

        rule = {**self.settings, "lr": float(row.lr)}
        return advance(state, gradient, dict.fromkeys(state.part(WEIGHT), rule))

    def _checked(self, parameters: Tensors, step: int) -> Tensor:
        """Return the losses of a step, one per example, finite."""
        found, n = self.losses(parameters, self.rows[step]), self.examples(step)
        if not isinstance(found, Tensor) or found.shape != (n,):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"losses: step {step}: expected a loss for each of {n} examples, found {shape}")
        if not found.requires_grad:
            raise ValueError(f"losses: step {step}: expected losses that depend on the parameters, found constants")
        if not torch.isfinite(found).all():
            raise ValueError(f"losses: step {step}: expected finite losses, found NaN or inf; lower the learning rate")
        return found


def _first_state(start: Mapping[str, Tensor]) -> State:
    """Return the state before the first step."""
    if not start:
        raise ValueError("start: expected parameters, found none")
    for name, tensor in start.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"start: {name}: expected a tensor of floats, found {kind}")
    if len(kinds := {str(tensor.dtype) for tensor in start.values()}) > 1:
        raise ValueError(f"start: expected parameters of one dtype, found {', '.join(sorted(kinds))}")
    return State({(WEIGHT, name): tensor.detach().clone() for name, tensor in start.items()})


def _ids_of(row: Row, step: int) -> Ids:
    """Return the ids of a step's examples."""
    ids = check_integers(f"rows: step {step}: examples", np.asarray(row.examples))
    if not len(ids):
        raise ValueError(f"rows: step {step}: expected at least one example, found none")
    if not math.isfinite(float(row.lr)):
        raise ValueError(f"rows: step {step}: lr: expected a finite number, found {row.lr}")
    return ids


def _adjoint_of(measures: Callable[[Tensors], Tensor], last: State) -> tuple[Adjoint, int]:
    """Return the derivatives of the measures by the trained weights, and their number."""
    leaves = {part: tensor.detach().requires_grad_() for part, tensor in last.tensors.items() if part[0] == WEIGHT}
    counted = []

    def values() -> Tensor:
        found = measures({name: tensor for (_, name), tensor in leaves.items()})
        if not isinstance(found, Tensor) or found.ndim != 1 or not len(found):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"measures: expected a value for each query, shape (Q,), found {shape}")
        if not found.requires_grad:
            raise ValueError("measures: expected values that depend on the parameters, found constants")
        if not torch.isfinite(found).all():
            raise ValueError("measures: expected finite values, found NaN or inf")
        counted.append(len(found))
        return found

    return rows_of_jacobian(values, leaves), counted[0]
