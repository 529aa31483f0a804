"""The writer of a replay archive: digests, norms and sign probes of the updates, and nothing else of a step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from storage.updates.bits import Ints
from storage.updates.parameters import READ, layers_document, segment_group
from storage.updates.writer import UPDATES, Written
from tasks.recording.fingerprints import (
    Fingerprints,
    Watched,
    estimated_norms,
    layer_digest,
    sampled_changes,
    turn_of,
)
from tasks.recording.probes import PROBES, update_probes
from tasks.recording.writers import Recording

KIND = "replay"
FACTS = 16 + 8 * PROBES  # bytes of a digest, a norm and the probes
# Norms and probes of some rows are computed at once, since the signs are then read once for all: at most so many rows,
# with so many bytes of samples.
TOGETHER = 16
SAMPLES = 16 * 2**20


class DigestWriter:
    """A writer of the digest, the norm and the probes of every row, taken in place: no weight is copied.

    The digest of a row reads at most MOST bytes of a parameter, of a larger one others after each row. Norms and probes
    of parameters above 16,384 values come from about as many values. Holds these values of some rows, 16 MB and those
    of one row more, and their signs.
    """

    waited_seconds = 0.0  # nothing is written during the training

    def __init__(self, recording: Recording) -> None:
        names = [layer.name for layer in recording.layers]
        self.written = Written({name: [] for name in names}, {name: [] for name in names}, {name: [] for name in names})
        self._recording, self._rows = recording, 0
        self._by_name = {parameter.name: parameter for parameter in recording.parameters}
        self._watched = Watched(recording.parameters, recording.places)
        self._last = self._watched.fingerprints(turn_of(0))
        self._in_part = {p.name for p in recording.parameters if turn_of(0).leaves(p)}
        self.written.stills.update({e.name: [] for e in recording.layers if self._in_part.intersection(e.parameters)})
        self._moved = set[str]()  # parameters read in part that torch saw change since the last row
        self._samples = [_samples(self._last)]  # those after the last row with a norm, and after later rows
        row = sum(sample.nbytes for sample in self._samples[0].values())
        self._together = max(1, min(TOGETHER, SAMPLES // max(1, row)))

    def marks(self) -> Fingerprints:
        """Return the fingerprints of the weights after the last row."""
        return self._last

    def during(self, members: int, *, kept: bool) -> AbstractContextManager[None]:
        """Surround an update, without a hook."""
        return self._moving() if self._in_part else nullcontext()

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Note which of the parameters that are read in part torch sees change in the block."""
        before = self._watched.versions(self._in_part)
        yield
        now = self._watched.versions(self._in_part)
        self._moved |= {name for name in self._in_part if now[name] != before[name]}

    def push(self) -> None:
        """Take the digests of the present weights, and of some rows together norms and probes."""
        last, self._rows = self._last, self._rows + 1
        self._last = self._watched.fingerprints(turn_of(self._rows))
        for layer in self._recording.layers:
            self.written.digests[layer.name].append(layer_digest(layer, self._last))
            if (stills := self.written.stills.get(layer.name)) is not None:
                stood = {self._stood(name, last) for name in layer.parameters}
                stills.append(0 if False in stood else -1 if None in stood else 1)
        self._moved.clear()
        self._samples.append(_samples(self._last))
        if len(self._samples) > self._together:
            self._measure()

    def _stood(self, name: str, last: Fingerprints) -> bool | None:
        """Return whether a parameter is as after the last row, None where it is not known.

        That is of a parameter that is read in part, which torch saw change, but not its sample: it may be as before.
        """
        now, before = self._last[name], last[name]
        if name not in self._in_part:
            return np.array_equal(now.summary, before.summary)
        if not np.array_equal(now.sample, before.sample):
            return False
        return None if name in self._moved else True

    def _measure(self) -> None:
        """Append norms and probes of the last rows, from the values of their samples."""
        if len(self._samples) == 1:
            return
        for layer in self._recording.layers:
            parts = [self._by_name[name] for name in layer.parameters]
            changes = [sampled_changes(part, [row[part.name] for row in self._samples]) for part in parts]
            weight = layer.parameters.index(layer.weight)
            self.written.norms[layer.name] += estimated_norms(parts[weight], changes[weight])
            self.written.probes[layer.name] += update_probes(parts, changes).tolist()
        self._samples = self._samples[-1:]

    def check(self) -> None:
        """Do nothing: no other thread works."""

    def close(self, start: int, stop: int) -> int:
        """Write the names of layers and parameters; return the number of rows."""
        self._measure()
        recording = self._recording
        document = layers_document(recording.layers, recording.parameters)
        group = segment_group(KIND, (start, stop), self._rows, {**document, READ: turn_of(0).most})
        recording.write(f"{recording.segment.folder}/{UPDATES}/zarr.json", group)
        return self._rows

    def abandon(self) -> None:
        """Do nothing: no other thread works."""

    def join(self) -> None:
        """Do nothing: no other thread works."""


def digests_bytes(layers: int, steps: int) -> int:
    """Return the bytes of digests, norms and probes."""
    return FACTS * layers * steps


def _samples(found: Fingerprints) -> dict[str, Ints]:
    """Return the sampled values of each parameter, without the rest of its summary."""
    return {name: one.sample for name, one in found.items()}
