"""Stages that several runs make at once: each partition is made once, and what is held is not waited for unasked."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from storage.claims import StageHeldError, claim
from storage.stages import begin_stage
from storage.stores import open_store
from storage.verify import stage_paths
from tasks.steps import life
from tasks.steps.life import Job, Work, complete
from tests.tasks.steps import two_stages
from tests.tasks.steps.two_stages import FIRST, LAYOUT, STEP, both, contents, fill, job_at, start_from


def test_a_partition_that_another_run_has_made_is_not_made_again(job: Job) -> None:
    stage = begin_stage(job.store, FIRST, LAYOUT)
    work = life.assignments([stage], "cpu", group=None)
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
        thread.join(300)
    assert failures == []
    assert sorted(made) == [(label, number) for label in "123" for number in (0, 1)]
    alone = job_at(tmp_path / "alone")
    complete(alone, STEP, start_from(1, 2, 3))
    assert contents(open_store(str(tmp_path / "store"))) == contents(alone.store)


RUN = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("two_stages", sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules["two_stages"] = module
spec.loader.exec_module(module)
job = module.job_at(Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
module.both(job)
print(job.observer.lines.count("advance"))
"""


def test_two_processes_at_once_end_with_the_same_bytes(tmp_path: Path) -> None:
    job_at(tmp_path / "store")
    command = [sys.executable, "-c", RUN, two_stages.__file__, str(tmp_path / "store")]
    runs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    made = [int(run.communicate(timeout=300)[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sum(made) == 4
    alone = job_at(tmp_path / "alone")
    both(alone)
    assert contents(open_store(str(tmp_path / "store"))) == contents(alone.store)
