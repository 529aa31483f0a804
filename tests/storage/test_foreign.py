"""Stages that somebody else wrote: valid documents with odd content, and folders where files belong."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storage.documents import DamagedError, Document, Json, decode, encode
from storage.stages import find_finished, read_marker
from storage.verify import verify_stage

if TYPE_CHECKING:
    from tests.storage.conftest import Toy


def change(file: Path, **keys: Json) -> None:
    """Write a document again with other content and a digest that fits; None removes a key."""
    document = {**decode(file.read_bytes(), "it"), **keys}
    file.write_bytes(encode({key: value for key, value in document.items() if value is not None}))


def notes(note: Document) -> Iterator[tuple[Document, str]]:
    """Yield notes that are none, and what is wrong."""
    yield {"identity": 3}, "expected a dict in key 'identity', found none"
    for key in ("layout", "arrays", "metadata", "files", "summary"):
        yield {**note, key: [1]}, f"expected a dict in key {key!r}, found none"
    maps = note["layout"]["arrays"]["maps"]
    bad: list[Document] = [{}, {"partitions": "3", "arrays": {}}, {"partitions": 3, "arrays": [1]}]
    odd: list[Document] = [
        {"shape": ["a"]},
        {"shape": []},
        {"rows": 0},
        {"chunk": None},
        {"dtype": "none"},
        {"shape": [10**9, 3]},
    ]
    bad += [{**note["layout"], "arrays": {"maps": {**maps, **part}}} for part in odd]
    yield from (({**note, "layout": layout}, "expected a layout in key 'layout', found none") for layout in bad)
    yield {**note, "arrays": {}}, "expected the arrays of its layout in key 'arrays', found others"
    yield {**note, "metadata": {}}, "expected the arrays of its layout in key 'metadata', found others"


def test_an_odd_note_is_damaged(toy: "Toy") -> None:
    toy.make()
    file = toy.file("markers/complete.json")
    for note, what in notes(decode(file.read_bytes(), "it")):
        file.write_bytes(encode(note))
        line = f"{toy.spec.path}/markers/complete.json: {what}"
        assert list(verify_stage(toy.store, toy.spec.path)) == [line]
        with pytest.raises(DamagedError, match=f"^{re.escape(line)}$"):
            find_finished(toy.store, toy.spec.path)


def test_an_odd_marker_is_damaged(toy: "Toy") -> None:
    stage = toy.begin()
    toy.make()
    bad: list[Document] = [{"partition": None}, {"partition": "0"}, {"arrays": None}, {"files": 3}, {"numbers": []}]
    for keys in bad:
        change(toy.file("markers/000000.json"), partition=0, arrays={}, files={}, numbers={})
        change(toy.file("markers/000000.json"), **keys)
        with pytest.raises(DamagedError, match=r"markers/000000\.json: expected a \w+ in key '\w+', found none$"):
            read_marker(toy.store, toy.spec.path, 0)
        assert stage.missing() == [0]


def test_folders_in_the_place_of_parts_of_a_stage_are_damage(toy: "Toy") -> None:
    toy.make()
    for name in ("markers/000001.json", "files/table-0", "data.zarr/maps/zarr.json", "data.zarr/label/c/2"):
        toy.file(name).unlink()
        toy.file(name).mkdir()
    lines = list(verify_stage(toy.store, toy.spec.path))
    assert [line.removeprefix(f"{toy.spec.path}").split(": ")[0] for line in lines] == [
        "/markers/000001.json",
        "",
        "/data.zarr/maps/zarr.json",
        "/files/table-0",
    ]
    assert "array 'label', partition 2" in lines[1]
