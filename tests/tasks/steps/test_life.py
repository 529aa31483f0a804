import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from configs.schema import Config
from storage.claims import StageHeldError, claim
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, begin_stage, find_finished, open_finished
from storage.stores import Store, open_store
from storage.verify import stage_paths, verify_stage
from tasks.parallel import PartitionError, SerialPool
from tasks.steps import life
from tasks.steps.life import Job, Step, Work, complete, measured, open_job, peak_memory_mb, reset_peak_memory

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
    """An observer that keeps what it is told."""

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


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return job_at(tmp_path / "store")


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


STEP = Step(layout, partition, lambda stage: {"rows": LAYOUT.arrays["x"].shape[0]})


def both(job: Job) -> FinishedStage:
    """The life of two stages, one of which reads the other."""
    complete(job, STEP, [FIRST])
    return complete(job, STEP, [SECOND])[0]


def contents(store: Store) -> dict[str, bytes]:
    """Every object of every stage but the markers of partitions, which tell times."""
    found = {}
    for path in stage_paths(store):
        for name in store.files(path):
            if re.fullmatch(r"markers/\d+\.json", name) is None:
                found[f"{path}/{name}"] = store.read(f"{path}/{name}")
    return found


def start_from(*numbers: int) -> list[StageSpec]:
    return [StageSpec("first", 1, {"start": number}, label=str(number)) for number in numbers]


def test_two_stages_are_made_one_from_the_other(job: Job) -> None:
    second = both(job)
    np.testing.assert_array_equal(second.read("x"), 2 * (np.arange(12).reshape(6, 2) + 1))
    assert second.summary == {"rows": 6}
    assert lines(job) == [
        "begin 0/2",
        "advance",
        "advance",
        f"end {FIRST.title}",
        "begin 0/2",
        "advance",
        "advance",
        f"end {SECOND.title}",
    ]


def test_what_is_complete_is_left_alone(job: Job) -> None:
    both(job)
    before, heard = contents(job.store), len(lines(job))
    both(job)
    assert contents(job.store) == before
    assert len(lines(job)) == heard


def test_a_stage_asked_for_twice_is_made_once_and_returned_twice(job: Job) -> None:
    one, two = complete(job, STEP, [FIRST, FIRST])
    assert one.path == two.path
    assert lines(job) == ["begin 0/2", "advance", "advance", f"end {FIRST.title}"]


def test_no_stages_are_no_work(job: Job) -> None:
    assert complete(job, STEP, []) == []
    assert lines(job) == []


def test_a_rerun_makes_only_what_is_missing(job: Job) -> None:
    made: list[tuple[str, int]] = []

    def watch(work: Work, number: int) -> None:
        if not made:
            made.append((work.stage.spec.label, number))
            raise RuntimeError("no luck")
        made.append((work.stage.spec.label, number))
        fill(work.stage, number)

    step = replace(STEP, partition=watch)
    with pytest.raises(PartitionError):
        complete(job, step, start_from(1, 2))
    complete(job, step, start_from(1, 2))
    assert made == [("1", 0), ("1", 1), ("2", 0), ("2", 1), ("1", 0)]
    assert "begin 1/2" in lines(job)


def test_a_failing_partition_is_named_and_does_not_stop_the_others(job: Job) -> None:
    good, bad = start_from(1, 2)

    def fail(work: Work, number: int) -> None:
        if work.stage.spec == bad and number == 0:
            raise ValueError("layer 'conv': NaN in sample 7")
        fill(work.stage, number)

    with pytest.raises(PartitionError) as caught:
        complete(job, replace(STEP, partition=fail), [bad, good])
    assert str(caught.value) == f"partition 0 of {bad.title}: layer 'conv': NaN in sample 7"
    assert isinstance(caught.value.__cause__, ValueError)
    assert find_finished(job.store, good.path) is not None  # sealed, since it is whole
    assert find_finished(job.store, bad.path) is None
    assert lines(job) == ["begin 0/4", "advance", "advance", "advance"]
    complete(job, STEP, [bad])
    assert lines(job)[4:] == ["begin 1/2", "advance", f"end {bad.title}"]


def test_several_failures_are_counted(job: Job) -> None:
    def fail(work: Work, number: int) -> None:
        raise RuntimeError(f"no luck with {number}")

    with pytest.raises(PartitionError, match=r"^partition 0 of .*: no luck with 0 \(2 of 2 partitions failed\)$"):
        complete(job, replace(STEP, partition=fail), [FIRST])


def test_together_a_partition_is_made_for_all_stages_that_lack_it(job: Job) -> None:
    calls: list[tuple[int, list[str]]] = []

    def each(work: Work, number: int) -> None:
        calls.append((number, [stage.spec.label for stage in work.stages]))
        for stage in work.stages:
            fill(stage, number)

    fill(begin_stage(job.store, start_from(1)[0], LAYOUT), 1)
    complete(job, replace(STEP, partition=each, together=True), start_from(1, 2))
    assert calls == [(0, ["1", "2"]), (1, ["2"])]


def test_together_a_rerun_asks_for_each_partition_only_where_it_lacks(job: Job) -> None:
    calls: list[tuple[int, list[str]]] = []

    def each(work: Work, number: int) -> None:
        calls.append((number, [stage.spec.label for stage in work.stages]))
        for stage in work.stages:
            if len(calls) == 1 and stage.spec.label == "2":
                raise RuntimeError("no luck")
            fill(stage, number)

    step = replace(STEP, partition=each, together=True)
    with pytest.raises(PartitionError, match="no luck"):
        complete(job, step, start_from(1, 2))
    one, two = complete(job, step, start_from(1, 2))
    assert calls == [(0, ["1", "2"]), (1, ["1", "2"]), (0, ["2"])]
    np.testing.assert_array_equal(np.asarray(two.read("x")) - np.asarray(one.read("x")), np.ones((6, 2)))


def test_chains_go_step_by_step(job: Job) -> None:
    calls: list[tuple[str, int]] = []

    def link(work: Work, number: int) -> None:
        assert number == 0 or work.stage.marker(number - 1) is not None
        calls.append((work.stage.spec.label, number))
        fill(work.stage, number)

    complete(job, replace(STEP, partition=link, chain=True), start_from(1, 2))
    assert calls == [("1", 0), ("2", 0), ("1", 1), ("2", 1)]


def test_a_broken_chain_does_not_stop_another(job: Job) -> None:
    bad, good = start_from(1, 2)
    calls: list[tuple[str, int]] = []

    def link(work: Work, number: int) -> None:
        calls.append((work.stage.spec.label, number))
        if work.stage.spec == bad:
            raise RuntimeError("no luck")
        fill(work.stage, number)

    with pytest.raises(PartitionError, match=rf"^partition 0 of {re.escape(bad.title)}: no luck$"):
        complete(job, replace(STEP, partition=link, chain=True), [bad, good])
    assert calls == [("1", 0), ("2", 0), ("2", 1)]
    assert find_finished(job.store, good.path) is not None


def test_a_stage_that_goes_on_is_checked_before_its_work_is_counted(job: Job) -> None:
    complete_first = replace(STEP, check=lambda stage: stage.store.remove(f"{stage.spec.path}/markers/000001.json"))

    def fail_late(work: Work, number: int) -> None:
        raise RuntimeError("no luck")

    stage = begin_stage(job.store, FIRST, LAYOUT)
    fill(stage, 1)
    with pytest.raises(PartitionError, match="2 of 2 partitions failed"):
        complete(job, replace(complete_first, partition=fail_late), [FIRST])


def test_a_partition_that_another_run_has_made_is_not_made_again(job: Job) -> None:
    stage = begin_stage(job.store, FIRST, LAYOUT)
    work = life.assignments([stage], "cpu", together=False)
    fill(stage, 0)
    calls: list[int] = []
    for item in work:
        life.run_partition(lambda _, number: calls.append(number), item)
    assert calls == [1]
    assert [str(item) for item in work] == [f"0 of {FIRST.title}", f"1 of {FIRST.title}"]


def test_a_held_stage_is_not_waited_for_unless_asked(job: Job) -> None:
    with (
        claim(job.store, FIRST.path, "run x"),
        pytest.raises(StageHeldError, match="is held by run x"),
    ):
        complete(replace(job, wait=False), STEP, [FIRST])
    assert stage_paths(job.store) == []


def test_two_runs_at_once_share_the_work(tmp_path: Path) -> None:
    made: list[tuple[str, int]] = []
    failures: list[BaseException] = []
    ready = threading.Barrier(2)

    def count(work: Work, number: int) -> None:
        made.append((work.stage.spec.label, number))
        fill(work.stage, number)

    def run() -> None:
        try:
            ready.wait()
            complete(job_at(tmp_path / "store"), replace(STEP, partition=count), start_from(1, 2, 3))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert sorted(made) == [(label, number) for label in "123" for number in (0, 1)]
    alone = job_at(tmp_path / "alone")
    complete(alone, STEP, start_from(1, 2, 3))
    assert contents(open_store(str(tmp_path / "store"))) == contents(alone.store)


RUN = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("life_test", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["life_test"] = module
spec.loader.exec_module(module)
job = module.job_at(Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
module.both(job)
print(job.observer.lines.count("advance"))
"""


def test_two_processes_at_once_end_with_the_same_bytes(tmp_path: Path) -> None:
    job_at(tmp_path / "store")
    command = [sys.executable, "-c", RUN, __file__, str(tmp_path / "store")]
    runs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    made = [int(run.communicate(timeout=60)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum(made) == 4
    alone = job_at(tmp_path / "alone")
    both(alone)
    assert contents(open_store(str(tmp_path / "store"))) == contents(alone.store)


class KilledError(BaseException):
    """Stands for a SIGKILL: nothing catches it, and no write comes after it."""


def break_at(patch: pytest.MonkeyPatch, last: int, fault: Callable[[Path], None]) -> None:
    """Let `fault` take the place of the write number `last`, and of all later ones if it raised KilledError."""
    import zarr.storage._local as local

    write, put, count = Store.write, local._put, iter(range(10**6))
    dead: list[bool] = []

    def turn(target: Path) -> None:
        if dead or next(count) == last:
            try:
                fault(target)
            except KilledError:
                dead.append(True)
                raise

    def object_write(self: Store, path: str, data: bytes) -> None:
        turn(Path(self.path(path)))
        write(self, path, data)

    def array_write(path: Path, value: object, exclusive: bool = False) -> int:
        turn(path)
        return put(path, value, exclusive)  # type: ignore[arg-type]  # passed on as given

    patch.setattr(Store, "write", object_write)
    patch.setattr(local, "_put", array_write)


def tear(target: Path) -> None:
    """Die before a write or in the middle of it, which both writers do into a file beside the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}.0123.partial").write_bytes(b"torn")
    raise KilledError


def fill_disk(target: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


WRITES = 2 * (2 + 2 + 2 * 4 + 1)  # of a stage: group, attributes, metadata; shards, file, marker; completion


@pytest.mark.parametrize("fault", [tear, fill_disk])
def test_a_crash_between_any_two_writes_is_made_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no machine crashes here, and it takes time
    whole = job_at(tmp_path / "whole")
    both(whole)
    expected = contents(whole.store)
    broken: list[str] = []
    for last in range(WRITES + 1):
        job = job_at(tmp_path / str(last))
        with pytest.MonkeyPatch.context() as patch:
            break_at(patch, last, fault)
            try:
                both(job)
                assert last == WRITES
            except KilledError:
                pass
            except (PartitionError, OSError) as error:
                broken.append(str(error))
        for path in stage_paths(job.store):
            assert list(verify_stage(job.store, path)) == []
            finished = find_finished(job.store, path)
            assert finished is None or finished.summary == {"rows": 6}
        both(job)
        assert contents(job.store) == expected, last
    assert all("No space left on device" in text for text in broken)
    assert len(broken) == (WRITES if fault is fill_disk else 0)


def test_an_interruption_seals_what_is_whole(job: Job) -> None:
    one, two = start_from(1, 2)

    def interrupt(work: Work, number: int) -> None:
        if work.stage.spec == two:
            raise KeyboardInterrupt
        fill(work.stage, number)

    with pytest.raises(KeyboardInterrupt):
        complete(job, replace(STEP, partition=interrupt), [one, two])
    assert find_finished(job.store, one.path) is not None
    assert find_finished(job.store, two.path) is None


def test_a_job_is_opened_from_a_config(tiny_tree: dict[str, object]) -> None:
    config = Config.model_validate(tiny_tree)
    with open_job(config, Heard(), wait=False) as job:
        assert isinstance(job.pool, SerialPool)
        assert job.holder.startswith("run tiny of ")
        assert not job.wait
        assert Path(job.store.root, "layerlore-store").read_text() == "1\n"
        complete(job, STEP, [FIRST])


def test_peak_memory_rises_with_an_array() -> None:
    reset_peak_memory()
    before = peak_memory_mb()
    block = np.ones(2**23 + int(before) * 2**17)  # 64 MB more than the process has ever held
    assert peak_memory_mb() - before > 60
    del block
    found = measured(rows=3)
    assert found["rows"] == 3
    assert found["pid"] == os.getpid()
    assert found["peak_mb"] > 10


def test_peak_memory_is_nothing_where_the_kernel_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: str, mode: str = "r") -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr("builtins.open", closed)
    reset_peak_memory()
    found = peak_memory_mb()
    monkeypatch.undo()
    assert found == 0.0
