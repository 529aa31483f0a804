"""The steps of a segment made again from its checkpoint, each compared with what was recorded."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from storage.documents import Document
from storage.stages import FinishedStage
from storage.stores import StoreError
from storage.tensors import decode_tensors, same_tensor
from storage.updates.archives import Segment
from storage.updates.ledger import DIGEST, NORM, PROBES
from storage.updates.parameters import Layer, Parameter, shown_layer
from tasks.recording.checkpoints import RANDOM
from tasks.recording.environment import device_of, environment_difference, environment_facts
from tasks.recording.fingerprints import Fingerprints, Turn, Watched, layer_digest, sampled_changes
from tasks.recording.generators import generator_states, generators_kept, restore_generators
from tasks.recording.layers import choose_layers, recorded_parameters
from tasks.recording.optimizers import SETTING
from tasks.recording.probes import drift, update_probes
from tasks.recording.programs import Repeat, Repeated, Row, step_rows


class ReplayMismatch(Exception):  # noqa: N818  # the contract's name
    """A repeated step that gives other bits than the recorded one.

    Parameters
    ----------
    step : the first such step
    layer : the first such layer, or the first tensor of the checkpoint after the segment
    drift : estimated norm of the difference over that of the recorded update; NaN where it is not known
    """

    def __init__(self, step: int, layer: str, what: str = "its recorded weights", drift: float = float("nan")) -> None:
        super().__init__(
            f"step {step}, layer {shown_layer(layer)!r}: expected {what} from the replay, found others{_size(drift)}; "
            "replay with the program, data and settings of the recording"
        )
        self.step, self.layer, self._what, self.drift = step, layer, what, drift

    def __reduce__(self) -> tuple[type, tuple[int, str, str, float]]:
        """Return how a worker's error reaches its caller."""
        return type(self), (self.step, self.layer, self._what, self.drift)


def _size(drift: float) -> str:
    """Return words for the size of a drift."""
    if math.isnan(drift):
        return ""
    return f", away by about {drift:.1g} of the update" if drift else ", equal in the sampled weights"


@dataclass(frozen=True)
class Recorded:
    """What a segment says about its steps.

    Parameters
    ----------
    ledger : a row per step
    layers, parameters : by name
    turns : of each step, which part of the weights its digests come from
    environment : facts of the recording
    """

    ledger: pd.DataFrame
    layers: Mapping[str, Layer]
    parameters: Mapping[str, Parameter]
    turns: Sequence[Turn | None]
    environment: Document


class Replay:
    """A segment of a training that is made again, step by step.

    Random generators of the caller are left alone. Holds the training's own memory.

    Raises
    ------
    StoreError : another environment than that of the recording
    ValueError : the program has another network or optimiser
    """

    def __init__(self, stage: FinishedStage, segment: Segment, recorded: Recorded, repeat: Repeat) -> None:
        self._stage, self._segment, self._recorded = stage, segment, recorded
        with generators_kept(), torch.inference_mode(False), torch.enable_grad():
            self.run: Repeated = repeat()
            _check_environment(stage, recorded.environment, self.run)
            self.modules = self._modules()
            _, self._parameters, self._places = recorded_parameters(self.modules)
            self._load()
            self._random = generator_states(self.run.model)
        self._watched = Watched(self._parameters, self._places)
        self._last = self._watched.fingerprints()
        rows = step_rows(recorded.ledger)
        self._steps = self.run.steps(rows)
        self._rows = list(zip(rows, row_ends(recorded.ledger), strict=True))
        self._next = 0

    @property
    def upcoming(self) -> Row:
        """The row of the next step."""
        return self._rows[self._next][0]

    def advance(self) -> Row:
        """Make the next step.

        Raises
        ------
        ReplayMismatch : the weights after the step differ from the recorded ones; after the last step, also any other
            tensor of the next checkpoint
        """
        caller = generator_states(self.run.model)
        restore_generators(self._random)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                next(self._steps)
        finally:
            self._random = generator_states(self.run.model)
            restore_generators(caller)
        row, ends = self._rows[self._next]
        if ends:
            self._compare(row.step)
        self._next += 1
        if self._next == len(self._rows):
            self._check_chain(row.step)
        return row

    def weights(self, names: Sequence[str], live: Collection[str] = ()) -> dict[str, torch.Tensor]:
        """Return copies of the present parameters, on the CPU; of those in `live` the parameters, which will change."""
        found = {}
        for parameter, (module, part) in zip(self._parameters, self._places, strict=True):
            if parameter.name in names:
                value = getattr(module, part).detach()
                found[parameter.name] = value if parameter.name in live else value.to("cpu", copy=True)
        return found

    def _modules(self) -> dict[str, torch.nn.Module]:
        """Return the program's recorded layers after a comparison with the archive's."""
        try:
            chosen = choose_layers(self.run.model, list(self._recorded.layers))
        except ValueError as error:
            raise ValueError(f"program: {error}") from error
        _, parameters, _ = recorded_parameters(chosen)
        found = {p.name: f"{p.dtype} {p.shape}" for p in parameters}
        for name, there in self._recorded.parameters.items():
            if found.get(name) != f"{there.dtype} {there.shape}":
                raise ValueError(
                    f"program: expected {name} of {there.dtype} {there.shape}, as recorded, found "
                    f"{found.get(name, 'none')}; give the program of the recording"
                )
        return chosen

    def _load(self) -> None:
        """Restore the state before the segment."""
        name = self._segment.before
        data = self._stage.read_file(name)
        try:
            self.run.load(data, f"{self._stage.path}/files/{name}")
        except (RuntimeError, ValueError, KeyError, IndexError) as error:
            first = " ".join(str(error).split())[:200]
            raise ValueError(f"program: expected the recorded network and optimiser, found others: {first}") from error

    def _compare(self, step: int) -> None:
        """Compare the digests of all recorded layers."""
        found, ledger = self._watched.fingerprints(self._recorded.turns[self._next]), self._recorded.ledger
        for name, layer in self._recorded.layers.items():
            if layer_digest(layer, found) != int(ledger[DIGEST + name].iloc[self._next]):
                raise ReplayMismatch(step, name, drift=self._drift(layer, found))
        self._last = found

    def _drift(self, layer: Layer, found: Fingerprints) -> float:
        """Return the estimated drift of a layer in this row, relative to its recorded update; NaN without probes."""
        ledger = self._recorded.ledger
        if PROBES + layer.name not in ledger:
            return float("nan")
        parts = [self._recorded.parameters[name] for name in layer.parameters]
        both = self._last, found
        here = update_probes(parts, [sampled_changes(p, [each[p.name].sample for each in both]) for p in parts])[0]
        there = np.asarray(ledger[PROBES + layer.name].iloc[self._next], np.float64)
        size = float(np.sqrt(np.mean(np.square(there)))) or float(ledger[NORM + layer.name].iloc[self._next])
        return drift(here, there) / size if size else float("inf")

    def _check_chain(self, step: int) -> None:
        """Compare the state with the checkpoint after the segment: weights, buffers and the optimiser's tensors."""
        name = self._segment.after
        there, _ = decode_tensors(self._stage.read_file(name), f"{self._stage.path}/files/{name}")
        here, _ = decode_tensors(self.run.pack(), "the replayed state")
        for key in sorted(there.keys() | here.keys()):
            if key.startswith((RANDOM, SETTING)):  # a loop may draw and set rates between two blocks
                continue
            if not same_tensor(there.get(key), here.get(key)):
                raise ReplayMismatch(step, key.removeprefix("model."), "its state in the next checkpoint")


def row_ends(ledger: pd.DataFrame) -> list[bool]:
    """Return whether each step ends a row: a step outside a gap, or the last of a gap."""
    rows = ledger["row"].to_numpy()
    return [*(rows[1:] != rows[:-1]).tolist(), True][: len(rows)]


def _check_environment(stage: FinishedStage, made: Document, run: Repeated) -> None:
    """Raise StoreError where bits may differ."""
    here = environment_facts(device_of(run.model))
    if (differs := environment_difference(made, here)) is not None:
        raise StoreError(
            f"{stage.path}: expected {differs} {made.get(differs)}, as in the recording, found {here[differs]}; "
            "replay in that environment, or record kind dense or hybrid to read elsewhere"
        )
