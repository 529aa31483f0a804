"""A store on each server: objects, arrays, and what is said when something is wrong."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from configs.load import load_config
from flows.progress import existing_store
from storage import claims, s3
from storage.documents import DamagedError
from storage.layouts import ArrayLayout, Layout
from storage.s3 import S3Error
from storage.specs import StageSpec
from storage.stages import Stage, begin_stage, find_finished
from storage.stores import FORMAT_FILE, Store, StoreError, open_store
from tests.s3.fault_proxy import FAULTS

if TYPE_CHECKING:
    from tests.s3.conftest import Server

pytestmark = [pytest.mark.s3, pytest.mark.timeout(600)]

Reaching = Callable[["Server"], AbstractContextManager[pytest.MonkeyPatch]]
Spoilt = Callable[..., AbstractContextManager[tuple["Server", dict[str, int]]]]

LAYOUT = Layout(
    2,
    {
        "maps": ArrayLayout((8, 3), "float32", ("sample", "channel"), 4, 2),
        "label": ArrayLayout((8,), "int64", ("sample",), 4, 4),
    },
)
SPEC = StageSpec("toy", 1, {"a": 1}, label="of tests")
VALUES: dict[str, NDArray[np.generic]] = {
    "maps": np.arange(24, dtype=np.float32).reshape(8, 3),
    "label": np.zeros(8, np.int64),
}


@pytest.fixture
def store(far: str) -> Store:
    return open_store(far, create=True)


def write(stage: Stage, number: int) -> None:
    """Write a partition."""
    with stage.partition(number) as part:
        for name, values in VALUES.items():
            part.write(name, values[slice(*part.span)])
        part.write_file(f"table-{number}", b"row")


def test_objects_come_back(store: Store) -> None:
    store.write("a/b/x", b"1")
    store.write("a/y", memoryview(b"23"))
    store.write("a/y", b"456")
    store.write("ab/z", b"")
    assert store.read("a/y") == b"456"
    assert store.read("ab/z") == b""
    assert [store.exists(path) for path in ("a/y", "a/z", "a")] == [True, False, False]
    assert store.names("a") == ["b", "y"]
    assert store.names("") == ["a", "ab", FORMAT_FILE]
    assert store.files("a") == {"b/x": 1, "y": 3}
    assert store.files("") == {"a/b/x": 1, "a/y": 3, "ab/z": 0, FORMAT_FILE: 2}
    assert store.size("a/y") == 3
    assert store.modified("a") >= store.modified("a/b/x") > 1.7e9
    assert open_store(store.url).read("a/y") == b"456"


def test_what_is_not_there_is_nothing(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        store.read("a")
    assert (store.names("a"), store.files("a"), store.size("a"), store.modified("a")) == ([], {}, 0, 0.0)
    store.remove("a")


def test_no_listing_is_remembered(store: Store) -> None:
    assert store.names("markers") == []
    store.write("markers/0", b"")
    assert store.names("markers") == ["0"]
    Store(store.url).write("markers/1", b"")
    assert store.names("markers") == ["0", "1"]


def test_removal_takes_an_object_or_all_below(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "TOGETHER", 3)
    names = ["a", "a/b", *(f"a/c/{number}" for number in range(7)), "ab", "b"]
    for name in names:
        store.write(name, b"1")
    store.remove("a/b")
    assert sorted(store.files("")) == sorted([*names[:1], *names[2:], FORMAT_FILE])
    store.remove("a")
    assert sorted(store.files("")) == ["ab", "b", FORMAT_FILE]


def test_many_notes_are_renewed_at_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWAL", 2.0)
    paths = [f"_claims/toy-{number:04d}.json" for number in range(40)]

    def beats() -> list[int]:
        found = store.read_all([*paths, "_claims/absent"])
        assert isinstance(found.pop("_claims/absent"), FileNotFoundError)
        return [int(json.loads(raw)["beat"]) for raw in found.values() if isinstance(raw, bytes)]

    with ExitStack() as held:
        for number in range(len(paths)):
            held.enter_context(claims.claim(store, f"toy/{number:04d}", "us"))
        end = time.monotonic() + 240
        while min(beats()) < 2:
            assert time.monotonic() < end
            time.sleep(0.5)
        assert len(beats()) == len(paths)
        assert len([thread for thread in threading.enumerate() if thread.name == "renewal of claims"]) == 1
    assert store.names("_claims") == []


def test_a_large_object_comes_back(store: Store) -> None:
    data = np.random.default_rng(0).bytes(101 * 2**20)  # three parts
    store.write("large", data)
    assert store.size("large") == len(data)
    assert store.read("large") == data


def test_a_place_of_others_is_left_alone(far: str) -> None:
    other = Store(far)
    other.write("photo.jpg", b"x")
    with pytest.raises(StoreError, match=r"expected a layerlore store or an empty folder, found one with photo\.jpg"):
        open_store(far, create=True)
    assert other.files("") == {"photo.jpg": 1}


def test_the_entry_of_an_empty_folder_does_not_count(far: str) -> None:
    Store(far.rpartition("/")[0]).write("where/", b"")  # as web consoles make them
    store = open_store(far, create=True)
    assert store.names("") == [FORMAT_FILE]
    assert store.files("") == {FORMAT_FILE: 2}


def test_a_stage_goes_on_and_is_checked_when_read(store: Store) -> None:
    stage = begin_stage(store, SPEC, LAYOUT)
    write(stage, 1)
    assert stage.missing() == [0]
    stage = begin_stage(store, SPEC, LAYOUT)
    write(stage, 0)
    stage.seal()
    found = find_finished(open_store(store.url), SPEC.path)
    assert found is not None
    for name, values in VALUES.items():
        np.testing.assert_array_equal(found.read(name), values)  # label is zeros only, yet written
    np.testing.assert_array_equal(found.read("maps", 3, 6), VALUES["maps"][3:6])
    shard = found.shard_path("maps", 1)
    data = store.read(shard)
    store.write(shard, data[:8] + bytes([data[8] ^ 1]) + data[9:])
    with pytest.raises(DamagedError, match=rf"array 'maps', partition 1, key {shard}: fails its checksum"):
        found.read("maps")
    store.remove(shard)
    with pytest.raises(DamagedError, match=rf"partition 1, key {shard}: its file is missing or empty"):
        found.read("maps")
    with pytest.raises(StoreError, match="expected an unfinished stage"), stage.partition(0):
        pass


def test_others_read_arrays_with_nothing_but_zarr(store: Store) -> None:
    stage = begin_stage(store, SPEC, LAYOUT)
    for number in stage.missing():
        write(stage, number)
    place = store.path(SPEC.path, "data.zarr")
    code = f"import zarr; g = zarr.open_group({place!r}, mode='r'); print(sorted(g), g['maps'][:].tolist())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == f"['label', 'maps'] {VALUES['maps'].tolist()}\n"


def one_line(caught: pytest.ExceptionInfo[StoreError], *parts: str) -> None:
    """Check that an error is one line with all of `parts`, and without a secret."""
    text = str(caught.value)
    assert all(part in text for part in parts), text
    assert "\n" not in text
    assert "hush-" not in text


def test_a_bucket_that_is_not_there_is_named(use: "Server") -> None:
    for create in (False, True):
        with pytest.raises(S3Error) as caught:
            open_store("s3://absent-bucket/x", create=create)
        one_line(caught, "s3://absent-bucket/x/layerlore-store: NoSuchBucket: ", "; make the bucket first")


def test_a_plan_for_a_bucket_that_is_not_there_is_refused(use: "Server", far: str) -> None:
    with pytest.raises(S3Error) as caught:
        existing_store(load_config("digits", ["store=s3://absent-bucket/x"]))
    one_line(caught, "s3://absent-bucket/x/layerlore-store: NoSuchBucket: ", "; make the bucket first")
    assert existing_store(load_config("digits", [f"store={far}"])) is None


def test_an_empty_bucket_holds_no_store(far: str) -> None:
    with pytest.raises(StoreError, match=f"^{far}: expected a layerlore store, found none; `layerlore run` makes one$"):
        open_store(far)


def test_a_wrong_secret_is_refused_at_once(swift_server: "Server", reaching: Reaching) -> None:
    bucket = swift_server.make_bucket()
    with reaching(replace(swift_server, secret="hush-wrong")):
        for create in (False, True):
            with pytest.raises(S3Error) as caught:
                open_store(f"s3://{bucket}/x", create=create)
            one_line(caught, f"s3://{bucket}/x/layerlore-store: SignatureDoesNotMatch: ", "; check the credentials")
        with pytest.raises(S3Error) as caught:
            Store(f"s3://{bucket}/x").exists("a")
        one_line(caught, f"s3://{bucket}/x/a: 403: Forbidden; check the credentials")


def test_missing_credentials_are_named(use: "Server", reaching: Reaching) -> None:
    with reaching(use) as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(S3Error) as caught:
            open_store("s3://bucket/x")
        one_line(
            caught, "s3://bucket/x/layerlore-store: NoCredentialsError: ", "; set AWS_ACCESS_KEY_ID and AWS_SECRET"
        )
        patch.setenv("AWS_PROFILE", "mine")
        s3.close()
        with pytest.raises(S3Error) as caught:
            open_store("s3://bucket/x")
        one_line(caught, "s3://bucket/x/layerlore-store: ProfileNotFound: ", "(mine)")


def test_credentials_come_from_a_profile(use: "Server", reaching: Reaching, far: str, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        f"[mine]\naws_access_key_id = {use.access}\naws_secret_access_key = {use.secret}\n"
    )
    with reaching(use) as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.delenv(name)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        patch.setenv("AWS_PROFILE", "mine")
        assert open_store(far, create=True).names("") == [FORMAT_FILE]


def test_a_server_that_does_not_answer_is_named(use: "Server", reaching: Reaching) -> None:
    with reaching(replace(use, endpoint="http://127.0.0.1:9")) as patch:
        patch.setattr(s3, "FIRST", 0.001)
        with pytest.raises(S3Error) as caught:
            open_store("s3://bucket/x")
        one_line(caught, "s3://bucket/x/layerlore-store: EndpointConnectionError: ", "127.0.0.1:9", "(10 attempts)")


@pytest.mark.parametrize("kind", ["500", "503", "429", "hang", "reset", "lost", "cut", "slow"])
def test_every_kind_of_fault_is_outlived(
    far: str, spoilt: Spoilt, reaching: Reaching, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Every request is spoilt twice before it is answered, or once where that takes a second."""
    monkeypatch.setattr(s3, "FIRST", 0.001)
    if kind == "hang":
        monkeypatch.setattr(s3.S3Files, "read_timeout", 1.0)
    spoiling = ("--kinds", kind, "--of", 2 if kind == "hang" else 3, "--hang", 2.0)
    with spoilt(*spoiling) as (proxy, counts), reaching(proxy):
        store = open_store(far, create=True)
        store.write("a/x", b"x" * 10_000)
        assert store.read("a/x") == b"x" * 10_000
        assert store.names("a") == ["x"]
        assert store.size("a/x") == 10_000
        store.remove("a")
        assert store.files("") == {FORMAT_FILE: 2}
    assert counts[kind] >= 8
    assert [fault for fault in FAULTS if fault in counts] == [kind]
