"""The tables of stage kinds in docs/store.md are current, and name every array that a stage writes."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from tasks.steps.questions import JOINS, QUESTIONS, STEPS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/make_store_reference.py as a module; docs is not a package."""
    spec = importlib.util.spec_from_file_location("make_store_reference", ROOT / "docs" / "make_store_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(head: str) -> list[list[str]]:
    """Return the cells of the table of docs/store.md whose first line is given."""
    _, _, text = (ROOT / "docs" / "store.md").read_text(encoding="utf-8").partition(f"{head}\n")
    lines = text.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_the_page_is_current(script: ModuleType) -> None:
    for path, text in script.reference().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: run python docs/make_store_reference.py"


def test_every_kind_is_listed_with_its_version_and_question() -> None:
    listed = {
        kind: (version, question)
        for kind, version, question, *_ in rows("| stage | VERSION | question | reads | what it is |")
    }
    assert listed.keys() == {f"`{kind}`" for kind in STEPS}
    assert listed["`manifest`"] == ("1", "all")
    for name, question in QUESTIONS.items():
        for step in question.steps:
            assert listed[f"`{step.kind}`"] == (str(step.version), name)
    for join in JOINS.values():
        for step in join.steps:
            assert listed[f"`{step.kind}`"] == (str(step.version), " and ".join(join.questions))


def test_what_a_kind_reads_comes_from_its_specs() -> None:
    reads = {kind: inputs for kind, _, _, inputs, _ in rows("| stage | VERSION | question | reads | what it is |")}
    assert reads["`manifest`"] == "no stage"
    assert reads["`features`"] == "`activations` (`activations`), `selection` (`selection`)"
    assert reads["`head-scores`"] == "`features` (`penultimate`), `sets` (`gates`, `histogram`)"
    assert reads["`snapshots`"] == "`training` (`training`)"


def test_every_array_and_file_of_the_golden_runs_is_named() -> None:
    written = {kind.strip("`"): text for kind, text in rows("| stage | arrays (axes) and files |")}
    kinds = json.loads((ROOT / "tests" / "golden.json").read_text(encoding="utf-8"))["kinds"]
    for kind, found in kinds.items():
        if kind not in STEPS or kind == "coverage":  # variants of a training; sums in one file of each range
            continue
        for entry in found["arrays"]:
            name = re.split(r"[.:]", entry.partition("/")[2])[0]
            stem = re.sub(r"^bottom_.*", "bottom_...", re.sub(r"-\d+$", "-NUMBER", name))
            assert re.search(rf"`{re.escape(stem)}[`.]", written[kind]), f"{kind}: {name}"
