"""Stages whose making is killed, finds the disk full or is interrupted: another run ends with the same bytes."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from storage.stages import find_finished
from storage.stores import Store
from storage.verify import stage_paths, verify_stage
from tasks.cluster.parallel import PartitionError
from tasks.engine import stops
from tasks.engine.life import Job, complete
from tasks.engine.step import Work
from tests.tasks.engine.two_stages import STEP, both, contents, fill, job_at, start_from


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
    """Die before a write or in the middle of it, which both writers do into a file in the folder of the target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}.0123.partial").write_bytes(b"torn")
    raise KilledError


def fill_disk(target: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))


WRITES = 2 * (1 + 2 + 2 * 4 + 1)  # of a stage: group, metadata; shards, file, record; completion


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


def test_an_interruption_that_a_partition_swallows_ends_the_stage_after_it(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stops, "_seen", [])
    made: list[int] = []

    def swallow(work: Work, number: int) -> None:
        with suppress(KeyboardInterrupt):  # as a finalizer does, or a library
            stops._stop(2, None)
        made.append(number)
        fill(work.stage, number)

    with pytest.raises(KeyboardInterrupt):
        complete(job, replace(STEP, partition=swallow), start_from(1))
    assert made == [0]
    monkeypatch.setattr(stops, "_seen", [])
    assert complete(job, STEP, start_from(1))[0].layout.partitions == 2
