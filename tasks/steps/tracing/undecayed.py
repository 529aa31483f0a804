"""Updates without what weight decay did in them: the recurrence of `tasks.tracing.decay`, run on the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document
from storage.updates.archives import Segment

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.recording.sources import UpdateBlock, UpdateSource
    from tasks.tracing import DecaySeries

    Change = tuple[UpdateBlock, Tensor, Tensor | None]

REACH = 1e-12  # of a velocity: what is left of it after so many steps is rounding


def undecayed(source: UpdateSource, layer: str, segment: Segment, optimizer: Document) -> Iterator[Change]:
    """Yield each recorded block of a segment with its updates of weight and bias, (n, ...), less decay's part.

    Parameters
    ----------
    optimizer : as a training's config names it

    Notes
    -----
    From the step on that `decay_known` gives, updates are left whole. Holds 48 bytes a weight beside the block.
    """
    import torch

    from tasks.tracing import decay_known, decay_series

    recorded, rates = source.recorded, source.ledger["lr"].to_numpy(np.float64)
    known = decay_known(optimizer, recorded) if decay_series(optimizer, np.zeros(1)) is not None else 0
    before: tuple[Segment, ...] = ()
    if segment.start < known:
        before = earlier(source.segments(), segment, float(str(optimizer.get("momentum", 0.0))))
    ends = (source.initial(layer), source.final(layer)), (source.initial_bias(layer), source.final_bias(layer))
    moves = [first is not None and last is not None and not torch.equal(first, last) for first, last in ends]
    series: list[DecaySeries | None] = [None, None]
    for number, span in enumerate((*before, segment)):
        for index, block in enumerate(source.blocks(span, [layer])):
            if number == index == 0 and known > segment.start:
                starts = block.weights, block.biases
                series = [
                    decay_series(optimizer, _flat(rows[0])) if rows is not None and moved else None
                    for rows, moved in zip(starts, moves, strict=True)
                ]
            changes = [
                None if rows is None else _without(one, rows, rates[block.steps], known - int(block.steps[0]))
                for one, rows in zip(series, (block.dense(), block.dense_bias()), strict=True)
            ]
            if span is segment and block.recorded and changes[0] is not None:
                yield block, changes[0], changes[1]


def earlier(segments: Sequence[Segment], segment: Segment, momentum: float) -> tuple[Segment, ...]:
    """Return the segments before one whose velocity is still felt in it."""
    if not momentum:
        return ()
    first = segment.start - math.ceil(math.log(REACH) / math.log(momentum))
    return tuple(one for one in segments if one.stop > first and one.stop <= segment.start)


def _flat(weights: Tensor) -> NDArray[np.float64]:
    """Return weights as a row of doubles."""
    found: NDArray[np.float64] = weights.double().reshape(-1).numpy()
    return found


def _without(series: DecaySeries | None, updates: Tensor, rates: NDArray[np.float64], known: int) -> Tensor:
    """Return updates (n, ...) less decay's part in the first `known` of them; a row at a time, which bounds memory."""
    import torch

    if series is None or known <= 0:
        return updates
    rows = updates.clone()
    for row, rate in zip(rows[:known], rates[:known], strict=True):
        pull = series.update(_flat(row)[None], np.array([rate]))
        row -= torch.from_numpy(pull[0]).to(row.dtype).view(row.shape)
    return rows
