"""Updates by traced layer: maps put together from the pieces of an archive, and the calls of a layer.

An archive keeps each weight once. A traced layer may be a part of it, two of them side by side, or one call of a layer.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from storage.updates.archives import Segment
from tasks.modules.composed import LinearMap
from tasks.modules.naming import find_map, is_traced, pieces_of, split_call, whole_layers
from tasks.modules.rows import Inputs
from tasks.recording.columns import Credit
from tasks.recording.sources import UpdateBlock, UpdateSource
from tasks.recording.step_blocks import Ids, WholeBlock
from tasks.tracing import Contributions

Part = tuple[UpdateBlock, int, int]  # a block of a piece, its first and past its last row


@dataclass(frozen=True)
class MapBlock(WholeBlock):
    """The updates of a map.

    Parameters
    ----------
    layer, start, stop, recorded, biases : as in `StepBlock`
    map : puts them together
    parts : rows of each piece
    """

    map: LinearMap
    parts: tuple[Part, ...]

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each, (n + 1, *weight.shape)."""
        stacks = [(block.weights[low : high + 1], _cut(block.biases, low, high + 1)) for block, low, high in self.parts]
        return self.map.assemble(stacks)[0]

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates (n, *weight.shape)."""
        stacks = []
        for block, low, high in self.parts:
            updates = block.dense(dtype)[low:high]
            stacks.append((updates, _cut(block.dense_bias(updates.dtype), low, high)))
        return self.map.assemble(stacks)[0]


@dataclass(frozen=True)
class CallBlock:
    """The updates of a layer under the name of one of its calls."""

    layer: str
    block: UpdateBlock

    @property
    def start(self) -> int:
        """The first step."""
        return self.block.start

    @property
    def stop(self) -> int:
        """Past the last step."""
        return self.block.stop

    @property
    def steps(self) -> Ids:
        """The step of each row."""
        return self.block.steps

    @property
    def recorded(self) -> bool:
        """Whether each row is one step."""
        return self.block.recorded

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each."""
        return self.block.weights

    @property
    def biases(self) -> Tensor | None:
        """Return the biases before the first row and after each."""
        return self.block.biases

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates."""
        return self.block.dense(dtype)

    def dense_bias(self, dtype: torch.dtype | None = None) -> Tensor | None:
        """Return the updates of the bias."""
        return self.block.dense_bias(dtype)

    def project(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Contributions:
        """Return `tasks.tracing.contributions` of the updates."""
        return self.block.project(module, weight, inputs, anchor=anchor, bias=bias)

    def per_example(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        credit: Credit = "gradient",
    ) -> list[Tensor]:
        """Return each member's contributions."""
        return self.block.per_example(module, weight, inputs, anchor=anchor, credit=credit)


@dataclass(frozen=True)
class TracedSource:
    """The updates of an archive by traced layer.

    Holds the updates of the first pieces of a map for a segment where the archive is read layer by layer.

    Parameters
    ----------
    source : the archive
    model : the network; gives the modules, and may be on the meta device
    """

    source: UpdateSource
    model: nn.Module = field(repr=False)

    @property
    def kind(self) -> str:
        """The kind of archive."""
        return self.source.kind

    @property
    def layers(self) -> list[str]:
        """Return the traced layers: maps in place of the pieces that make them, without those of single heads."""
        return whole_layers(self.model, self.source.layers)

    @property
    def steps(self) -> int:
        """The number of updates."""
        return self.source.steps

    @property
    def exactness(self) -> dict[str, float]:
        """Return the largest cosine error by layer."""
        stated = self.source.exactness
        return {layer: max(stated[piece] for piece in pieces_of(self.model, layer)) for layer in self.layers}

    @property
    def ledger(self) -> pd.DataFrame:
        """The ledger, a row per step."""
        return self.source.ledger

    @property
    def examples(self) -> list[Ids]:
        """The ids of each step's examples."""
        return self.source.examples

    @property
    def ghosts(self) -> list[Ids]:
        """The ids of each step's ghosts."""
        return self.source.ghosts

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """Whether each step's update is recorded by itself."""
        return self.source.recorded

    def splits(self, layer: str) -> bool:
        """Return whether `per_example` splits the updates of a layer by their members; those of maps are not split."""
        return find_map(self.model, layer) is None and self.source.splits(split_call(layer)[0])

    def segments(self) -> list[Segment]:
        """Return the segments."""
        return self.source.segments()

    def initial(self, layer: str) -> Tensor:
        """Return a layer's weight before step 0."""
        return self._ends(layer, "initial")[0]

    def final(self, layer: str) -> Tensor:
        """Return a layer's weight after the last step."""
        return self._ends(layer, "final")[0]

    def initial_bias(self, layer: str) -> Tensor | None:
        """Return a layer's bias before step 0."""
        return self._ends(layer, "initial")[1]

    def final_bias(self, layer: str) -> Tensor | None:
        """Return a layer's bias after the last step."""
        return self._ends(layer, "final")[1]

    def blocks(
        self, segment: Segment, layers: Sequence[str] | None = None, *, members: bool = False
    ) -> Iterator[UpdateBlock]:
        """Yield the updates of a segment, of each layer in order of steps.

        Raises
        ------
        KeyError : a layer that is not recorded
        """
        chosen = self.layers if layers is None else list(layers)
        needed = list(dict.fromkeys(piece for layer in chosen for piece in pieces_of(self.model, layer)))
        waiting = {
            layer: _Waiting(layer, found.map, {piece: deque() for piece in pieces_of(self.model, layer)})
            for layer in chosen
            if (found := find_map(self.model, layer)) is not None
        }
        for block in self.source.blocks(segment, needed, members=members):
            for layer in chosen:
                if layer in waiting:
                    yield from waiting[layer].take(block)
                elif split_call(layer)[0] == block.layer:
                    yield block if layer == block.layer else CallBlock(layer, block)

    def _ends(self, layer: str, end: str) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of a layer at one end of the training."""
        weight, bias = getattr(self.source, end), getattr(self.source, f"{end}_bias")
        found = find_map(self.model, layer)
        if found is None:
            return weight(split_call(layer)[0]), bias(split_call(layer)[0])
        stacks = []
        for piece in pieces_of(self.model, layer):
            one = bias(piece)
            stacks.append((weight(piece)[None], None if one is None else one[None]))
        made, made_bias = found.map.assemble(stacks)
        return made[0].clone(), None if made_bias is None else made_bias[0].clone()


@dataclass
class _Waiting:
    """The blocks of a map's pieces until all have the same rows."""

    layer: str
    map: LinearMap
    parts: dict[str, deque[Part]]

    def take(self, block: UpdateBlock) -> Iterator[MapBlock]:
        """Add a block of a piece; yield the rows that are whole now."""
        if block.layer not in self.parts:
            return
        self.parts[block.layer].append((block, 0, len(block.steps)))
        while all(self.parts.values()):
            firsts = [queue[0] for queue in self.parts.values()]
            count = min(high - low for _, low, high in firsts)
            taken = tuple((one, low, low + count) for one, low, _ in firsts)
            for queue in self.parts.values():
                one, low, high = queue.popleft()
                if low + count < high:
                    queue.appendleft((one, low + count, high))
            yield self._block(taken)

    def _block(self, parts: tuple[Part, ...]) -> MapBlock:
        """Return the block of some rows."""
        first, low, high = parts[0]  # a gap has one row
        start, stop = (first.start + low, first.start + high) if first.recorded else (first.start, first.stop)
        stacks = [(one.weights[a : b + 1], _cut(one.biases, a, b + 1)) for one, a, b in parts]
        biases = None if stacks[0][1] is None else self.map.assemble(stacks)[1]
        return MapBlock(self.layer, start, stop, first.recorded, biases, self.map, parts)


def holds(source: UpdateSource, layer: str) -> bool:
    """Return whether a source has the updates of a traced layer."""
    if isinstance(source, TracedSource):
        return is_traced(source.model, source.source.layers, layer)
    return layer in source.layers


def traced_source(source: UpdateSource, model: nn.Module) -> UpdateSource:
    """Return the updates of an archive by the traced layers of its network."""
    return TracedSource(source, model)


def _cut(rows: Tensor | None, low: int, high: int) -> Tensor | None:
    """Return some rows, None without any."""
    return None if rows is None else rows[low:high]
