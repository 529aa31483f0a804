"""Updates without the part of weight decay, from the recurrence of `tasks.tracing.decay` on the weights."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.documents import Document
from storage.updates.archives import Segment
from tasks.recording.sources import UpdateBlock, UpdateSource
from tasks.tracing import DecaySeries, decay_known, decay_series

REACH = 1e-12  # share of a velocity that counts as rounding after further steps

Change = tuple[UpdateBlock, Tensor, Tensor | None]


def undecayed(source: UpdateSource, layer: str, segment: Segment, optimizer: Document) -> Iterator[Change]:
    """Yield each recorded block of a segment with its updates of weight and bias, (n, ...), without decay.

    Parameters
    ----------
    optimizer : settings of the optimiser in a training's config

    Notes
    -----
    From the step of `decay_known` on, updates keep decay. Holds 48 bytes per weight besides the block.
    """
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
    """Return the earlier segments with a velocity that still matters in a segment."""
    if not momentum:
        return ()
    first = segment.start - math.ceil(math.log(REACH) / math.log(momentum))
    return tuple(one for one in segments if one.stop > first and one.stop <= segment.start)


def _flat(weights: Tensor) -> NDArray[np.float64]:
    """Return weights as a row of float64."""
    found: NDArray[np.float64] = weights.double().reshape(-1).numpy()
    return found


def _without(series: DecaySeries | None, updates: Tensor, rates: NDArray[np.float64], known: int) -> Tensor:
    """Return updates (n, ...) without decay in the first `known` of them, row by row to bound memory."""
    if series is None or known <= 0:
        return updates
    rows = updates.clone()
    for row, rate in zip(rows[:known], rates[:known], strict=True):
        pull = series.update(_flat(row)[None], np.array([rate]))
        row -= torch.from_numpy(pull[0]).to(row.dtype).view(row.shape)
    return rows
