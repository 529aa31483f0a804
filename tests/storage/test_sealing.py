"""Sealing several stages: their completion records go out together, last of all, and one fault stops no other stage."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from storage.documents import Json
from storage.memory import remembering
from storage.specs import StageSpec
from storage.stages import Stage, find_many, seal_all
from storage.stores import CONNECTIONS, Store, StoreError
from storage.verify import verify_stage
from tests.counting import METADATA, NOTE, counted

if TYPE_CHECKING:
    from tests.storage.conftest import Toy

ToyOf = Callable[[Store], "Toy"]


def whole(store: Store, toy_of: ToyOf, count: int) -> list[Stage]:
    """Return stages with all partitions, looked at, but without a completion record."""
    toys = [replace(toy_of(store), spec=StageSpec("toy", 1, {"a": number})) for number in range(count)]
    for toy in toys:
        stage = toy.begin()
        for number in stage.missing():
            toy.write(stage, number)
    return [toy.begin().looked() for toy in toys]


def number_of(stage: Stage) -> Mapping[str, Json]:
    """The summary of a stage."""
    return {"number": stage.spec.parameters["a"]}


def sealed(store: Store, stages: list[Stage]) -> list[int]:
    """Return which of the stages are complete."""
    found = find_many(store, [stage.spec.path for stage in stages])
    return [number for number, stage in enumerate(stages) if stage.spec.path in found]


def test_what_is_sealed_together_is_as_if_sealed_alone(any_store: Store, toy_of: ToyOf) -> None:
    store = remembering(any_store)
    stages = whole(store, toy_of, 3)
    together = seal_all(stages, number_of)
    for stage, finished in zip(stages, together, strict=True):
        assert stage.seal(number_of(stage)).note == finished.note
        assert finished.summary == number_of(stage)
        assert verify_stage(any_store, stage.spec.path) == []
    assert seal_all([], number_of) == []


def test_completion_records_are_written_at_once_after_all_is_read(
    far: Store, toy_of: ToyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, write_all, together = whole(far, toy_of, 3), Store.write_all, list[int]()

    def noted(store: Store, objects: dict[str, bytes]) -> None:
        together.append(len(objects))
        write_all(store, objects)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_all", noted)
        seal_all(stages, number_of)
    assert together == [3]
    with counted() as requests:
        seal_all(stages, number_of)
    assert [verb for verb, _ in requests.seen] == ["read"] * 9 + ["write"] * 3  # group and two arrays of each
    assert requests.count("read", METADATA) == 9
    assert requests.count("write", NOTE) == 3


def test_more_stages_than_go_out_at_once_are_all_sealed(far: Store, toy_of: ToyOf) -> None:
    (stage,) = whole(far, toy_of, 1)
    specs = [replace(stage.spec, parameters={"a": number}) for number in range(CONNECTIONS + 2)]
    for name, path in stage.metadata.items():
        for spec in specs:
            far.write(replace(stage, spec=spec).metadata[name], far.read(path))
    found = seal_all([replace(stage, spec=spec) for spec in specs], number_of)
    assert [finished.summary["number"] for finished in found] == list(range(CONNECTIONS + 2))
    assert len(find_many(far, [spec.path for spec in specs])) == CONNECTIONS + 2


@pytest.mark.parametrize("fault", ["summary", "metadata", "partition"])
def test_a_stage_that_cannot_be_sealed_stops_no_other(any_store: Store, toy_of: ToyOf, fault: str) -> None:
    stages = whole(any_store, toy_of, 3)
    if fault == "metadata":
        any_store.remove(stages[1].metadata["maps"])
    elif fault == "partition":
        stages[1] = replace(stages[1], seen={0: {}})

    def summary(stage: Stage) -> Mapping[str, Json]:
        if fault == "summary" and stage == stages[1]:
            raise ValueError("no luck")
        return number_of(stage)

    expected = {"summary": ValueError, "metadata": FileNotFoundError, "partition": StoreError}[fault]
    with pytest.raises(expected, match={"summary": r"^no luck$", "partition": "found 2 missing"}.get(fault)):
        seal_all(stages, summary)
    assert sealed(any_store, stages) == [0, 2]


def test_a_write_that_breaks_off_is_made_good_by_the_next(
    far: Store, toy_of: ToyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, write_all = remembering(far), Store.write_all
    stages = whole(store, toy_of, 4)

    def break_off(store: Store, objects: dict[str, bytes]) -> None:
        write_all(store, dict(list(objects.items())[:2]))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write_all", break_off)
        with pytest.raises(KeyboardInterrupt):
            seal_all(stages, number_of)
    assert sealed(store, stages) == [0, 1]  # none is taken for written because it was under way
    seal_all(stages[2:], number_of)
    assert sealed(store, stages) == [0, 1, 2, 3]
