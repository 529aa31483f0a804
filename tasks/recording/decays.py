"""The part of weight decay in the updates of a repeated training, with what momentum carries on of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from storage.updates.tables import Settings
from tasks.recording.recurrences import State, advance

FORGOTTEN = 1e-8  # share of a momentum that does not matter any more


class Steps(Protocol):
    """Gives the steps of a layer before a step, the latest segment first."""

    def __call__(self, stop: int) -> Iterator[list[tuple[Tensor, Settings | None]]]:
        """Yield the weights before each step of a segment, and its settings; the last segment ends at `stop`."""


@dataclass
class DecayPull:
    """The image of weight decay in a layer's momentum, in the weight's own shape. Blocks in order share one.

    Parameters
    ----------
    earlier : the steps before a step, read again where they matter
    """

    earlier: Steps
    step: int = -1
    velocity: Tensor | None = field(default=None, init=False)

    def updates(self, start: int, weights: Tensor, steps: list[Settings | None]) -> Tensor:
        """Return what decay adds to each update (n, *shape).

        Parameters
        ----------
        start : first step
        weights : (n, *shape) before each
        steps : settings of each; None where the optimiser left the weight alone
        """
        made = [one for one in steps if one is not None]
        if not any(one.weight_decay for one in made):  # as in all steps, or their shares are not known
            return torch.zeros_like(weights)
        if self.step != start:
            self.velocity = self._before(start) if any(one.momentum for one in made) else None
        found = [self._advance(before, one) for before, one in zip(weights, steps, strict=True)]
        self.step = start + len(steps)
        return torch.stack(found)

    def _before(self, start: int) -> Tensor | None:
        """Return the velocity before a step."""
        parts, left = [], 1.0
        for part in self.earlier(start):
            parts.append(part)
            for _, one in reversed(part):
                if one is not None and one.momentum:
                    left *= 0.0 if one.fresh else one.momentum
            if left <= FORGOTTEN:
                break
        self.velocity = None
        for part in reversed(parts):
            for before, one in part:
                self._advance(before, one)
        return self.velocity

    def _advance(self, before: Tensor, step: Settings | None) -> Tensor:
        """Return what decay adds to an update, and move the velocity past it."""
        if step is None:
            return torch.zeros_like(before)
        plain = replace(step, scale=1.0, maximize=False, weight_decay=0.0)
        before_it = torch.zeros_like(before) if self.velocity is None else self.velocity
        held = State(None, None if step.fresh else before_it)
        update = advance(held, plain, step.weight_decay * before)
        if held.momentum is not None:
            self.velocity = held.momentum
        return update
