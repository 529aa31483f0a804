import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storage.claims import StageHeldError, claim, store_time
from storage.collect import find_garbage, remove_garbage, remove_stage
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


@pytest.mark.parametrize("hours", [-7.0, 7.0])
def test_a_clock_that_is_off_makes_no_stage_old_or_young(
    toy: "Toy", hours: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store dates its objects by a clock of its own, hours ahead of ours or behind."""
    toy.make()
    age(toy.store, toy.spec.path, 2.5)
    modified, writes = Store.modified, time.time
    monkeypatch.setattr(Store, "modified", lambda store, path: modified(store, path) + 3600 * hours)
    (old,) = find_garbage(toy.store, 2)
    (young,) = find_garbage(toy.store, 3)
    assert (old.kept, young.kept) == ("", "written 2.5 h ago")
    monkeypatch.setattr(time, "time", lambda: writes() + 3600 * hours)
    (old,) = find_garbage(toy.store, 2)
    assert old.kept == ""
    assert toy.store.names("_claims") == [f"{toy.spec.path.replace('/', '-')}.lock"]


def test_a_stage_of_the_future_is_kept_and_resumed(toy: "Toy") -> None:
    toy.write(toy.begin(), 0)
    age(toy.store, toy.spec.path, -30)
    (found,) = find_garbage(toy.store, 24)
    assert found.kept == "written in the future, by the store's clock"
    assert toy.begin().missing() == [1, 2]
    toy.make()
    age(toy.store, toy.spec.path, -30)
    assert list(verify_stage(toy.store, toy.spec.path)) == []


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
    assert (
        last == 17
    )  # completion record, 3 partition records, 3 files, 3 metadata, 6 shards, the claim: each was the last one once


def test_the_archive_of_a_recorder_is_no_garbage(store: Store) -> None:
    stage = begin_stage(store, StageSpec("updates", 1), Layout(0, open_ended=True))
    with stage.partition(0):
        pass
    assert list(find_garbage(store, 0)) == []
    stage.seal({"steps": 1})
    age(store, stage.spec.path, 100)
    assert list(find_garbage(store, 0)) == []


def test_what_was_killed_while_looking_at_the_clock_is_garbage_after_an_hour(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(store: Store, path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Store, "modified", kill)
    monkeypatch.setattr(Store, "remove", kill)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            store_time(store)
    monkeypatch.undo()
    old, young = (f"_claims/{name}" for name in store.names("_claims"))
    store.write("_claims/toy-0123.json", b"{}")
    for path, hours in {old: 1.1, young: 0.9, "_claims/toy-0123.json": 100.0}.items():
        age(store, path, hours) if path in (old, young) else os.utime(
            store.path(path), (time.time() - 3600 * hours,) * 2
        )
    (found,) = find_garbage(store, 24)
    assert (found.path, found.kept) == (old, "")
    remove_garbage(store, old)
    assert list(find_garbage(store, 0)) == []
    assert [f"_claims/{name}" for name in store.names("_claims")] == [young, "_claims/toy-0123.json"]
