"""Stores that somebody else wrote: documents that are valid but odd, folders for files, letters that terminals obey."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows import cli, exits, terminal
from flows.session import session_of
from storage.documents import DamagedError, Document, decode, encode
from storage.runs import records, run_names
from storage.verify import stage_paths, verify_records
from tasks.engine.observers import LineObserver

if TYPE_CHECKING:
    from tests.conftest import Run

CLEAR = "\x1b[2J\x1b]0;pwn\x07"


def layerlore(*arguments: str, code: int) -> str:
    """Return what a command prints, which moves no cursor and is not a traceback."""
    result = CliRunner().invoke(cli.app, [*arguments])
    assert result.exit_code == code, result.output
    assert "".join(result.output.split("\n")).isprintable()
    return result.output


def record_of(run: "Run") -> Path:
    """Return the file of a run's record."""
    (found,) = Path(run.config.store, "_runs", "tiny").iterdir()
    return found


def change(file: Path, **keys: Any) -> None:  # Any: JSON
    """Write a document again with other content and a digest that fits; None removes a key."""
    document = {**decode(file.read_bytes(), "it"), **keys}
    file.write_bytes(encode({key: value for key, value in document.items() if value is not None}))


def put_folder(file: Path) -> None:
    """Put a folder where a file is."""
    file.unlink()
    file.mkdir()


# --------------------------------------------------------------------------------------------- terminals


def test_what_a_store_says_moves_no_cursor(copied_run: "Run") -> None:
    record = record_of(copied_run)
    stages = decode(record.read_bytes(), "it")["stages"]
    change(record, outcome="\x1b[31mdone", stages=[{**stages[0], "title": f"[b]a{CLEAR}\nb"}, *stages[1:]])
    said = layerlore("status", copied_run.config.store, code=exits.DONE)
    assert r"tiny: \x1b[31mdone, " in said
    said = layerlore("status", copied_run.config.store, "--stages", code=exits.DONE)
    assert r"[b]a\x1b[2J\x1b]0;pwn\x07\nb" in said
    stray = Path(copied_run.config.store, "_runs", f"x{CLEAR}")
    stray.mkdir()
    (stray / "1.json").write_bytes(b"{")
    assert r"damaged: _runs/x\x1b[2J" in layerlore("verify", copied_run.config.store, code=exits.FAILED)
    assert r"error: _runs/x\x1b[2J" in layerlore("status", copied_run.config.store, code=exits.FAILED)
    assert r"error: _runs/x\x1b[2J" in layerlore("gc", copied_run.config.store, code=exits.FAILED)


def test_an_explanation_moves_no_cursor(traced_run: "Run", tmp_path: Path) -> None:
    run = traced_run.at(str(tmp_path / "copied"))
    (record,) = Path(run.config.store, "_runs", "traced").iterdir()
    stages = decode(record.read_bytes(), "it")["stages"]
    change(record, stages=[{**stage, "title": f"{stage['title']}{CLEAR}"} for stage in stages])
    said = layerlore("explain", run.config.store, "--query", "0", code=exits.DONE)
    assert r"\x1b[2J\x1b]0;pwn\x07" in said


def test_tables_and_waiting_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    with (console := Console(width=100)).capture() as found:
        console.print(terminal.table_of([f"a{CLEAR}"], [[f"b{CLEAR}"]]))
    assert "\x1b" not in found.get()
    assert r"b\x1b[2J" in found.get()
    LineObserver(sys.stdout).say(f"held by {CLEAR}")
    assert capsys.readouterr().out == "held by \\x1b[2J\\x1b]0;pwn\\x07\n"


# --------------------------------------------------------------------------------- valid, but no record

RECORDS: list[tuple[Document, str]] = [
    ({"stages": None}, "expected a list in key 'stages', found none"),
    ({"stages": {"a": 1}}, "expected a list in key 'stages', found none"),
    ({"outcome": None}, "expected a str in key 'outcome', found none"),
    ({"outcome": {"a": 1}}, "expected a str in key 'outcome', found none"),
    ({"stages": [3]}, "a stage: not a layerlore document"),
    ({"stages": [{"path": "influence/" + "0" * 20}]}, "a stage: expected a str in key 'title', found none"),
    ({"stages": [{"title": "a", "path": 3}]}, "a stage: expected a str in key 'path', found none"),
    ({"stages": [{"title": "a", "path": "../../etc"}]}, "a stage: expected a stage's path, found '../../etc'"),
]


@pytest.mark.parametrize(("keys", "what"), RECORDS)
def test_an_odd_record_is_damaged(copied_run: "Run", keys: Document, what: str) -> None:
    record = record_of(copied_run)
    change(record, **keys)
    name, store = f"_runs/tiny/{record.name}", copied_run.config.store
    with pytest.raises(DamagedError, match=f"^{re.escape(f'{name}: {what}')}$"):
        records(copied_run.job.store, "tiny")
    assert list(verify_records(copied_run.job.store)) == [f"{name}: {what}"]
    for command in (["status"], ["explain", "--query", "0"], ["gc"]):
        (line,) = layerlore(*command, store, code=exits.FAILED).splitlines()
        assert line.startswith(f"error: {name}: {what}")


# ------------------------------------------------------------------------------------- folders and files


def test_verify_goes_on_after_a_folder_in_the_place_of_a_file(copied_run: "Run") -> None:
    store = copied_run.job.store
    paths = stage_paths(store)
    for path in paths[:2]:
        put_folder(Path(store.path(path, "markers", "complete.json")))
    put_folder(record_of(copied_run))
    said = layerlore("verify", copied_run.config.store, code=exits.FAILED)
    damaged = [line for line in said.splitlines() if line.startswith("damaged: ")]
    assert len(damaged) == 3
    assert all(line.endswith(": expected a file, found a folder") for line in damaged)
    assert f"{len(paths)} stages read, 3 damaged objects found" in said


@pytest.mark.parametrize("name", ["_runs", "_runs/tiny"])
def test_a_file_in_the_place_of_the_records_keeps_all_stages(copied_run: "Run", name: str) -> None:
    place = Path(copied_run.config.store, name)
    place.rename(place.with_name("away"))
    place.write_bytes(b"")
    error = f"error: {name}: expected a folder, found a file; remove it\n"
    for command in (["status"], ["gc"], ["gc", "--yes", "--grace", "0"], ["explain", "--query", "0"]):
        assert layerlore(*command, copied_run.config.store, code=exits.FAILED) == error
    assert f"damaged: {error.removeprefix('error: ')}" in layerlore(
        "verify", copied_run.config.store, code=exits.FAILED
    )
    assert stage_paths(copied_run.job.store) != []


def test_a_desktop_s_own_file_beside_the_records_is_none(copied_run: "Run") -> None:
    Path(copied_run.config.store, "_runs", ".DS_Store").write_bytes(b"")
    assert run_names(copied_run.job.store) == ["tiny"]


# -------------------------------------------------------------------------------- overrides of content


def test_overrides_count_where_a_config_is_given_by_content(copied_run: "Run", tmp_path: Path) -> None:
    tree = {**copied_run.tree, "store": str(tmp_path / "a")}
    with session_of(tree, [f"store={copied_run.config.store}", "report.training_images=none"]) as session:
        assert session.plan.config.store == copied_run.config.store
        assert session.plan.config.report.training_images == "none"
    assert not (tmp_path / "a").exists()
    assert tree == {**copied_run.tree, "store": str(tmp_path / "a")}  # the caller's own is left alone
