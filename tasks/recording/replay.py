"""The replay archive as a source of updates: it makes the recorded steps again, and compares each of them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from storage.documents import Document
from storage.updates.archives import Segment
from storage.updates.ledger import DIGEST, NORM, STILLS, row_runs
from storage.updates.parameters import Layer
from storage.updates.reader import SegmentReader
from storage.updates.tables import Settings
from tasks.recording.checkpoints import group_settings
from tasks.recording.columns import KeptColumns
from tasks.recording.decays import DecayPull, Steps
from tasks.recording.dense import DenseSource
from tasks.recording.fingerprints import Turn
from tasks.recording.passing import Passing, PassingBlock, may_pass
from tasks.recording.replay_block import ReplayBlock
from tasks.recording.replaying import Recorded, Replay
from tasks.recording.shares import Course, Shares
from tasks.recording.step_shares import StepShares
from tasks.tracing.prepared import Prepared

if TYPE_CHECKING:
    from tasks.recording.programs import Repeat

BLOCK = 32 * 2**20  # bytes of the weights, and of the gradients by member, of the blocks given out together

SGD_ONLY = {"momentum", "dampening", "nesterov", "maximize"}  # settings that torch's SGD alone has together
WIDE_NAMES = ("float32", "float64")

State = dict[str, Tensor]  # parameters by name


@dataclass(frozen=True)
class ReplaySource(DenseSource):
    """A replay archive, read by segments: it holds checkpoints and digests, and makes each segment's steps again.

    A block is given out after its steps agree with the digests of all recorded layers. Memory: that of the training,
    and 32 MB of weights or one update of the chosen layers. Each call of `blocks` makes the steps once, for all layers
    that it is asked for.
    """

    kind: str = field(default="replay", init=False)

    def splits(self, layer: str) -> bool:
        """Return whether `per_example` may split the updates of a layer by their members, as far as the archive says.

        It says so of an untied weight of 32 or 64 bits and torch's SGD. Whether a step can be split, only the step
        made again shows.
        """
        known, parameters = self._first.contents
        weight = known[self._known(layer)].weight
        if [entry.weight for entry in known.values()].count(weight) > 1 or parameters[weight].dtype not in WIDE_NAMES:
            return False
        return all(group.keys() >= SGD_ONLY and not group["maximize"] for group in self._course.last)

    def blocks(
        self,
        segment: Segment,
        layers: Sequence[str] | None = None,
        *,
        members: bool = False,
        passing: Collection[str] = (),
    ) -> Iterator[ReplayBlock]:
        """Yield the updates of a segment in order of steps, for some steps layer by layer.

        Parameters
        ----------
        members : keep the gradients by member, which `ReplayBlock.per_example` needs
        passing : layers of which large weights are not copied: their blocks are `PassingBlock`

        Raises
        ------
        KeyError : a layer that is not recorded
        ValueError : no program, or a program of another network
        ReplayMismatch : a step gives other weights than recorded
        StoreError : another environment than that of the recording
        """
        return self._made(segment, self.layers if layers is None else layers, members=members, passing=passing)

    def _made(
        self,
        segment: Segment,
        layers: Sequence[str],
        *,
        members: bool,
        singly: bool = False,
        passing: Collection[str] = (),
    ) -> Iterator[ReplayBlock]:
        """Yield the updates of a segment; `singly` gives also each step of a gap by itself."""
        chosen = [self._known(layer) for layer in layers]
        recorded, replay = self._recorded(segment), self.replay(segment)
        entries = [recorded.layers[layer] for layer in chosen]
        names = sorted({name for entry in entries for name in entry.parameters})
        most = max(1, BLOCK // max(1, sum(recorded.parameters[name].nbytes for name in names)))
        again = _Again(self, segment, chosen, replay, members=members)
        prepared, columns, running = Prepared(), KeptColumns(), Passing()
        before, begins, passes = replay.weights(names), True, set[str]()
        if most == 1:
            only = {e.weight for e in entries if e.name in passing} - {
                e.weight for e in entries if e.name not in passing
            }
            passes = {name for name, live in replay.weights(sorted(only), only).items() if may_pass(live)}
        del replay  # `again` may take another one
        pulls = {layer: DecayPull(self._steps_before(layer)) for layer in chosen}
        for _, steps, recorded_alone in row_runs(recorded.ledger):
            kept = recorded_alone or singly
            while steps:
                rows = _Rows([before])
                while steps[len(rows.made) :] and (not kept or (len(rows.made) < most and rows.nbytes < BLOCK)):
                    rows.add(again, names, keep=kept, live=passes)
                count = len(rows.made)
                part, steps = steps[:count], steps[count:]
                before = rows.states[-1]
                starts, begins, running.at = rows.states[0] if begins else {}, False, part.stop
                for entry in entries:
                    states, biases = rows_of(rows.states, entry)
                    found = tuple(one[entry.name] for one in rows.made if one) or None
                    facts = entry.name, part.start, part.stop, kept, biases
                    more = prepared, self, segment, pulls[entry.name], found
                    if entry.weight in passes:
                        yield PassingBlock(*facts, states[-1:], *more, columns, starts.get(entry.weight), running)
                    else:
                        yield ReplayBlock(*facts, states, *more, columns)

    def _steps_before(self, layer: str) -> Steps:
        """Return a function of a step that gives the steps of a layer before it."""

        def earlier(stop: int) -> Iterator[list[tuple[Tensor, Settings | None]]]:
            for segment in reversed([span for span in self.spans if span.start < stop]):
                found: list[tuple[Tensor, Settings | None]] = []
                for block in self._made(segment, [layer], members=True, singly=True):
                    settings = [one.settings for one in block.members or ()]
                    found += list(zip(block.weights[:-1], settings, strict=True))[: max(0, stop - block.start)]
                yield found

        return earlier

    def replay(self, segment: Segment) -> Replay:
        """Return a segment's training before its first step; errors as in `blocks`."""
        return Replay(self.stage, segment, self._recorded(segment), self.repeat())

    @cached_property
    def _environments(self) -> list[Document]:
        """Return the environment of each segment."""
        return [record["numbers"]["environment"] for record in self.stage.markers()]

    @cached_property
    def _course(self) -> Course:
        """Return what is known of all steps."""
        ledger, name = self.ledger, self.spans[-1].after
        rates = [tuple(map(float, lrs)) for lrs in ledger["lrs"]]
        known = ledger["recorded"].to_numpy(np.bool_)
        moving = np.array([any(lrs) for lrs in rates], np.bool_)
        still, perhaps = {}, {}
        for layer in self.layers:
            digests = ledger[DIGEST + layer].to_numpy()
            same = np.append(ledger[NORM + layer].iloc[0] == 0, digests[1:] == digests[:-1])
            stated = ledger.get(STILLS + layer)  # an older part of the training does not state it
            found = same if stated is None else stated.where(stated.notna(), same).to_numpy(np.int8)
            still[layer], perhaps[layer] = (known & moving & one for one in (found == 1, found != 0))
        last = group_settings(self.stage.read_file(name), f"{self.stage.path}/files/{name}")
        return Course(rates, still, perhaps, last)

    def _recorded(self, segment: Segment) -> Recorded:
        """Return what a segment says about its steps."""
        reader = SegmentReader(self.stage, segment)
        layers, parameters = reader.contents
        turns = [None if most is None else Turn(most, number) for most, number in reader.readings]
        return Recorded(reader.ledger, layers, parameters, turns, self._environments[segment.recorded[0].number])

    def repeat(self) -> "Repeat":
        """Return what begins the training again."""
        if self.program is None:
            raise ValueError(
                f"program: expected one to repeat the training of {self.stage.path}, a replay archive, found none; "
                "give open_updates(url, program=...)"
            )
        return self.program


@dataclass
class _Rows:
    """The weights before and after some steps, and the gradients by member of the steps."""

    states: list[State]
    made: list[dict[str, StepShares]] = field(default_factory=list)
    nbytes: int = 0  # of gradients

    def add(self, again: "_Again", names: Sequence[str], *, keep: bool, live: Collection[str]) -> None:
        """Make a step; `live` are the names of weights that are not copied."""
        self.made.append(again.advance())
        self.nbytes += sum(one.nbytes for one in self.made[-1].values())
        self.states = [*(self.states if keep else self.states[:1]), again.replay.weights(names, live)]


@dataclass
class _Again:
    """The steps of a segment that are made again, and split if asked for.

    Where a step changes weights outside the optimiser's step, the segment begins once more up to this step, and copies
    of the weights are held from then on.
    """

    source: ReplaySource
    segment: Segment
    layers: Sequence[str]
    replay: Replay
    members: bool
    _shares: Shares | None = field(default=None, init=False)

    def advance(self) -> dict[str, StepShares]:
        """Make the next step; return the gradients by member of each layer, if asked for."""
        if not self.members:
            self.replay.advance()
            return {}
        upcoming, shares = self.replay.upcoming, self._shares or self._watch(copies=False)
        with shares.watching(upcoming):
            row = self.replay.advance()
        if not shares.outside.changed or shares.outside.copies:
            return shares.take(row)
        self._shares = None
        del shares, self.replay  # before the next one takes the same memory
        self.replay = self.source.replay(self.segment)
        while self.replay.upcoming.step != upcoming.step:
            self.replay.advance()
        self._watch(copies=True)
        return self.advance()

    def _watch(self, *, copies: bool) -> Shares:
        """Watch the steps from now on."""
        optimizer, course = self.replay.run.optimizer, self.source._course
        self._shares = Shares(self.replay.modules, self.layers, optimizer, course, copies=copies)
        return self._shares


def rows_of(states: Sequence[State], entry: Layer) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """Return the weights (*shape) in n + 1 states, and the biases (n + 1, out), of a layer."""
    weights = tuple(state[entry.weight] for state in states)
    return weights, None if entry.bias is None else torch.stack([state[entry.bias] for state in states])
