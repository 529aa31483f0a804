"""A toy stage: three partitions of a sharded array, a plain one and a file."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from storage import claims
from storage.claims import Clock
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, begin_stage
from storage.stores import Store, open_store

LAYOUT = Layout(
    3,
    {
        "maps": ArrayLayout((10, 3), "float32", ("sample", "channel"), 4, 2),
        "label": ArrayLayout((10,), "int64", ("sample",), 4, 4),
    },
)
VALUES: dict[str, NDArray[np.generic]] = {
    "maps": np.arange(30, dtype=np.float32).reshape(10, 3) / 8,
    "label": np.arange(10) // 4,
}


@dataclass(frozen=True)
class Toy:
    """A stage to be made in a store, and what it holds."""

    store: Store
    spec: StageSpec
    layout: Layout

    def begin(self) -> Stage:
        return begin_stage(self.store, self.spec, self.layout)

    def write(self, stage: Stage, number: int) -> None:
        with stage.partition(number) as part:
            start, stop = part.span
            for name, values in VALUES.items():
                part.write(name, values[start:stop])
            part.write_file(f"table-{number}", b"row %d" % number)

    def make(self) -> FinishedStage:
        stage = self.begin()
        for number in stage.missing():
            self.write(stage, number)
        return stage.seal({"rows": 10})

    def file(self, name: str) -> Path:
        """A file of the stage."""
        return Path(self.store.path(self.spec.path, name))

    def contents(self) -> dict[str, bytes]:
        """Every object of the stage."""
        names = self.store.files(self.spec.path)
        return {name: self.store.read(f"{self.spec.path}/{name}") for name in names}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), create=True)


@pytest.fixture
def far(tmp_path: Path) -> Store:
    """A store that is not local, as on S3."""
    return open_store(f"memory://bucket/{tmp_path.name}", create=True)


@pytest.fixture(params=["local", "far"])
def any_store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue("store" if request.param == "local" else "far")
    return found


@dataclass
class SkewedClock:
    """A clock that is an hour off; waiting for it takes no time, and `meanwhile` happens at each wait."""

    seconds: float = 3600.0
    waits: list[float] = field(default_factory=list)
    meanwhile: Callable[[int], None] = lambda _: None

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.seconds += seconds
        self.meanwhile(len(self.waits))

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.sleep)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hearts beat fast; a note counts as long as in earnest, however long this machine stalls."""
    monkeypatch.setattr(claims, "RENEWAL", 0.02)
    monkeypatch.setattr(claims, "POLL", 0.005)
    monkeypatch.setattr(claims, "NOTE_POLL", 0.005)


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Wait until something holds, a minute at most."""

    def wait(holds: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end
            time.sleep(0.002)

    return wait


@pytest.fixture
def toy_of() -> Callable[[Store], Toy]:
    return lambda store: Toy(store, StageSpec("toy", 1, {"a": 1}, label="of tests"), LAYOUT)


@pytest.fixture
def toy(store: Store, toy_of: Callable[[Store], Toy]) -> Toy:
    return toy_of(store)


@pytest.fixture
def any_toy(any_store: Store, toy_of: Callable[[Store], Toy]) -> Toy:
    """The toy stage on disk, and in a store that is none: the code path of S3."""
    return toy_of(any_store)


@pytest.fixture
def values() -> dict[str, NDArray[np.generic]]:
    return VALUES
