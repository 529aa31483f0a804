"""Reverse-mode differentiation through the steps of a training (Hara et al. 2019; Ilyas & Engstrom 2025).

The adjoint of the state goes from the state after a step to the state before it, by one vector-Jacobian product of the
step as a function. States between checkpoints are made again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tasks.tracing.optimizer_rules import WEIGHT, Part, State

Adjoint = dict[Part, Tensor]  # (Q, *shape) by part of the state; a missing part is 0
Credit = Callable[[int, Tensor, Adjoint], None]  # step, derivatives by the weights (Q, B), adjoint before the step


class Course(Protocol):
    """A training as a sequence of steps."""

    def states(self, state: State, start: int, stop: int) -> Iterator[State]:
        """Yield the state after each of the steps `start:stop`, from the state before them."""
        ...

    def examples(self, step: int) -> int:
        """Return the number of weighted losses in a step."""
        ...

    def step(self, step: int, state: State, weights: Tensor) -> State:
        """Return the state after a step as a differentiable function of the state and of the weights (B,)."""
        ...


@dataclass(frozen=True)
class Passed:
    """A range of steps that was run forwards.

    Attributes
    ----------
    start, stop : first and past-the-end step
    size : number of states that going back holds at once
    firsts : the states before every `size`-th step
    last : the state after the last step
    """

    start: int
    stop: int
    size: int
    firsts: Sequence[State]
    last: State


def run_forward(course: Course, state: State, start: int, stop: int, size: int) -> Passed:
    """Run the steps `start:stop`, and keep every `size`-th state. Holds (stop - start) / size states."""
    firsts, last = [state], state
    for step, after in enumerate(course.states(state, start, stop), start + 1):
        last = after
        if step < stop and (step - start) % size == 0:
            firsts.append(after)
    return Passed(start, stop, size, firsts, last)


def go_back(course: Course, passed: Passed, adjoint: Adjoint, credit: Credit) -> Adjoint:
    """Return the adjoint before a range of steps from the adjoint after it. Holds `passed.size` more states.

    Parameters
    ----------
    credit : called for each step, the last one first
    """
    for first in range(len(passed.firsts) - 1, -1, -1):
        start = passed.start + first * passed.size
        stop = min(start + passed.size, passed.stop)
        states = [passed.firsts[first], *course.states(passed.firsts[first], start, stop - 1)]
        for step in range(stop - 1, start - 1, -1):
            adjoint, derivatives = step_back(course, step, states.pop(), adjoint)
            credit(step, derivatives, adjoint)
    return adjoint


def step_back(course: Course, step: int, state: State, adjoint: Adjoint) -> tuple[Adjoint, Tensor]:
    """Return the adjoint before a step, and the derivatives by the weights of its examples (Q, B)."""
    leaves = {part: tensor.detach().requires_grad_() for part, tensor in state.tensors.items()}
    any_leaf = next(iter(leaves.values()))
    weights = torch.ones(course.examples(step), dtype=any_leaf.dtype, device=any_leaf.device, requires_grad=True)
    with torch.enable_grad(), twice_differentiable():
        after = course.step(step, State(leaves, state.counts), weights).tensors
    moved = [part for part in adjoint if after[part].requires_grad]
    found = products_of_queries(
        f"step {step}", [after[part] for part in moved], [weights, *leaves.values()], [adjoint[part] for part in moved]
    )
    before = {part: slope for part, slope in zip(leaves, found[1:], strict=True) if slope is not None}
    n_queries = len(next(iter(adjoint.values())))
    return before, weights.new_zeros(n_queries, len(weights)) if found[0] is None else found[0]


def twice_differentiable() -> AbstractContextManager[None]:
    """Let attention run in the form that torch can differentiate twice."""
    found: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return found


def products_of_queries(
    what: str, outputs: Sequence[Tensor], inputs: Sequence[Tensor], rows: Sequence[Tensor], *, retain: bool = False
) -> list[Tensor | None]:
    """Return the vector-Jacobian product of each query by each input, (Q, *shape); None without a path.

    The queries go together where torch can, else one after the other.

    Parameters
    ----------
    what : what is differentiated, for errors
    rows : (Q, *shape) by output
    retain : whether the graph is differentiated again

    Raises
    ------
    RuntimeError : a part of the graph has no derivative
    """
    try:
        return list(
            torch.autograd.grad(outputs, inputs, rows, allow_unused=True, is_grads_batched=True, retain_graph=True)
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:  # some derivatives cannot be vectorised, such as group norm's second
        pass
    n_queries, found = len(rows[0]), []
    try:
        for query in range(n_queries):
            again = retain or query < n_queries - 1
            row = [part[query] for part in rows]
            found.append(torch.autograd.grad(outputs, inputs, row, allow_unused=True, retain_graph=again))
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(
            f"{what}: expected operations with derivatives of the order needed, found: {reason}"
        ) from error
    return [None if slopes[0] is None else torch.stack(slopes) for slopes in zip(*found, strict=True)]


def rows_of_jacobian(measures: Callable[[], Tensor], leaves: dict[Part, Tensor]) -> Adjoint:
    """Return the derivatives of (Q,) measures by each leaf, (Q, *shape); leaves without influence are left out.

    Parameters
    ----------
    measures : computes the measures from the leaves
    """
    with torch.enable_grad(), twice_differentiable():
        values = measures()
    eye = torch.eye(len(values), dtype=values.dtype, device=values.device)
    found = products_of_queries("measures", [values], list(leaves.values()), [eye])
    return {part: slope.detach() for part, slope in zip(leaves, found, strict=True) if slope is not None}


def norms(adjoint: Adjoint, n_queries: int) -> Tensor:
    """Return the norm of each query's adjoint of the weights, (Q,)."""
    squares = [slope.reshape(n_queries, -1).square().sum(1) for (part, _), slope in adjoint.items() if part == WEIGHT]
    return torch.stack(squares).sum(0).sqrt() if squares else torch.zeros(n_queries)
