"""Checks of a recorder's block: it must hold one whole update and every change of the weights."""

import torch
from torch import Tensor

from storage.updates.parameters import shown_layer
from tasks.recording.fingerprints import Fingerprints
from tasks.recording.segment import SegmentRecorder

Optimizer = torch.optim.Optimizer


def check_one_update(recorder: SegmentRecorder, calls: int, optimizer: Optimizer, before: Fingerprints) -> None:
    """Raise RuntimeError where a block holds a part of an update, or several updates.

    A block without a call of `optimizer.step()` is valid in two cases. Either it changes the weights itself. Or it
    skips its update: then gradients are missing, zero or not finite, as with a loss scaler.

    Parameters
    ----------
    calls : number of calls of `optimizer.step()` in the block
    before : fingerprints of the recorded weights before it
    """
    step = recorder.next_step
    if calls > 1:
        raise RuntimeError(
            f"step {step}: expected one call of optimizer.step() in the block, found {calls}; use one block per call"
        )
    if calls == 0 and recorder.changed(before, strict=True) is None and _gradient_waits(optimizer):
        raise RuntimeError(
            f"step {step}: expected a whole update, found gradients and no call of optimizer.step(); put all "
            "micro-batches of an update into one block, with all their ids, or clear the gradients to skip an update"
        )


def check_unchanged(what: str, recorder: SegmentRecorder, last: Fingerprints | None) -> bool:
    """Raise RuntimeError where a recorded weight changed between two blocks, see `SegmentRecorder.changed`.

    Parameters
    ----------
    what : name of the place of the check in the message
    recorder : recorder of the open segment
    last : fingerprints of the recorded weights after the previous step, None before step 0

    Returns
    -------
    whether torch saw changes, after which all was as before
    """
    if last is None or (name := recorder.changed(last)) is None:
        return last is not None and recorder.touched(last)
    raise RuntimeError(
        f"{what}: layer {shown_layer(recorder.layer_of(name))!r}: expected its weights after step "
        f"{recorder.next_step - 1}, found others in {name!r}; change weights inside a block, or restore them "
        "before the next block"
    )


@torch.no_grad()
def _gradient_waits(optimizer: Optimizer) -> bool:
    """Return whether an optimiser's parameters hold a gradient for an update: finite and not zero."""
    found = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    values = [_values(gradient) for gradient in found]
    return all(bool(v.isfinite().all()) for v in values) and any(bool(v.any()) for v in values)


def _values(gradient: Tensor) -> Tensor:
    """Return the values of a gradient, dense or sparse."""
    return gradient.coalesce().values() if gradient.is_sparse else gradient
