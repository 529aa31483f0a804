from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.documents import DamagedError, encode
from storage.runs import TIME, choose_run, close_record, records, referenced, run_names, write_record
from storage.specs import StageSpec
from storage.stores import Store, StoreError

DATA = StageSpec("manifest", 1, label="digits")
MAPS = StageSpec("activations", 1, inputs={"data": DATA}, label="digits train")


def test_a_record_before_and_after_a_run(store: Store) -> None:
    record = write_record(store, "mine", {"name": "mine"}, [DATA, MAPS], {"code": {"numpy": "2"}})
    (before,) = records(store, "mine")
    assert before == record
    assert record.path == f"_runs/mine/{record.time}.json"
    assert before.document["outcome"] == "running"
    assert before.document["config"] == {"name": "mine"}
    assert before.document["code"] == {"numpy": "2"}
    assert before.stages == [
        {"path": DATA.path, "title": DATA.title, "inputs": {}},
        {"path": MAPS.path, "title": MAPS.title, "inputs": {"data": DATA.path}},
    ]
    close_record(store, record, "failed", error="no luck")
    (after,) = records(store, "mine")
    assert after.document == {**before.document, "outcome": "failed", "error": "no luck"}


def test_records_are_listed_oldest_first(store: Store) -> None:
    first, second = (write_record(store, "mine", {}, [], {"turn": turn}) for turn in (1, 2))
    assert first.time < second.time
    assert [record.document["turn"] for record in records(store, "mine")] == [1, 2]
    assert records(store, "other") == []


@pytest.mark.parametrize("ahead", [timedelta(hours=5), timedelta(days=400)])
def test_records_keep_their_order_whatever_clocks_say(store: Store, ahead: timedelta) -> None:
    future = (datetime.now(UTC) + ahead).strftime(TIME)
    store.write(f"_runs/mine/{future}.json", encode({"turn": 0, "stages": [], "outcome": "done"}))
    for turn in (1, 2):
        write_record(store, "mine", {}, [], {"turn": turn})
    assert [record.document["turn"] for record in records(store, "mine")] == [0, 1, 2]


def test_a_run_is_chosen_by_name_or_because_it_is_the_only_one(store: Store) -> None:
    write_record(store, "a", {}, [], {})
    assert choose_run(store, None) == "a"
    assert choose_run(store, "a") == "a"
    write_record(store, "b", {}, [], {})
    assert choose_run(store, "b") == "b"
    with pytest.raises(StoreError, match=r": expected one run, found a, b; choose one with --run$"):
        choose_run(store, None)
    with pytest.raises(StoreError, match=r": expected one of the runs a, b, found 'c'$"):
        choose_run(store, "c")


def test_of_several_runs_the_only_one_with_a_kind_of_stage_is_chosen(store: Store) -> None:
    write_record(store, "a", {}, [DATA], {})
    write_record(store, "b", {}, [DATA, MAPS], {})
    write_record(store, "c", {}, [], {})
    assert choose_run(store, None, "activations") == "b"
    assert choose_run(store, "a", "activations") == "a"
    with pytest.raises(StoreError, match=r": expected one run, found a, b; choose one with --run$"):
        choose_run(store, None, "manifest")
    with pytest.raises(StoreError, match=r": expected one run, found a, b, c; choose one with --run$"):
        choose_run(store, None, "influence")
    write_record(store, "b", {}, [DATA], {})  # the last record says what a run is
    write_record(store, "c", {}, [MAPS], {})
    assert choose_run(store, None, "activations") == "c"


def test_a_store_without_runs_says_so(store: Store) -> None:
    with pytest.raises(
        StoreError, match=r"store: expected the record of a run, found none; `layerlore run` a config first$"
    ):
        choose_run(store, None)


def test_a_run_whose_first_record_could_not_be_written_is_none(store: Store) -> None:
    Path(store.path("_runs/full")).mkdir(parents=True)
    Path(store.path("_runs/full/.x.json.0.partial")).write_bytes(b"")
    assert run_names(store) == []


def test_stages_of_all_records_of_all_runs_are_referenced(store: Store) -> None:
    write_record(store, "a", {}, [DATA], {})
    write_record(store, "a", {}, [], {})
    write_record(store, "b", {}, [DATA, MAPS], {})
    assert referenced(store) == {DATA.path, MAPS.path}


def test_a_damaged_record_stops_those_who_ask_what_is_referenced(store: Store) -> None:
    record = write_record(store, "a", {}, [DATA], {})
    store.write(record.path, b"{")
    with pytest.raises(DamagedError, match=rf"^{record.path}: not a layerlore document$"):
        records(store, "a")
    with pytest.raises(StoreError, match=r"remove that file once its run is not needed, then collect again$"):
        referenced(store)
