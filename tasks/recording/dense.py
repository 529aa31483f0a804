"""The dense archive as a source of updates: it holds every update bit for bit."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from storage.stages import FinishedStage
from storage.updates.archives import Segment
from storage.updates.bits import Ints
from storage.updates.parameters import Parameter
from storage.updates.reader import SegmentReader, read_weights
from tasks.recording.step_blocks import Ids, WholeBlock, differences

if TYPE_CHECKING:
    from tasks.recording.programs import Repeat
    from tasks.recording.sources import UpdateBlock


@dataclass(frozen=True)
class DenseBlock(WholeBlock):
    """Updates bit for bit.

    Parameters
    ----------
    layer, start, stop, recorded, biases : as in `StepBlock`
    weights : (n + 1, *shape) before the first row and after each, bitwise
    """

    weights: Tensor

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates W_{t+1} - W_t, (n, *weight.shape), on the CPU.

        Parameters
        ----------
        dtype : dtype of the subtraction; by default that of the weights, float32 for narrower types
        """
        return differences(self.weights, dtype)


@dataclass(frozen=True)
class DenseSource:
    """A dense archive, read by segments.

    To read a block takes three times the memory of a chunk: the chunk of differences, the restored weights, and the
    result. A chunk has 4 to 16 MB, or one update of the layer where that is more. A whole checkpoint is read first. The
    recorded weights before the first and after the last step stay in memory once they are read.
    Picklable. Every read is checked: damage raises DamagedError, which names the file.
    """

    stage: FinishedStage
    spans: tuple[Segment, ...]
    program: "Repeat | None" = None
    kind: str = field(default="dense", init=False)

    @cached_property
    def layers(self) -> list[str]:
        """Return the recorded layers, in the model's order."""
        return list(self._first.contents[0])

    @property
    def steps(self) -> int:
        """Return the number of updates, T."""
        return self.spans[-1].stop

    @property
    def exactness(self) -> dict[str, float]:
        """Return the largest cosine error by layer: 0, since updates are bitwise."""
        return dict.fromkeys(self.layers, 0.0)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """Return the ledger, a row per step: see `storage.updates.ledger`; `row` counts within a segment."""
        return pd.concat([SegmentReader(self.stage, span).ledger for span in self.spans], ignore_index=True)

    @property
    def examples(self) -> list[Ids]:
        """Return the ids of each step's examples."""
        return list(self.ledger["examples"])

    @property
    def ghosts(self) -> list[Ids]:
        """Return the ids of each step's ghosts."""
        return list(self.ledger["ghosts"])

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """Return (T,), whether each step's update is recorded by itself."""
        return self.ledger["recorded"].to_numpy(np.bool_)

    def splits(self, layer: str) -> bool:
        """Return whether `per_example` splits the updates of a layer by their members."""
        return False

    def segments(self) -> list[Segment]:
        """Return the segments in order; each can be read alone."""
        return list(self.spans)

    def initial(self, layer: str) -> Tensor:
        """Return a layer's weight before step 0, bitwise."""
        return self._end(layer, "weight", self._first_weights)

    def final(self, layer: str) -> Tensor:
        """Return a layer's weight after the last step, bitwise."""
        return self._end(layer, "weight", self._last_weights)

    def initial_bias(self, layer: str) -> Tensor | None:
        """Return a layer's bias before step 0, None without a bias."""
        return self._end(layer, "bias", self._first_weights) if self._has_bias(layer) else None

    def final_bias(self, layer: str) -> Tensor | None:
        """Return a layer's bias after the last step, None without a bias."""
        return self._end(layer, "bias", self._last_weights) if self._has_bias(layer) else None

    def blocks(
        self,
        segment: Segment,
        layers: Sequence[str] | None = None,
        *,
        members: bool = False,
        passing: Collection[str] = (),
    ) -> Iterator["UpdateBlock"]:
        """Yield the updates of a segment, layer by layer, in order of steps.

        Parameters
        ----------
        members, passing : for a replay; without effect here

        Raises
        ------
        KeyError : a layer that is not recorded
        DamagedError : a file differs from what was written
        """
        chosen = self.layers if layers is None else list(layers)
        reader = SegmentReader(self.stage, segment)
        known, parameters = reader.contents
        names = {name for layer in chosen for name in known[self._known(layer)].parameters}
        before = read_weights(self.stage, segment.before, [parameters[name] for name in names])
        for layer in chosen:
            yield from dense_blocks(reader, layer, before)

    @cached_property
    def _first(self) -> SegmentReader:
        """Return the reader of the first segment."""
        return SegmentReader(self.stage, self.spans[0])

    def _known(self, layer: str) -> str:
        """Return `layer` if it is recorded; raise KeyError otherwise."""
        if layer not in self.layers:
            raise KeyError(f"layer: expected a recorded one ({', '.join(self.layers)}), found {layer!r}")
        return layer

    def _has_bias(self, layer: str) -> bool:
        """Return whether a layer has a bias."""
        return self._first.contents[0][self._known(layer)].bias is not None

    @cached_property
    def _first_weights(self) -> dict[str, Ints]:
        """Return the recorded parameters before step 0; the checkpoint is read whole, so it is read once."""
        return read_weights(self.stage, self.spans[0].before, self._first.contents[1].values())

    @cached_property
    def _last_weights(self) -> dict[str, Ints]:
        """Return the recorded parameters after the last step."""
        return read_weights(self.stage, self.spans[-1].after, self._first.contents[1].values())

    def _end(self, layer: str, part: str, values: dict[str, Ints]) -> Tensor:
        """Return a copy of one parameter from the values of a checkpoint."""
        layers, parameters = self._first.contents
        parameter = parameters[getattr(layers[self._known(layer)], part)]
        return tensor_of(values[parameter.name][None], parameter)[0].clone()


def dense_blocks(reader: SegmentReader, layer: str, before: dict[str, Ints]) -> Iterator[DenseBlock]:
    """Yield the updates of a layer that are kept bit for bit; `before` as in `SegmentReader.restored`."""
    known, parameters = reader.contents
    entry = known[layer]
    for rows in reader.restored(layer, before):
        weights = tensor_of(rows.weights, parameters[entry.weight])
        biases = None
        if entry.bias is not None and rows.biases is not None:
            biases = tensor_of(rows.biases, parameters[entry.bias])
        yield DenseBlock(layer, rows.steps.start, rows.steps.stop, rows.recorded, biases, weights)


def tensor_of(bits: Ints, parameter: Parameter) -> Tensor:
    """Return rows of bit patterns (n, P) as weights (n, *shape), without a copy."""
    return torch.from_numpy(bits).view(getattr(torch, parameter.dtype)).view(len(bits), *parameter.shape)
