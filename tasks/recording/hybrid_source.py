"""The hybrid archive as a source of updates."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from torch import Tensor

from storage.updates.archives import Segment
from storage.updates.parameters import Layer
from storage.updates.reader import SegmentReader
from storage.updates.tables import EXPLAINED, FACTORS, Settings
from tasks.recording.codes import EXACT
from tasks.recording.dense import DenseSource, dense_blocks
from tasks.recording.hybrid_blocks import FactorBlock, Progress
from tasks.recording.hybrid_segment import HybridSegment, Start
from tasks.recording.images import Images
from tasks.recording.recurrences import carried_shares, carries, whole_shares
from tasks.tracing.prepared import Queries

if TYPE_CHECKING:
    from tasks.recording.sources import UpdateBlock

FORGOTTEN = 1e-8  # share of a momentum that does not matter any more


@dataclass(frozen=True)
class HybridSource(DenseSource):
    """A hybrid archive, read by segments.

    A block holds updates of about 8 MB, or one update. While a layer's blocks are read in order, twice its weight or
    the images of queries stay in memory. Picklable. Every read is checked: damage raises DamagedError, which names the
    file.
    """

    kind: str = field(default="hybrid", init=False)

    @property
    def exactness(self) -> dict[str, float]:
        """Return the stated error by layer, the largest of all segments."""
        return {layer: max(part.facts["errors"][layer] for part in self._parts) for layer in self.layers}

    def splits(self, layer: str) -> bool:
        """Return whether `per_example` splits the updates of a layer by their members.

        It does where the layer has factors in all segments, with a sample for each id of each step.
        """
        entry = self._first.contents[0][self._known(layer)]
        if any(part.facts["codes"][entry.weight] != FACTORS for part in self._parts):
            return False
        return all(part.has_members(entry.weight) for part in self._parts)

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
        chosen = [self._known(layer) for layer in (self.layers if layers is None else layers)]
        part = self._parts[segment.number]
        start = part.start(chosen)
        for layer in chosen:
            entry = part.reader.contents[0][layer]
            code = part.facts["codes"][entry.weight]
            if code == EXACT:
                yield from dense_blocks(part.reader, layer, start.weights)
            elif code == FACTORS:
                yield from self._factor_blocks(segment.number, entry, start)
            else:
                yield from part.rounded_blocks(entry, start)

    def _factor_blocks(self, number: int, entry: Layer, start: Start) -> Iterator[FactorBlock]:
        """Yield the updates of a layer with factors."""
        part = self._parts[number]
        ledger, progress = part.reader.ledger, Progress(part.trace(entry, start), self._pull(number, entry))
        steps_of, first = self._steps(entry.weight), sum(earlier.facts["rows"] for earlier in self._parts[:number])
        shares, carried = whole_shares(steps_of)[first:], carried_shares(steps_of)[first:]
        members = [(len(e), len(g)) for e, g in zip(ledger["examples"], ledger["ghosts"], strict=True)]
        biases = part.bias_rows(entry, start)
        for rows, steps, recorded in part.runs(entry):
            low = steps.start - part.reader.segment.start
            counts = members[low : low + len(rows)]
            yield FactorBlock(
                entry.name,
                steps.start,
                steps.stop,
                recorded,
                biases(len(rows)),
                rows.start,
                counts,
                shares[rows.start : rows.stop],
                carried[rows.start : rows.stop],
                progress,
            )

    @cached_property
    def _parts(self) -> list[HybridSegment]:
        """Return the segments."""
        return [HybridSegment(SegmentReader(self.stage, span)) for span in self.spans]

    def _steps(self, weight: str) -> list[Settings | None]:
        """Return the settings of each row, None where it is not known what it made of the momentum."""
        found: list[Settings | None] = []
        for part in self._parts:
            records = part.records[weight] if part.facts["codes"][weight] == FACTORS else []
            found += [r.settings if r.form in EXPLAINED or r.stepped else None for r in records]
            found += [None] * (part.facts["rows"] - len(records))
        return found

    def _pull(self, number: int, entry: Layer) -> Callable[[Queries], Tensor | None]:
        """Return a function of queries that returns the image of the decay in the momentum before a segment."""
        uses = any(record.settings.momentum for record in self._parts[number].records[entry.weight])
        first, left = number, 1.0 if uses else 0.0
        while first and left > FORGOTTEN and self._parts[first - 1].facts["codes"][entry.weight] == FACTORS:
            first -= 1
            for record in self._parts[first].records[entry.weight]:
                left *= carries(record.settings) if record.form in EXPLAINED or record.stepped else 0.0
        earlier = self._parts[first:number]
        decays = any(r.settings.weight_decay for part in earlier for r in part.records[entry.weight])

        def pull(queries: Queries) -> Tensor | None:
            found: Tensor | None = None
            for part in earlier if decays else ():
                images = Images(part.trace(entry, part.start([entry.name])), queries, found)
                images.skip(part.facts["rows"])
                found = images.pull
            return found

        return pull
