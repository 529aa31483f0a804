"""What the companions of a training cost: the time of a step with each of them, next to that of a plain step."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.steps.common.trainer import load_training, pack_training

if TYPE_CHECKING:
    from tasks.training.loop import Trainer

REPEATS = 3


def step_seconds(trainer: Trainer) -> dict[str, float]:
    """Return the seconds of the first step without companions ("plain"), and with each alone, by its class's name.

    Each is the least of three steps after one more. The state of the training is that of before afterwards.
    """
    state = pack_training(trainer)
    found = {"plain": _least(replace(trainer, companions=()))}
    for companion in trainer.companions:
        found[type(companion).__name__.lower()] = _least(replace(trainer, companions=(companion,)))
    load_training(trainer, state)
    return found


def _least(trainer: Trainer) -> float:
    """Return the least seconds of a first step."""
    seconds = []
    for _ in range(1 + REPEATS):
        before = time.perf_counter()
        trainer.run(0, 1)
        seconds.append(time.perf_counter() - before)
    return min(seconds[1:])
