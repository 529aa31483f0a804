"""What a block of a recorder must hold: one whole update, and every change of the weights."""

import numpy as np
import torch
from torch import Tensor

from storage.updates.bits import Bytes
from tasks.recording.segment import SegmentRecorder

Optimizer = torch.optim.Optimizer


def check_one_update(step: int, calls: int, optimizer: Optimizer, before: Bytes, now: Bytes) -> None:
    """Raise RuntimeError where a block held a part of an update, or several.

    A block without a call of `optimizer.step()` is sound where it changed the weights by itself, or where it skipped
    its update: then no gradient waits for a later one, or the gradient is not finite, as with a scaler of losses.

    Parameters
    ----------
    calls : of `optimizer.step()` in the block
    before, now : (row bytes,) the recorded weights before and after it
    """
    if calls > 1:
        raise RuntimeError(
            f"step {step}: expected one call of optimizer.step() in the block, found {calls}; hold a block around each"
        )
    if calls == 0 and np.array_equal(before, now) and _gradient_waits(optimizer):
        raise RuntimeError(
            f"step {step}: expected a whole update, found gradients and no call of optimizer.step(); hold one block "
            "around all micro-batches of an update, with all their ids, or clear the gradients to skip an update"
        )


def check_unchanged(what: str, recorder: SegmentRecorder, last: Bytes | None) -> None:
    """Raise RuntimeError where a recorded weight changed in a bit between two blocks.

    Parameters
    ----------
    what : where it is noticed
    recorder : of the segment under way
    last : (row bytes,) the recorded weights after the step before, None before step 0
    """
    if last is None or np.array_equal(last.view(np.int64), (now := recorder.look()).view(np.int64)):
        return
    name = next(p.name for p in recorder.parameters if not np.array_equal(p.within(last), p.within(now)))
    layer = next(layer.name for layer in recorder.layers if name in layer.parameters)
    raise RuntimeError(
        f"{what}: layer {layer!r}: expected its weights as step {recorder.next_step - 1} left them, found others in "
        f"{name!r}; change weights inside a block, or put them back before the next one"
    )


@torch.no_grad()
def _gradient_waits(optimizer: Optimizer) -> bool:
    """Say whether an optimiser's parameters hold a gradient that an update could use: finite, and not zero."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    values = [_values(gradient) for gradient in found]
    return all(bool(v.isfinite().all()) for v in values) and any(bool(v.any()) for v in values)


def _values(gradient: Tensor) -> Tensor:
    """Return the values of a gradient, dense or sparse."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient
