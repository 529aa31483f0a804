"""The writer of a hybrid archive: per layer the smallest of factors, float16, int8 and every bit.

The first step of a segment shows how many rows a layer sees, and whether its factors explain its update. Then the
codes of the segment are chosen. Later every step is checked on sampled rows of the weight. A step that factors do not
explain, and a gap, are kept as the weights and the momentum after it; so is a step in which something else than the
optimiser changed the weights. A layer where most steps are such keeps the rest of the segment as rounded updates.
Biases are kept bit for bit.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from storage.documents import canonical
from storage.updates.bits import BITS, Ints
from storage.updates.parameters import Parameter, lay_out, layers_document, row_bytes
from storage.updates.records import Place, chunk_bytes
from storage.updates.tables import FACTORS, HALVES, STILL, TABLE, WEIGHTS, Record, Settings, table_bytes
from storage.updates.writer import UPDATES, Written
from tasks.recording.codes import ERRORS, EXACT, ROUNDED, code_bytes, smallest_code
from tasks.recording.factor_files import FactorFiles
from tasks.recording.factors import describe_module
from tasks.recording.fingerprints import Fingerprints, Watched, turn_of
from tasks.recording.followers import Follower, Found, find_followers
from tasks.recording.halves import HALVED
from tasks.recording.rounded import RoundedRows, row_of
from tasks.recording.staging import StagedRows
from tasks.recording.taps import Taps
from tasks.recording.whole_rows import WholeRows, few_explained
from tasks.recording.writers import Recording

KIND = "hybrid"
COARSE = 1e-4  # rounding of the weights, relative to an update, up to which factors are worth it at any tolerance
NOWHERE = Place(0, 0, 0)


@dataclass
class _Held:
    """The factors of a step, and their form; `place` is None where they are not in a chunk yet."""

    found: Found
    place: Place | None
    form: str = FACTORS


class HybridWriter:
    """Writes a segment. Holds two chunks per layer with factors, and of the others what `StagedRows` holds.

    Until the end of the first step it holds a copy of all weights.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._watched = Watched(recording.parameters, recording.places)
        self._steps = recording.segment.stop - recording.segment.start
        self._followers = find_followers(recording.model, recording.optimizer, recording.layers, recording.parameters)
        self._taps = Taps({name: follower.module for name, follower in self._followers.items()})
        self._samples = {name: follower.sample() for name, follower in self._followers.items()}
        self._start: dict[str, Tensor] | None = self._present()  # None once the codes are chosen
        self._held: dict[str, _Held] = {}
        self._codes, self._since, self._calls, self._pushed = dict[str, str](), 0, 0, 0
        self._files = FactorFiles(recording.segment.folder, recording.write)
        self._records: dict[str, list[Record]] = {}
        self._norms: dict[str, list[float]] = {}
        self._wholes: dict[str, WholeRows] = {}  # layers with factors that explain few steps
        self._odd: dict[str, int] = {}  # number of steps that they do not explain
        self._rounded: RoundedRows | None = None
        self._staged: tuple[Parameter, ...] = ()
        self._rows: StagedRows | None = None

    @property
    def written(self) -> Written:
        """Return norms and digests of the rows; 0 is the digest of layers with factors, as weights are not read."""
        assert self._rounded is not None
        found = self._rounded.written
        for name in self._followers:
            found.norms[name], found.digests[name] = self._norms[name], [0] * self._pushed
        return found

    @property
    def waited_seconds(self) -> float:
        """Return the time that the training waited for the other threads."""
        staged = 0.0 if self._rows is None else self._rows.waited_seconds
        return staged + self._files.waited_seconds

    def marks(self) -> Fingerprints:
        """Return the fingerprints of the present weights."""
        return self._watched.fingerprints(turn_of(self._pushed))

    @contextmanager
    def during(self, members: int, *, kept: bool) -> Iterator[None]:
        """Watch the layers with factors during an update; no hook stays after it."""
        self._since, self._calls = self._since + 1, 0
        self._held = {}
        for follower in self._followers.values():
            follower.begin()
        if not self._followers or not (kept or self._start is not None):
            yield
            return
        optimizer = self._recording.optimizer
        hooks = optimizer.register_step_pre_hook(self._before), optimizer.register_step_post_hook(self._after)
        try:
            with self._taps.during():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def push(self) -> None:
        """Append a row: the step since the last row, or the gap."""
        samples = {name: follower.sample() for name, follower in self._followers.items()}
        explained = {name: held for name, held in self._held.items() if self._explains(name, held.found, samples)}
        if self._start is not None:
            self._choose(explained, self._start)
        for name, follower in self._followers.items():
            self._norms[name].append(follower.norm(self._samples[name], samples[name]))
            held = None if self._since == 1 and follower.touched else explained.get(name)
            self._records[name].append(self._record(follower, held, samples[name]))
            follower.end_row()
        self._push_rows()
        self._samples = {name: samples[name] for name in self._followers}
        self._held, self._since, self._start = {}, 0, None
        self._pushed += 1

    def check(self) -> None:
        """Raise the failure of the thread that writes the rounded rows, if any."""
        if self._rows is not None:
            self._rows.check()

    def close(self, start: int, stop: int) -> int:
        """Write what is left of the steps `start:stop`; return the number of rows."""
        assert self._rounded is not None
        if self._rows is not None:
            self._rows.close()
        self._rounded.close()
        self._files.close()
        by_weight = {self._followers[name].parameter.name: records for name, records in self._records.items()}
        folder, write = self._recording.segment.folder, self._recording.write
        write(f"{folder}/{TABLE}", table_bytes({**by_weight, **self._rounded.records}))
        document = layers_document(self._recording.layers, self._recording.parameters)
        facts = {
            "codes": self._codes,
            "errors": self._errors(),
            "modules": {name: describe_module(follower.module) for name, follower in self._followers.items()},
            "momentum": {follower.parameter.name: follower.index for follower in self._followers.values()},
        }
        whole = {"kind": KIND, "start": start, "stop": stop, "rows": self._pushed, **facts, **document}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"layerlore": whole}}
        write(f"{folder}/{UPDATES}/zarr.json", canonical(group))
        return self._pushed

    def abandon(self) -> None:
        """Let the threads end; chunks that are not begun are not written."""
        if self._rows is not None:
            self._rows.abandon()
        self._files.abandon()

    def join(self) -> None:
        """Wait until the threads end."""
        if self._rows is not None:
            self._rows.join()
        self._files.join()

    def _before(self, *_: object) -> None:
        """Before the optimiser's step: let the layers copy what it changes."""
        for follower in self._followers.values():
            follower.before_step()

    @torch.no_grad()
    def _after(self, *_: object) -> None:
        """After the optimiser's step: keep the factors, which the loop may change from now on."""
        self._calls += 1
        self._held = {}
        if self._calls > 1:  # several updates, which the factors of one step cannot explain
            return
        for name, follower in self._followers.items():
            found = follower.after_step(self._taps.of(name))
            if found is not None:
                self._held[name] = self._hold(follower, found)

    def _hold(self, follower: Follower, found: Found) -> _Held:
        """Copy factors into a chunk; in the first step aside, as codes are not chosen."""
        inputs, gradients = found.inputs, found.gradients
        if self._start is not None:
            copies = [torch.cat([part.to("cpu", copy=True) for part in parts]) for parts in (inputs, gradients)]
            return _Held(replace(found, inputs=copies[:1], gradients=copies[1:]), None)
        if follower.layer.name in self._wholes:
            return _Held(found, None)
        place, form = self._keep(follower, found)
        return _Held(replace(found, inputs=[], gradients=[]), place, form)

    def _keep(self, follower: Follower, found: Found) -> tuple[Place, str]:
        """Copy factors into one record, in 16 bits where the tolerance has room for it; return its form too."""
        packed = follower.halves(found) if self._recording.tolerance >= HALVED else None
        if packed is not None:
            return self._files.put_bytes(follower.parameter.name, len(packed), lambda room: room.copy_(packed)), HALVES
        parts = [(found.inputs, found.shapes[0]), (found.gradients, found.shapes[1])]
        return self._files.put(follower.parameter.name, follower.weight.dtype, parts), FACTORS

    def _explains(self, name: str, found: Found, samples: Mapping[str, Ints]) -> bool:
        """Return whether factors explain the row; in a gap only the codes depend on it."""
        follower = self._followers[name]
        return self._since > 1 or follower.explains(
            found, self._samples[name], samples[name], max(COARSE, self._recording.tolerance)
        )

    def _record(self, follower: Follower, held: _Held | None, sample: Ints) -> Record:
        """Return the record of the row of a layer with factors."""
        name = follower.layer.name
        if (whole := self._wholes.get(name)) is not None:
            made = whole.next(follower.weight)
            return Record(made.form, self._files.put_bytes(follower.parameter.name, made.nbytes, made.fill))
        if held is not None and self._since == 1:
            found = held.found
            place, form = (held.place, held.form) if held.place else self._keep(follower, found)
            return Record(form, place, found.settings, *found.shapes)
        if self._since == 1 and follower.stood and np.array_equal(sample, self._samples[name]):
            return Record(STILL, NOWHERE)
        follower.restore(self._samples[name], sample)
        momentum = follower.momentum()
        kept = [follower.weight] if momentum is None else [follower.weight, momentum.to(follower.weight.dtype)]
        parts = [([tensor], tuple(tensor.shape)) for tensor in kept]
        place = self._files.put(follower.parameter.name, follower.weight.dtype, parts)
        self._odd[name] = self._odd.get(name, 0) + (self._since == 1)
        if few_explained(self._odd[name], self._pushed + 1):
            self._wholes[name] = WholeRows(follower.weight, self._recording.tolerance)
        settings = follower.settings if self._since == self._calls == 1 else Settings()
        return Record(WEIGHTS, place, settings, momentum=momentum is not None)

    def _choose(self, explained: Mapping[str, _Held], start: Mapping[str, Tensor]) -> None:
        """Choose the codes of the segment, and open its files."""
        given, weights = self._recording, {layer.weight: layer.name for layer in self._recording.layers}
        numbers = {self._followers[name].parameter.name: held.found.numbers for name, held in explained.items()}
        sizes: dict[str, int] = {}
        for p in given.parameters:
            itemsize = np.dtype(BITS[p.dtype]).itemsize
            rounds = p.name in weights and p.dtype in ROUNDED and p.size > 0
            count = numbers.get(p.name, 0)
            code = smallest_code(given.tolerance, p.shape, itemsize, count) if rounds else EXACT
            self._codes[p.name] = code
            if code != EXACT:
                sizes[p.name] = count * itemsize if code == FACTORS else code_bytes(code, p.shape, itemsize)
        capacities = dict(zip(sizes, chunk_bytes(list(sizes.values()), self._steps), strict=True))
        self._followers = {n: f for n, f in self._followers.items() if self._codes[f.parameter.name] == FACTORS}
        self._taps = Taps({name: follower.module for name, follower in self._followers.items()})
        for name, follower in self._followers.items():
            self._files.open(follower.parameter.name, capacities[follower.parameter.name])
            self._records[name], self._norms[name] = [], []
        self._open_rounded(capacities, start)

    def _open_rounded(self, capacities: Mapping[str, int], start: Mapping[str, Tensor]) -> None:
        """Open the files of the other parameters, and write the first row."""
        given = self._recording
        shapes = {p.name: (p.dtype, p.shape) for p in given.parameters if self._codes[p.name] != FACTORS}
        self._staged = lay_out(shapes)
        layers = [layer for layer in given.layers if layer.weight in shapes]
        self._rounded = RoundedRows(
            layers,
            self._staged,
            self._codes,
            capacities,
            folder=given.segment.folder,
            steps=self._steps,
            write=given.write,
        )
        if self._staged:
            width, present = row_bytes(self._staged), self._present()
            rows = [row_of(self._staged, values, width) for values in (present, start)]
            self._rounded.add(rows[0][None], rows[1])

    def _push_rows(self) -> None:
        """Append the weights of the parameters without factors; the first row is written with the choice of codes."""
        if self._rows is not None:
            self._rows.push()
        elif self._staged:
            assert self._rounded is not None
            by_name = dict(zip([p.name for p in self._recording.parameters], self._recording.places, strict=True))
            places = [by_name[p.name] for p in self._staged]
            self._rows = StagedRows(self._staged, places, self._steps, self._rounded.add)

    def _present(self) -> dict[str, Tensor]:
        """Return copies of the present parameters by name, on the CPU."""
        pairs = zip(self._recording.parameters, self._recording.places, strict=True)
        return {p.name: getattr(module, part).detach().to("cpu", copy=True) for p, (module, part) in pairs}

    def _errors(self) -> dict[str, float]:
        """Return the stated error of each layer, the largest of its rows."""
        stated = {layer.name: ERRORS[self._codes[layer.weight]] for layer in self._recording.layers}
        for name, follower in self._followers.items():
            whole = ERRORS[self._wholes[name].code] if name in self._wholes else 0.0
            halves = HALVED if any(record.form == HALVES for record in self._records[name]) else 0.0
            stated[name] = max(stated[name], min(follower.error, 1.0), halves, whole)
        return stated
