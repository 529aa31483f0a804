"""Update sources: one protocol to read all kinds of archive."""

import json
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store, open_store
from storage.updates.archives import Segment, archive_segments, conversion_of
from storage.updates.facts import closed_archive
from tasks.modules.rows import Inputs
from tasks.recording.archives import ARCHIVES, check_kind
from tasks.recording.columns import Credit
from tasks.recording.programs import Program, Repeat, RepeatProgram
from tasks.tracing import Contributions

Ids = NDArray[np.int64]


class UpdateBlock(Protocol):
    """The updates of consecutive steps of one layer: n rows, a row per step or one row for unrecorded steps."""

    @property
    def layer(self) -> str: ...

    @property
    def start(self) -> int: ...

    @property
    def stop(self) -> int: ...

    @property
    def steps(self) -> Ids: ...

    @property
    def recorded(self) -> bool: ...

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each, (n + 1, *weight.shape)."""

    @property
    def biases(self) -> Tensor | None:
        """Return the biases before the first row and after each, (n + 1, out)."""

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates, (n, *weight.shape)."""

    def dense_bias(self, dtype: torch.dtype | None = None) -> Tensor | None:
        """Return the updates of the bias, (n, out)."""

    def project(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Contributions:
        """Return `tasks.tracing.contributions` of the updates, (Q, n)."""

    def per_example(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        credit: Credit = "gradient",
    ) -> list[Tensor]:
        """Return each member's contributions, n tensors (Q, members), examples then ghosts; not all kinds can."""


class UpdateSource(Protocol):
    """A training's updates, from any kind of archive."""

    @property
    def kind(self) -> str: ...

    @property
    def layers(self) -> list[str]: ...

    @property
    def steps(self) -> int: ...

    @property
    def exactness(self) -> dict[str, float]:
        """Return the largest cosine error by layer; 0.0 is bitwise."""

    @property
    def ledger(self) -> pd.DataFrame:
        """Return the ledger, a row per step."""

    @property
    def examples(self) -> list[Ids]: ...

    @property
    def ghosts(self) -> list[Ids]: ...

    @property
    def recorded(self) -> NDArray[np.bool_]: ...

    def splits(self, layer: str) -> bool:
        """Return whether `per_example` splits the updates of a layer by their members."""

    def segments(self) -> list[Segment]:
        """Return the segments, which cover steps 0..T in order; they can be read in any order."""

    def initial(self, layer: str) -> Tensor: ...

    def final(self, layer: str) -> Tensor: ...

    def initial_bias(self, layer: str) -> Tensor | None: ...

    def final_bias(self, layer: str) -> Tensor | None: ...

    def blocks(
        self,
        segment: Segment,
        layers: Sequence[str] | None = None,
        *,
        members: bool = False,
        passing: Collection[str] = (),
    ) -> Iterator[UpdateBlock]:
        """Yield the updates of a segment.

        Parameters
        ----------
        members : a replay keeps what `per_example` needs, in the same pass
        passing : layers of which each block is projected before the next one is taken, on the same queries, and
            nothing else is asked; a replay then copies no large weight. See `tasks.tracing.running.runs`
        """


class OpenSource(Protocol):
    """A function that opens one kind of archive."""

    def __call__(
        self, stage: FinishedStage, spans: tuple[Segment, ...], program: Repeat | None = None
    ) -> UpdateSource: ...


def update_source(
    stage: FinishedStage, *, program: Program | None = None, repeat: Repeat | None = None
) -> UpdateSource:
    """Return the recorded updates of a finished stage, a training or a recorder.

    Parameters
    ----------
    program : repeats the training, for kinds of archive that recompute updates
    repeat : the same for a training that is not a user's program

    Raises
    ------
    StoreError : the stage recorded nothing
    ValueError : a kind of archive that this version cannot read
    """
    spans = archive_segments(stage)
    again = repeat if program is None else RepeatProgram(program)
    return ARCHIVES[check_kind(spans[0].kind)].source(stage, tuple(spans), again)


def recorded_source(store: Store, training: StageSpec, repeat: Repeat | None = None) -> UpdateSource:
    """Return the updates of a finished training; the archive is opened again only if its files change.

    Parameters
    ----------
    repeat : hashable; makes the training's steps again, for kinds of archive that recompute updates

    Raises
    ------
    StoreError : the training recorded nothing
    """
    stage = open_finished(store, training)
    return _source(store, training, repeat, json.dumps(stage.note["files"], sort_keys=True))


@lru_cache(maxsize=2)
def _source(store: Store, training: StageSpec, repeat: Repeat | None, files: str) -> UpdateSource:
    """Open the archive of a training with these digests of its files; two stay open to compare trainings."""
    return update_source(open_finished(store, training), repeat=repeat)


def open_updates(url: str, *, program: Program | None = None) -> UpdateSource:
    """Return the updates of an `UpdateRecorder` in the store at `url`.

    A replay archive without a program is read from its conversion (`tasks.recording.conversion`), if there is one.

    Raises
    ------
    StoreError : a store or a finished archive is missing
    """
    stage = closed_archive(open_store(url))
    if program is None and ARCHIVES[check_kind(archive_segments(stage)[0].kind)].recomputes:
        stage = conversion_of(stage) or stage
    return update_source(stage, program=program)
