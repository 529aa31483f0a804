import errno
import os
import pickle
from pathlib import Path

import fsspec
import pytest

from storage.stores import FORMAT_FILE, Store, StoreError, open_store


@pytest.fixture(params=["local", "memory"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store on disk, and one that is none: the code path of S3."""
    url = str(tmp_path / "store") if request.param == "local" else f"memory://bucket/{tmp_path.name}"
    return open_store(url, create=True)


def test_objects_come_back(any_store: Store) -> None:
    any_store.write("a/b/x", b"1")
    any_store.write("a/y", b"23")
    any_store.write("a/y", b"456")
    assert any_store.read("a/y") == b"456"
    assert any_store.exists("a/y")
    assert not any_store.exists("a/z")
    assert any_store.names("a") == ["b", "y"]
    assert any_store.names("") == ["a", FORMAT_FILE]
    assert any_store.files("a") == {"b/x": 1, "y": 3}
    assert any_store.files("") == {"a/b/x": 1, "a/y": 3, FORMAT_FILE: 2}
    assert any_store.size("a/y") == 3


def test_what_is_not_there_is_nothing(any_store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        any_store.read("a")
    assert any_store.names("a") == []
    assert any_store.files("a") == {}
    assert any_store.size("a") == 0
    assert any_store.modified("a") == 0.0
    any_store.remove("a")


def test_removal_takes_an_object_or_all_below(any_store: Store) -> None:
    for name in ("a/x", "a/y/z", "b"):
        any_store.write(name, b"1")
    any_store.remove("a/x")
    assert any_store.files("a") == {"y/z": 1}
    any_store.remove("a")
    assert any_store.files("") == {"b": 1, FORMAT_FILE: 2}


def test_the_newest_object_dates_a_folder(any_store: Store) -> None:
    any_store.write("a/x", b"1")
    first = any_store.modified("a")
    assert first > 1.7e9
    any_store.write("a/y/z", b"1")
    assert any_store.modified("a") >= first
    if any_store.local:
        os.utime(any_store.path("a/x"), (9e9, 9e9))
        assert any_store.modified("a") == 9e9


def test_a_store_is_opened_again_from_its_url(any_store: Store) -> None:
    any_store.write("x", b"1")
    copy: Store = pickle.loads(pickle.dumps(any_store))  # noqa: S301  # as Dask sends it
    assert copy == any_store
    assert copy.read("x") == b"1"
    assert open_store(any_store.url).read("x") == b"1"


def test_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Store("lore").root == str(tmp_path / "lore")
    assert Store(f"file://{tmp_path}/lore").root == str(tmp_path / "lore")
    assert Store(f"file://{tmp_path}/lore").local
    assert Store("s3://bucket/a/b/").root == "bucket/a/b"
    assert not Store("s3://bucket").local
    assert Store("s3://bucket/a").path("x", "y") == "s3://bucket/a/x/y"
    assert Store("s3://bucket/a/").path() == "s3://bucket/a"


def test_a_missing_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="expected a layerlore store, found none; `layerlore run` makes one") as caught:
        open_store(str(tmp_path / "none"))
    assert str(caught.value).startswith(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_a_newer_format_is_refused(store: Store) -> None:
    store.write(FORMAT_FILE, b"2\n")
    with pytest.raises(
        StoreError, match=r"expected a store of format 1 or older, found 2, which a newer layerlore wrote"
    ):
        open_store(store.url)


@pytest.mark.parametrize("held", [b"", b"one", b"0", b"-1", b"1.0", b"\xff\xfe", b"\0" * 30])
def test_a_damaged_format_is_refused(store: Store, held: bytes) -> None:
    store.write(FORMAT_FILE, held)
    with pytest.raises(StoreError, match=r"layerlore-store: expected a format number, found b?['\"].*['\"], damaged"):
        open_store(store.url, create=True)


def test_an_unknown_protocol_gets_one_line() -> None:
    with pytest.raises(StoreError, match=r"^nowhere://x: cannot be opened: Protocol not known"):
        open_store("nowhere://x", create=True)


def test_a_protocol_whose_package_is_absent_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(protocol: str, **options: object) -> None:
        raise ImportError("Please install gcsfs")

    monkeypatch.setattr(fsspec, "filesystem", absent)
    with pytest.raises(StoreError, match=r"^gs://x: cannot be opened: Please install gcsfs$"):
        open_store("gs://x")


def test_a_place_below_a_file_cannot_hold_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "store"
    with pytest.raises(StoreError, match="cannot write a store here: Not a directory; choose another `store`"):
        open_store(str(place), create=True)


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_place_without_permission_or_space_gets_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(self: Path, **options: bool) -> None:
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError) as caught:
        open_store(str(tmp_path / "s"), create=True)
    expected = f"{tmp_path / 's'}: cannot write a store here: {os.strerror(code)}; choose another `store`"
    assert str(caught.value) == expected


def test_a_failing_write_leaves_the_old_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a/x", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left on device"):
            store.write("a/x", b"new")
    assert store.read("a/x") == b"old"
    assert store.files("a") == {"x": 3}


def test_unfinished_files_do_not_count_and_are_swept(store: Store) -> None:
    store.write("a/b/x", b"1")
    Path(store.path("a/b/.x.0123.partial")).write_bytes(b"torn")
    assert store.names("a/b") == ["x"]
    store.sweep("a")
    assert store.files("a") == {"b/x": 1}
    store.sweep("none")


def test_a_store_that_another_run_makes_meanwhile_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "store"
    read = Store.read

    def late(store: Store, path: str) -> bytes:
        monkeypatch.setattr(Store, "read", read)  # this once: the other run is a moment later
        open_store(str(place), create=True).write("_claims/a.lock", b"")
        raise FileNotFoundError(path)

    monkeypatch.setattr(Store, "read", late)
    assert open_store(str(place), create=True).names("") == ["_claims", "layerlore-store"]


def test_a_folder_of_others_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"expected a layerlore store or an empty folder, found one with photo\.jpg"):
        open_store(str(tmp_path), create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
