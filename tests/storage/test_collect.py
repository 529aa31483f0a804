import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storage.claims import StageHeldError, claim
from storage.collect import find_garbage, remove_stage
from storage.layouts import Layout
from storage.runs import write_record
from storage.specs import StageSpec
from storage.stages import begin_stage, find_finished
from storage.stores import Store
from storage.verify import stage_paths, verify_stage

if TYPE_CHECKING:
    from tests.storage.conftest import Toy


def age(store: Store, path: str, hours: float) -> None:
    """Let the objects below `path` look written `hours` ago."""
    for name in store.files(path):
        file = Path(store.path(path, name))
        os.utime(file, (file.stat().st_mtime - 3600 * hours,) * 2)


def test_what_a_run_refers_to_is_no_garbage(toy: "Toy") -> None:
    toy.make()
    age(toy.store, toy.spec.path, 100)
    write_record(toy.store, "a", {}, [toy.spec], {})
    assert list(find_garbage(toy.store, 0)) == []


def test_old_stages_are_garbage_young_ones_are_kept(toy: "Toy") -> None:
    toy.make()
    age(toy.store, toy.spec.path, 2.5)
    (old,) = find_garbage(toy.store, 2)
    assert (old.path, old.kept) == (toy.spec.path, "")
    assert old.size == sum(len(data) for data in toy.contents().values())
    (young,) = find_garbage(toy.store, 3)
    assert young.kept == "written 2.5 h ago"


def test_one_young_object_keeps_a_stage(toy: "Toy") -> None:
    toy.make()
    age(toy.store, toy.spec.path, 50)
    os.utime(toy.file("files/table-1"))
    (found,) = find_garbage(toy.store, 24)
    assert found.kept == "written 0.0 h ago"


def test_claimed_stages_are_kept(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    with claim(toy.store, toy.spec.path, "run x"):
        (found,) = find_garbage(toy.store, 0)
        assert (
            found.kept == f"{toy.spec.path.replace('/', '-')} is held by run x (pid {os.getpid()} on {os.uname()[1]})"
        )
        with pytest.raises(StageHeldError, match="is held by run x"):
            remove_stage(toy.store, toy.spec.path)
    assert toy.begin().missing() == [1, 2]


def test_a_removed_stage_is_gone(toy: "Toy") -> None:
    toy.make()
    remove_stage(toy.store, toy.spec.path)
    assert stage_paths(toy.store) == []
    assert not toy.file("").exists()


def test_a_removal_broken_anywhere_leaves_nothing_that_looks_whole(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    unlink, broken = os.unlink, True
    for last in range(99):
        toy.make()
        left = iter([True] * last)

        def break_off(path: str, *, dir_fd: int | None = None, left: object = left) -> None:
            if not next(left, False):  # type: ignore[call-overload]  # an iterator
                raise OSError(5, "Input/output error")
            unlink(path, dir_fd=dir_fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", break_off)
            try:
                remove_stage(toy.store, toy.spec.path)
                broken = False
            except OSError:
                assert last == 0 or find_finished(toy.store, toy.spec.path) is None
        if not broken:
            break
        toy.make()
        assert list(verify_stage(toy.store, toy.spec.path)) == []
    assert last == 17  # note, 3 markers, 3 files, 3 metadata, 6 shards, the claim: each was the last one once


def test_the_archive_of_a_recorder_is_no_garbage(store: Store) -> None:
    stage = begin_stage(store, StageSpec("updates", 1), Layout(0, open_ended=True))
    with stage.partition(0):
        pass
    assert list(find_garbage(store, 0)) == []
    stage.seal({"steps": 1})
    age(store, stage.spec.path, 100)
    assert list(find_garbage(store, 0)) == []
