"""How many bytes the derivatives of a training's steps and of single examples take, from one run of each."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from tasks.tracing.optimizer_rules import WEIGHT, State
from tasks.training.course import TrainerCourse


def step_bytes(course: TrainerCourse, step: int, state: State) -> int:
    """Return about how many bytes the product of one query's adjoint with a step holds.

    A product keeps about as much as the step's graph does, and the adjoint before and after the step.
    """
    leaves = {part: tensor.detach().requires_grad_() for part, tensor in state.tensors.items()}
    weights = next(iter(leaves.values())).new_ones(course.examples(step)).requires_grad_()
    with _kept() as kept:
        after = course.step(step, State(leaves, state.counts), weights)
    return sum(kept.values()) + 3 * nbytes(after.tensors.values())


def gradient_bytes(course: TrainerCourse, state: State, one: Tensor) -> int:
    """Return about how many bytes the gradient of one example's loss takes with its graph.

    Parameters
    ----------
    one : (1, ...) inputs
    """
    leaves = {part: tensor.detach().requires_grad_(part[0] == WEIGHT) for part, tensor in state.tensors.items()}
    with torch.enable_grad(), _kept() as kept:
        course.logits(State(leaves, state.counts), one)
    for tensor in leaves.values():  # all examples share them
        kept.pop(tensor.data_ptr(), None)
    return sum(kept.values()) + nbytes(state.part(WEIGHT).values())


@contextmanager
def _kept() -> Iterator[dict[int, int]]:
    """Collect the bytes of the tensors that a graph keeps, by their place in memory."""
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = max(nbytes([tensor]), kept.get(tensor.data_ptr(), 0))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        yield kept


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
