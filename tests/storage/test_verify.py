import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.documents import encode
from storage.runs import write_record
from storage.stages import FinishedStage, open_finished, read_marker
from storage.stores import Store, open_store
from storage.verify import stage_paths, verify_records, verify_stage

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.storage.conftest import Toy


def found(toy: "Toy") -> list[str]:
    """What verify says of the toy stage."""
    return list(verify_stage(toy.store, toy.spec.path))


def flip(file: Path, index: int) -> None:
    """Invert one byte of a file."""
    raw = file.read_bytes()
    file.write_bytes(raw[:index] + bytes([raw[index] ^ 0xFF]) + raw[index + 1 :])


def swap(first: Path, second: Path) -> None:
    """Let two files change places."""
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)


def test_an_intact_stage_has_nothing_to_report(toy: "Toy") -> None:
    toy.make()
    assert found(toy) == []


def test_what_is_merely_incomplete_is_no_damage(toy: "Toy") -> None:
    assert found(toy) == []
    toy.write(toy.begin(), 0)
    flip(toy.file("data.zarr/maps/c/0/0"), 0)
    assert found(toy) == []


@pytest.mark.parametrize(("index", "rows"), [(0, "4-5"), (-1, "4-5, 6-7")])
def test_each_damaged_chunk_is_named_with_its_rows(toy: "Toy", index: int, rows: str) -> None:
    toy.make()
    key = f"{toy.spec.path}/data.zarr/maps/c/1/0"
    file = toy.file("data.zarr/maps/c/1/0")
    flip(file, index % file.stat().st_size)  # the last byte is the index of the shard's: no chunk can be found
    expected = f"{toy.spec.path}: array 'maps', partition 1, key {key}: fails its checksum (rows {rows})"
    assert found(toy) == [expected]


def test_all_damaged_partitions_are_named(toy: "Toy") -> None:
    toy.make()
    for name in ("maps/c/0/0", "maps/c/2/0", "label/c/1"):
        flip(toy.file(f"data.zarr/{name}"), 0)
    assert [line.split(": ")[1].split(", key")[0] for line in found(toy)] == [
        "array 'label', partition 1",
        "array 'maps', partition 0",
        "array 'maps', partition 2",
    ]
    assert "(rows 8-9)" in found(toy)[2]


def test_a_deleted_shard_is_named(toy: "Toy") -> None:
    toy.make()
    toy.file("data.zarr/label/c/2").unlink()
    key = f"{toy.spec.path}/data.zarr/label/c/2"
    text = f"{toy.spec.path}: array 'label', partition 2, key {key}: its file is missing or empty (rows 8-9)"
    assert found(toy) == [text]


def test_swapped_shards_are_named_though_their_checksums_hold(toy: "Toy") -> None:
    toy.make()
    swap(toy.file("data.zarr/maps/c/0/0"), toy.file("data.zarr/maps/c/1/0"))
    assert found(toy) == [
        f"{toy.spec.path}: array 'maps', partition {p}, key {toy.spec.path}/data.zarr/maps/c/{p}/0: "
        "holds other values than were written"
        for p in (0, 1)
    ]


def test_shards_swapped_with_their_markers_are_named(toy: "Toy") -> None:
    toy.make()
    for name in ("data.zarr/maps/c/{}/0", "data.zarr/label/c/{}", "markers/00000{}.json"):
        swap(toy.file(name.format(0)), toy.file(name.format(1)))
    markers = f"{toy.spec.path}/markers"
    assert found(toy)[:2] == [
        f"{markers}/000000.json: expected the record of partition 0, found that of 1",
        f"{markers}/000001.json: expected the record of partition 1, found that of 0",
    ]


def test_a_partition_made_again_behind_the_seal_is_named(toy: "Toy", values: dict[str, NDArray[np.generic]]) -> None:
    toy.make()
    note = toy.file("markers/complete.json").read_bytes()
    for name in ("complete", "000000"):
        toy.file(f"markers/{name}.json").unlink()
    with toy.begin().partition(0) as part:
        part.write("maps", np.asarray(values["maps"][:4]) + np.float32(1))
        part.write("label", values["label"][:4])
        part.write_file("table-0", b"row 0")
    toy.file("markers/complete.json").write_bytes(note)
    assert found(toy) == [f"{toy.spec.path}/markers: array 'maps': expected the sealed partition records, found others"]


def test_damaged_and_missing_markers_are_named(toy: "Toy") -> None:
    toy.make()
    flip(toy.file("markers/000000.json"), 50)
    toy.file("markers/000002.json").unlink()
    first, second = found(toy)
    assert first.startswith(f"{toy.spec.path}/markers/000000.json: ")
    assert second == f"{toy.spec.path}/markers/000002.json: missing"


def test_an_array_that_a_marker_lacks_is_not_read(toy: "Toy") -> None:
    toy.make()
    marker = read_marker(toy.store, toy.spec.path, 0)
    del marker["arrays"]["label"]
    toy.store.write(f"{toy.spec.path}/markers/000000.json", encode(marker))
    assert found(toy) == [
        f"{toy.spec.path}/markers: array 'label': expected the sealed partition records, found others"
    ]


def test_a_damaged_completion_note_is_named(toy: "Toy") -> None:
    toy.make()
    flip(toy.file("markers/complete.json"), 50)
    (line,) = found(toy)
    assert line.startswith(f"{toy.spec.path}/markers/complete.json: ")


@pytest.mark.parametrize(("name", "what"), [("maps/", "array 'maps'"), ("", "the group")])
def test_every_flipped_byte_of_metadata_is_named_once(toy: "Toy", name: str, what: str) -> None:
    toy.make()
    file = toy.file(f"data.zarr/{name}zarr.json")
    path = f"{toy.spec.path}/data.zarr/{name}zarr.json"
    for index in range(0, file.stat().st_size, 40):
        flip(file, index)
        assert found(toy) == [f"{path}: the metadata of {what} is damaged or missing"]
        flip(file, index)
    file.unlink()
    assert found(toy) == [f"{path}: the metadata of {what} is damaged or missing"]


def test_damaged_and_missing_files_are_named(toy: "Toy") -> None:
    toy.make()
    flip(toy.file("files/table-0"), 0)
    toy.file("files/table-1").unlink()
    assert found(toy) == [
        f"{toy.spec.path}/files/table-0: expected the content that was written, found other content",
        f"{toy.spec.path}/files/table-1: expected a file of a complete stage, found none",
    ]


def test_a_chunk_that_the_disk_does_not_give_is_named(toy: "Toy", monkeypatch: pytest.MonkeyPatch) -> None:
    toy.make()
    read = FinishedStage.read

    def broken(self: FinishedStage, name: str, start: int = 0, stop: int | None = None) -> object:
        if (name, start) == ("maps", 4):
            raise OSError(5, "Input/output error")
        return read(self, name, start, stop)

    monkeypatch.setattr(FinishedStage, "read", broken)
    key = f"{toy.spec.path}/data.zarr/maps/c/1/0"
    text = f"{toy.spec.path}: array 'maps', partition 1, key {key}: cannot be read: [Errno 5] Input/output error"
    assert found(toy) == [text]


def test_a_copied_store_verifies_and_reads(toy: "Toy", tmp_path: Path, values: dict[str, NDArray[np.generic]]) -> None:
    toy.make()
    shutil.copytree(toy.store.root, tmp_path / "copy")
    shutil.move(toy.store.root, tmp_path / "moved")
    for name in ("copy", "moved"):
        store = open_store(str(tmp_path / name))
        assert list(verify_stage(store, toy.spec.path)) == []
        np.testing.assert_array_equal(open_finished(store, toy.spec).read("maps"), values["maps"])


def test_stages_are_listed_and_nothing_else(toy: "Toy") -> None:
    toy.begin()
    for name in ("_runs/a/1.json", "_claims/toy-1.lock", "reports/a/index.html", "other/0123/markers/complete.json"):
        toy.store.write(name, b"")
    assert stage_paths(toy.store) == [toy.spec.path]


@pytest.mark.parametrize("name", ["finished_run", "traced_run", "decomposed_run"])
def test_stages_of_every_kind_are_listed(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    assert stage_paths(run.job.store) == sorted({stage.path for stage in run.plan.stages})


def test_damaged_run_records_are_named(store: Store) -> None:
    record = write_record(store, "a", {}, [], {})
    assert list(verify_records(store)) == []
    flip(Path(store.path(record.path)), 20)
    (line,) = verify_records(store)
    assert line.startswith(f"{record.path}: ")
