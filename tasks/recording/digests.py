"""The writer of a replay archive: digests, norms and sign probes of the updates, and nothing else of a step."""

from contextlib import AbstractContextManager, nullcontext

from storage.updates.bits import Ints
from storage.updates.parameters import layers_document, segment_group
from storage.updates.writer import UPDATES, Written
from tasks.recording.fingerprints import Fingerprints, Watched, estimated_norms, layer_digest, sampled_changes
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

    Norms and probes of parameters above 16,384 values come from about as many values. Holds these values of some rows,
    16 MB and those of one row more, and their signs.
    """

    waited_seconds = 0.0  # nothing is written during the training

    def __init__(self, recording: Recording) -> None:
        names = [layer.name for layer in recording.layers]
        self.written = Written({name: [] for name in names}, {name: [] for name in names}, {name: [] for name in names})
        self._recording, self._rows = recording, 0
        self._by_name = {parameter.name: parameter for parameter in recording.parameters}
        self._watched = Watched(recording.parameters, recording.places)
        self._last = self._watched.fingerprints()
        self._samples = [_samples(self._last)]  # those after the last row with a norm, and after later rows
        row = sum(sample.nbytes for sample in self._samples[0].values())
        self._together = max(1, min(TOGETHER, SAMPLES // max(1, row)))

    def marks(self) -> Fingerprints:
        """Return the fingerprints of the weights after the last row."""
        return self._last

    def during(self, members: int, *, kept: bool) -> AbstractContextManager[None]:
        """Surround an update, without a hook."""
        return nullcontext()

    def push(self) -> None:
        """Take the digests of the present weights, and of some rows together norms and probes."""
        self._last = self._watched.fingerprints()
        for layer in self._recording.layers:
            self.written.digests[layer.name].append(layer_digest(layer, self._last))
        self._samples.append(_samples(self._last))
        self._rows += 1
        if len(self._samples) > self._together:
            self._measure()

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
        group = segment_group(KIND, (start, stop), self._rows, document)
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
