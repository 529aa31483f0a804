"""Updates without the part of weight decay, from the recurrence of `tasks.tracing.decay` on the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

REACH = 1e-12  # share of a velocity that counts as rounding after further steps


def undecayed(source: UpdateSource, layer: str, segment: Segment, optimizer: Document) -> Iterator[Change]:
    """Yield each recorded block of a segment with its updates of weight and bias, (n, ...), without decay.

    Parameters
    ----------
    optimizer : settings of the optimiser in a training's config

    Notes
    -----
    From the step of `decay_known` on, updates keep decay. Holds 48 bytes per weight besides the block.
    """

    rates, known = source.ledger["lr"].to_numpy(np.float64), _known_steps(source, optimizer)
    decays: _Decays | None = None
    before: tuple[Segment, ...] = ()
    if segment.start < known:
        before = earlier(source.segments(), segment, float(str(optimizer.get("momentum", 0.0))))
    for span in (*before, segment):
        for block in source.blocks(span, [layer]):
            if decays is None:
                decays = _Decays.at(block, source, optimizer) if segment.start < known else _Decays()
            block_rates, n_known = rates[block.steps], known - int(block.steps[0])
            updates = _without(decays.weight, block.dense(), block_rates, n_known)
            biases = block.dense_bias()
            if biases is not None:
                biases = _without(decays.bias, biases, block_rates, n_known)
            if span is segment and block.recorded:
                yield block, updates, biases


@dataclass(frozen=True)
class _Decays:
    """The decay of a layer's weight and bias, step after step; None where nothing decays."""

    weight: DecaySeries | None = None
    bias: DecaySeries | None = None

    @classmethod
    def at(cls, block: UpdateBlock, source: UpdateSource, optimizer: Document) -> _Decays:
        """Begin before the first step of a block; a tensor that the whole training leaves alone does not decay."""
        import torch

        from tasks.tracing import decay_series

        layer, biases = block.layer, block.biases
        weight = bias = None
        if not torch.equal(source.initial(layer), source.final(layer)):
            weight = decay_series(optimizer, _flat(block.weights[0]))
        first, last = source.initial_bias(layer), source.final_bias(layer)
        if biases is not None and first is not None and last is not None and not torch.equal(first, last):
            bias = decay_series(optimizer, _flat(biases[0]))
        return cls(weight, bias)


def _known_steps(source: UpdateSource, optimizer: Document) -> int:
    """Return the steps whose decay is known; 0 where the optimiser does not decay."""
    from tasks.tracing import decay_known, decay_series

    return decay_known(optimizer, source.recorded) if decay_series(optimizer, np.zeros(1)) is not None else 0


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
    import torch

    if series is None or known <= 0:
        return updates
    rows = updates.clone()
    for row, rate in zip(rows[:known], rates[:known], strict=True):
        pull = series.update(_flat(row)[None], np.array([rate]))
        row -= torch.from_numpy(pull[0]).to(row.dtype).view(row.shape)
    return rows
