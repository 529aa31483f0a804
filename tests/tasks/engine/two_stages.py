"""Two small stages, the second made from the first, and what an observer hears while they are made."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store, open_store
from storage.verify import stage_paths
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import Job, complete, measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey

LAYOUT = Layout(
    2,
    {
        "x": ArrayLayout((6, 2), "float32", ("n", "d"), 4, 2),
        "y": ArrayLayout((6,), "int64", ("n",), 4, 4),
    },
)
FIRST = StageSpec("first", 1, {"start": 1}, label="one")
SECOND = StageSpec("second", 1, inputs={"from": FIRST}, label="two")


@dataclass
class Heard:
    """An observer that keeps what it gets."""

    lines: list[str] = field(default_factory=list)

    def begin(self, title: str, total: int, done: int) -> None:
        self.lines.append(f"begin {done}/{total}")

    def advance(self, title: str) -> None:
        self.lines.append("advance")

    def end(self, title: str, seconds: float) -> None:
        assert seconds >= 0
        self.lines.append(f"end {title}")

    def say(self, text: str) -> None:
        self.lines.append(text)


def job_at(place: Path) -> Job:
    return Job(open_store(str(place), create=True), SerialPool(), Heard(), "a test")


def lines(job: Job) -> list[str]:
    """What the job's observer heard."""
    assert isinstance(job.observer, Heard)
    return job.observer.lines


def layout(store: Store, spec: StageSpec) -> Layout:
    return LAYOUT


def fill(stage: Stage, number: int) -> None:
    """Write a partition: the first stage counts from its parameter, the second doubles what the first has."""
    start, stop = LAYOUT.arrays["x"].span(number)
    if stage.spec.inputs:
        x = np.asarray(open_finished(stage.store, stage.spec.inputs["from"]).read("x", start, stop)) * 2
    else:
        x = np.arange(2 * start, 2 * stop, dtype=np.float32).reshape(-1, 2) + stage.spec.parameters["start"]
    with stage.partition(number) as part:
        part.write("x", x.astype(np.float32))
        part.write("y", np.zeros(stop - start, np.int64))
        part.write_file(f"table-{number}", x.tobytes())
        part.numbers.update(measured())


def partition(work: Work, number: int) -> None:
    fill(work.stage, number)


def size(spec: StageSpec, survey: Survey) -> Size:
    return Size(LAYOUT.n_bytes, LAYOUT.n_bytes)


STEP = Step("any", 1, layout, partition, size, summary=lambda stage: {"rows": LAYOUT.arrays["x"].shape[0]})


def both(job: Job) -> FinishedStage:
    """The life of two stages, one of which reads the other."""
    complete(job, STEP, [FIRST])
    return complete(job, STEP, [SECOND])[0]


def contents(store: Store) -> dict[str, bytes]:
    """Every object of every stage but the partition records, which have times."""
    found = {}
    for path in stage_paths(store):
        for name in store.files(path):
            if re.fullmatch(r"markers/\d+\.json", name) is None:
                found[f"{path}/{name}"] = store.read(f"{path}/{name}")
    return found


def start_from(*numbers: int) -> list[StageSpec]:
    return [StageSpec("first", 1, {"start": number}, label=str(number)) for number in numbers]
