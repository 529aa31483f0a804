"""Progress lines of running trainings, one for each epoch, and curves of finished ones as rows."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from storage.documents import DamagedError, Document
from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import find_finished, read_marker
from storage.stores import Store

LINE_EVERY = 10.0  # seconds between two lines within an epoch


class CurveReader:
    """Reads the partition records of trainings as they appear.

    Parameters
    ----------
    store : the store that holds the stages
    file : name of the file with a row per epoch; "" where the stages do not train
    specs : stages of one kind
    """

    def __init__(self, store: Store, file: str, specs: Sequence[StageSpec]) -> None:
        self._store, self._file = store, file
        self._trainings = list(specs) if file else []
        self._next: dict[str, int] = {}
        self._printed = time.monotonic()

    def begin(self) -> None:
        """Skip the records that are there already."""
        for spec in self._trainings:
            self._next[spec.path] = 0
            while self._marker(spec) is not None:
                self._next[spec.path] += 1

    def lines(self) -> Iterator[str]:
        """Yield a line for each epoch that ended since the last call, and sometimes one for the epoch in progress."""
        for spec in self._trainings:
            while (numbers := self._marker(spec)) is not None:
                number = self._next[spec.path]
                self._next[spec.path] += 1
                lines = [_cost_line(spec, numbers["step_seconds"])] if "step_seconds" in numbers else []
                lines += [_line(spec, epoch) for epoch in numbers["epochs"]]
                if not lines and time.monotonic() - self._printed > LINE_EVERY:
                    steps = number * int(spec.place["train"]["checkpoint_every"]) + len(numbers["losses"])
                    lines = [f"{spec.title}: {steps} steps, loss {np.mean(numbers['losses']):.4f}"]
                if lines:
                    self._printed = time.monotonic()
                yield from lines

    def tables(self) -> Iterator[tuple[StageSpec, list[Document]]]:
        """Yield every finished training with a row per epoch: epoch, loss, accuracy, lr where it varies."""
        for spec in self._trainings:
            if (finished := find_finished(self._store, spec.path)) is not None:
                table = read_table(finished.read_file(self._file), f"{spec.path}/files/{self._file}")
                yield spec, [{str(key): row[key] for key in row} for row in table.to_dict("records")]

    def _marker(self, spec: StageSpec) -> Document | None:
        """Return the metrics of the next segment, or None where it is not there."""
        try:
            numbers: Document = read_marker(self._store, spec.path, self._next[spec.path])["numbers"]
        except (FileNotFoundError, DamagedError):
            return None
        return numbers


def _line(spec: StageSpec, epoch: Document) -> str:
    """Return the progress line of an epoch."""
    parts = [f"epoch {epoch['epoch']} of {spec.place['train']['epochs']}"]
    shown = {"loss": ".4f", "accuracy": ".4f", "lr": ".3g"}
    more = {key: ".4f" for key in epoch if key not in {"epoch", *shown}}  # what companions measure
    parts += [f"{key.replace('_', ' ')} {epoch[key]:{form}}" for key, form in (shown | more).items()]
    return f"{spec.title}: {', '.join(parts)}"


def _cost_line(spec: StageSpec, seconds: Document) -> str:
    """Return the line with the times of a step, plain and with each companion."""
    times = [f"{1000 * seconds[name]:.2f} ms with {name}" for name in seconds if name != "plain"]
    return f"{spec.title}: a step takes {1000 * seconds['plain']:.2f} ms, {', '.join(times)}"
