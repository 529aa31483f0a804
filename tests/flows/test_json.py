"""The fields of docs/json.md are those that the commands print."""

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from flows.progress import PlannedStage
from flows.standing import Standing
from storage.collect import Garbage
from storage.updates.facts import ArchiveState, ConversionState
from tests.flows.command import Write
from tests.flows.test_standing import document

if TYPE_CHECKING:
    from tests.conftest import Run

PAGE = Path(__file__).parents[2] / "docs" / "json.md"


def documented(command: str) -> dict[str, set[str]]:
    """Return the keys of the table of a command: of the document (""), and of the entries of each list."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    (text,) = (part for part in section if part.startswith(f"`layerlore {command} "))
    found: dict[str, set[str]] = {"": set()}
    for cell in re.findall(r"^\| (`.*?`) \|", text, flags=re.MULTILINE):
        names = re.findall(r"`([^`]+)`", cell)
        place = names[0].partition("[]")[0] if "[]" in names[0] else ""
        found.setdefault(place, set()).update(name.rpartition(".")[2] for name in names)
    return found


def named(cls: type) -> set[str]:
    return {one.name for one in fields(cls)}


def test_entries_of_lists_have_the_documented_fields() -> None:
    assert documented("plan")["stages"] == named(PlannedStage)
    assert documented("status")["runs"] == named(Standing) | {"complete", "missing"}
    assert documented("status")["archives"] == named(ArchiveState)
    assert documented("status")["conversions"] == named(ConversionState)
    assert documented("gc")["garbage"] == named(Garbage)


def test_documents_have_the_documented_fields(copied_run: "Run", write: Write) -> None:
    store = copied_run.config.store
    for command, argument in (("plan", write(copied_run.tree)), ("status", store), ("verify", store), ("gc", store)):
        assert documented(command)[""] == set(document(command, argument))
