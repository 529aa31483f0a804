"""What the companions and the recording of a training cost: the time of its steps without them."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks.steps.common.trainer import load_training, pack_training

if TYPE_CHECKING:
    from tasks.training.loop import Trainer

REPEATS = 3
UNRECORDED = 10  # steps that are timed without recording


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


def unrecorded_seconds(trainer: Trainer, steps: int) -> float:
    """Return the CPU seconds of an unrecorded step, mean over at most ten first steps; the training's state is kept."""
    state, n = pack_training(trainer), min(steps, UNRECORDED)
    trainer.run(0, 1)
    before = time.process_time()
    trainer.run(0, n)
    found = (time.process_time() - before) / n
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
