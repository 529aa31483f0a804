"""What the harness compares in stores: it must see each thing that two equal runs would have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from benchmarks.kills.stores import Digests, contents, differences, digests, left_over, records, redone, torn
from storage.claims import claim
from storage.documents import Document, encode
from storage.results import table_bytes
from storage.stages import find_finished
from storage.stores import Store
from tasks.steps.common.courses import CURVES
from tests.plans import complete_plan

if TYPE_CHECKING:
    from tests.conftest import Run

REPORT = "reports/tiny"
TABLE = pd.DataFrame({"label": [0, 1], "seconds": [0.5, 0.25]})
Change = Callable[[Store], object]


@pytest.fixture
def store(copied_run: "Run") -> Store:
    """A finished store with a report that is quickly made."""
    made = copied_run.job.store
    made.write(f"{REPORT}/index.html", b"<html>now</html>\n")
    made.write(f"{REPORT}/figures/a.png", b"picture")
    made.write(f"{REPORT}/data/a.csv", TABLE.to_csv(index=False).encode())
    made.write(f"{REPORT}/tables/a.parquet", table_bytes(TABLE))
    made.write(f"{REPORT}/made-from", b"this store")
    return made


@pytest.fixture
def expected(store: Store) -> Digests:
    """What an undisturbed run makes."""
    return contents(store)


def stage_of(store: Store, kind: str) -> str:
    """Return the path of the first stage of a kind."""
    return f"{kind}/{store.names(kind)[0]}"


def restate(store: Store, path: str, change: Callable[[Document], object]) -> None:
    """Write a stage's completion record again, with its digest."""
    stage = find_finished(store, path)
    assert stage is not None
    change(stage.note)
    store.write(f"{path}/markers/complete.json", encode(stage.note))


def restate_features(part: str, value: float) -> Change:
    """Return a function that changes what the note of the first features states of class 0."""

    def change(store: Store) -> None:
        def put(note: Document) -> None:
            note["summary"]["classes"]["0"][part] = value

        restate(store, stage_of(store, "features"), put)

    return change


def write_table(**columns: list[float]) -> Change:
    """Return a function that writes the report's tables with other columns."""

    def change(store: Store) -> None:
        table = TABLE.assign(**columns)
        store.write(f"{REPORT}/data/a.csv", table.to_csv(index=False).encode())
        store.write(f"{REPORT}/tables/a.parquet", table_bytes(table))

    return change


def write(path: str, data: bytes) -> Change:
    """Return a function that writes an object."""
    return lambda store: store.write(path, data)


def lose_array(store: Store) -> None:
    """Remove the completion of a stage."""
    store.remove(f"{stage_of(store, 'activations')}/markers/complete.json")


def test_an_untouched_store_is_without_fault(copied_run: "Run", store: Store, expected: Digests) -> None:
    assert sorted(digests(store)) == sorted({stage.path for stage in copied_run.plan.stages})
    assert sorted(expected) == sorted([*digests(store), REPORT])
    training = expected[stage_of(store, "training")]
    assert {"layout", "summary", CURVES} < training.keys()
    assert any(name.endswith(".safetensors") for name in training)
    assert [*differences(expected, contents(store)), *torn(store), *left_over(store)] == []


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (restate_features("relative_error", 0.5), "such as ['summary']"),
        (lose_array, "activations/"),
        (write(f"{REPORT}/figures/a.png", b"other"), "1 of 5 parts differ, such as ['figures/a.png']"),
        (write_table(label=[0, 2]), "2 of 5 parts differ, such as ['data/a.csv', 'tables/a.parquet']"),
        (write(f"{REPORT}/index.html", b"<html>no"), "such as ['index.html']"),
        (write(f"{REPORT}/figures/b.png", b"more"), "such as ['figures/b.png']"),
        (lambda store: store.remove(f"{REPORT}/made-from"), "such as ['made-from']"),
        (lambda store: store.remove("reports"), f"{REPORT}: 5 of 5"),
    ],
)
def test_other_contents_are_seen(change: Change, messages: str, store: Store, expected: Digests) -> None:
    change(store)
    (line,) = differences(expected, contents(store))
    assert messages in line


@pytest.mark.parametrize(
    "change",
    [
        restate_features("seconds", 99.0),
        write_table(seconds=[9.0, 9.0]),
        write(f"{REPORT}/index.html", b"<html>later</html>"),
        write(f"{REPORT}/made-from", b"another store"),
    ],
)
def test_times_are_none(change: Change, store: Store, expected: Digests) -> None:
    change(store)
    assert list(differences(expected, contents(store))) == []


def test_damage_is_seen(store: Store) -> None:
    path = stage_of(store, "activations")
    shard = next(file for file in Path(store.path(path, "data.zarr", "maps", "c")).rglob("*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:-1])
    assert any(path in line for line in torn(store))


@pytest.mark.parametrize(
    "place",
    [
        *("training/*/files/segment-000000-01234567/ledger.parquet", "activations/*/data.zarr/maps/c/9/0/0/0"),
        *("manifest/*/markers/000009.json", "features/*/data.zarr/other/zarr.json", "features/other", "other"),
    ],
)
def test_files_that_no_note_names_are_seen(place: str, store: Store) -> None:
    name = place.replace("*", store.names(place.partition("/")[0])[0]) if "*" in place else place
    store.write(name, b"x")
    assert list(left_over(store)) == [f"{name}: no note names it"]


def test_files_of_incomplete_stages_are_no_strays(store: Store, expected: Digests) -> None:
    lose_array(store)
    assert list(left_over(store)) == []
    assert len(list(differences(expected, contents(store)))) == 1


def test_unfinished_files_are_seen(store: Store) -> None:
    store.write("manifest/.x.partial", b"")
    store.write(f"{REPORT}/.x.partial", b"")
    assert list(left_over(store)) == [f"{name}/.x.partial: left unfinished" for name in ("manifest", REPORT)]


def test_held_claims_are_seen(store: Store) -> None:
    path = stage_of(store, "training")
    with claim(store, path, "someone"), claim(store, REPORT, "somebody"):
        messages = list(left_over(store))
    names = [path.replace("/", "-"), "reports-tiny"]
    assert [line.split(" (pid")[0] for line in sorted(messages)] == [
        f"{name}: {name} is held by {holder}"
        for name, holder in sorted(zip(names, ("someone", "somebody"), strict=True))
    ]
    store.write(f"_claims/{'0' * 32}/now", b"")  # what a killed look at the clock leaves, until `gc` comes
    assert list(left_over(store)) == []


def test_finished_work_that_is_made_again_is_seen(copied_run: "Run", store: Store) -> None:
    before = records(store)
    assert len(before) == len([name for name in store.files("") if "/markers/" in name])
    assert list(redone(before, records(store))) == []
    path = stage_of(store, "features")
    lose_array(store)
    store.remove(f"{path}/markers/000000.json")
    assert sorted(redone(before, records(store))) == [
        f"{stage_of(store, 'activations')}/markers/complete.json: was finished, and is lost",
        f"{path}/markers/000000.json: was finished, and is lost",
    ]
    for name in ("features", "activations"):
        store.remove(stage_of(store, name))
    complete_plan(copied_run.plan, copied_run.job)
    lines = [line for line in redone(before, records(store)) if line.endswith("is made again")]
    assert any(line.startswith(f"{path}/markers/000000.json") for line in lines)  # with times of its own
