"""Updates by traced layer: maps put together from the pieces of an archive, and the calls of a layer.

An archive keeps each weight once. A traced layer may be a part of it, two of them side by side, or one call of a layer.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from storage.updates.archives import Segment
from tasks.modules.composed import LinearMap
from tasks.modules.naming import find_map, is_traced, pieces_of, split_call, whole_layers
from tasks.recording.map_blocks import CallBlock, MapBlock, Part, cut_rows
from tasks.recording.pieces import drops
from tasks.recording.replay import ReplaySource
from tasks.recording.sources import UpdateBlock, UpdateSource
from tasks.recording.step_blocks import Ids


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
        """Return whether `per_example` splits the updates of a layer by their members, of maps in a replay alone."""
        if (found := find_map(self.model, layer)) is None:
            return self.source.splits(split_call(layer)[0])
        pieces = pieces_of(self.model, layer)
        return (
            isinstance(self.source, ReplaySource) and not drops(found.module) and all(map(self.source.splits, pieces))
        )

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
        self,
        segment: Segment,
        layers: Sequence[str] | None = None,
        *,
        members: bool = False,
        passing: Collection[str] = (),
    ) -> Iterator[UpdateBlock]:
        """Yield the updates of a segment, of each layer in order of steps.

        Raises
        ------
        KeyError : a layer that is not recorded
        """
        chosen = self.layers if layers is None else list(layers)
        uses = Counter(piece for layer in chosen for piece in pieces_of(self.model, layer))
        waiting = {
            layer: _Waiting(layer, found.map, {piece: deque() for piece in pieces_of(self.model, layer)})
            for layer in chosen
            if (found := find_map(self.model, layer)) is not None
        }
        # A map, or another call, also needs the weights of its layer.
        alone = {layer for layer in passing if layer in chosen and layer not in waiting and uses[layer] == 1}
        for block in self.source.blocks(segment, list(uses), members=members, passing=alone):
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
        stacks = [(one.weights[a : b + 1], cut_rows(one.biases, a, b + 1)) for one, a, b in parts]
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
