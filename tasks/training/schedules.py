"""Learning-rate schedules by name: the factor on the learning rate is a function of the step alone."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Schedule = Callable[[int], float]  # step, counted from the start -> factor on the learning rate


@dataclass(frozen=True)
class Span:
    """The length of a training: steps per epoch, and epochs."""

    per_epoch: int
    epochs: int


def keep_constant(step: int, span: Span) -> float:
    """Return the factor 1 for every step."""
    return 1.0


def decay_by_step(step: int, span: Span, *, every: int, factor: float = 0.1) -> float:
    """Return `factor` to the power of the number of complete groups of `every` epochs."""
    return float(factor ** (step // span.per_epoch // every))


def decay_at_milestones(step: int, span: Span, *, at: Sequence[int], factor: float = 0.1) -> float:
    """Return `factor` to the power of the number of milestones in `at`, rising epochs, that are over."""
    return float(factor ** bisect_right(at, step // span.per_epoch))


def decay_by_cosine(step: int, span: Span, *, warmup: float = 0.0, final: float = 0.0) -> float:
    """Return the factor of a linear rise over `warmup` epochs, then of half a cosine from 1 to `final`.

    The cosine ends with the last step. The first step of the rise has factor 1 / (number of its steps), since a factor
    of 0 would waste it.
    """
    rise, steps = warmup * span.per_epoch, span.per_epoch * span.epochs
    if step + 1 < rise:
        return (step + 1) / rise
    done = max(0.0, (step - rise) / (steps - rise))
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2


SCHEDULES: dict[str, Callable[..., float]] = {
    "constant": keep_constant,
    "step": decay_by_step,
    "milestones": decay_at_milestones,
    "cosine": decay_by_cosine,
}
