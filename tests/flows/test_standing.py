"""What `status`, `plan`, `verify` and `gc` say of a store: a line for each run, JSON for programs, and estimates."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from configs.load import ConfigError
from flows import exits
from flows.estimates import estimated
from flows.terminal import age_text, print_json
from storage.processes import process_identity
from storage.runs import close_record, records, write_record
from storage.stores import open_store
from tests.flows.command import Write, layerlore
from tests.plans import cells

if TYPE_CHECKING:
    from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("wide")


def document(*arguments: str, code: int = exits.DONE) -> dict[str, Any]:  # Any: JSON
    """Run a command with --json and return its document."""
    result = layerlore(*arguments, "--json")
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_status_has_a_line_for_a_run_with_its_bytes_and_report(copied_run: "Run", write: Write) -> None:
    store = copied_run.config.store
    assert layerlore("report", write(copied_run.tree)).exit_code == 0
    (line,) = layerlore("status", store).stdout.splitlines()
    assert line.startswith("tiny: done, 21 of 21 stages complete, ")
    assert line.endswith(f", report {store}/reports/tiny/index.html")
    (run,) = document("status", store)["runs"]
    paths = [Path(store, spec.path) for spec in copied_run.plan.stages]
    assert run["size"] == sum(file.stat().st_size for path in paths for file in path.rglob("*") if file.is_file())
    assert (run["state"], run["complete"], len(run["stages"]), run["missing"]) == ("done", 21, 21, {})


def test_stages_are_shown_where_some_are_missing_or_asked_for(copied_run: "Run") -> None:
    store, kept = copied_run.config.store, copied_run.plan.stages[:5]
    assert len(layerlore("status", store, "--stages").stdout.splitlines()) == 1 + 1 + 21  # the line and a table
    for spec in copied_run.plan.stages[5:]:
        shutil.rmtree(Path(store, spec.path))
    lines = layerlore("status", store).stdout.splitlines()
    assert lines[0].startswith("tiny: done, 5 of 21 stages complete, ")
    assert lines[-1].strip() == "and 6 more; --stages shows every stage"
    assert len(lines) == 1 + 1 + 10 + 1
    assert not any(spec.key[:8] in line for line in lines for spec in kept)
    missing = document("status", store)["runs"][0]["missing"]
    assert sorted(missing) == sorted(spec.title for spec in copied_run.plan.stages[5:])


@pytest.mark.skipif(not process_identity(os.getpid()), reason="the kernel gives no identities of processes")
def test_a_run_that_was_killed_is_not_called_running(copied_run: "Run") -> None:
    store = open_store(copied_run.config.store)
    script = "import os; from storage.processes import process_identity; print(process_identity(os.getpid()))"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    for identity, state in ((ended, "killed"), (process_identity(os.getpid()), "running"), ("", "running")):
        write_record(store, "tiny", copied_run.tree, [*copied_run.plan.stages], {"process": identity})
        assert layerlore("status", copied_run.config.store).stdout.startswith(f"tiny: {state}, ")


def test_the_error_of_a_failed_run_is_shown(copied_run: "Run") -> None:
    store = open_store(copied_run.config.store)
    close_record(store, records(store, "tiny")[-1], "failed", error="the [reason]")
    assert layerlore("status", copied_run.config.store).stdout.splitlines()[1] == "  the [reason]"


def test_json_of_plan_verify_and_gc(copied_run: "Run", write: Write) -> None:
    store, spec = copied_run.config.store, cells(copied_run.plan)[0].evaluation
    planned = document("plan", write(copied_run.tree))
    assert (planned["run"], planned["to_make"], planned["bytes"], len(planned["stages"])) == ("tiny", 0, 0, 21)
    assert any(note.startswith("last-map of small: relu in ") for note in planned["notes"])
    assert document("verify", store) == {"store": store, "stages": 21, "damaged": []}
    note = Path(store, spec.path, "markers", "complete.json")
    note.write_bytes(note.read_bytes()[:-9])
    (damaged,) = document("verify", store, code=exits.FAILED)["damaged"]
    assert spec.key in damaged
    shutil.rmtree(Path(store, "_runs"))
    found = document("gc", store)
    assert (len(found["garbage"]), found["bytes"], found["deleted"]) == (21, 0, False)  # all are young
    assert all(one["kept"] for one in found["garbage"])


def test_json_has_null_for_a_number_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"runs": ({"age": float("nan"), "size": 1},), "seconds": float("inf")})
    assert json.loads(capsys.readouterr().out) == {"runs": [{"age": None, "size": 1}], "seconds": None}


def test_plan_estimates_by_the_mean_time_of_a_kind(copied_run: "Run") -> None:
    store = open_store(copied_run.config.store)
    assert estimated(store, ["training"]).seconds is None  # that run was made without a journal
    timings = {"training": {"stages": 2, "seconds": 10.0}, "features": {"stages": 4, "seconds": 6.0}}
    close_record(store, records(store, "tiny")[-1], "done", timings=timings)
    found = estimated(store, ["features", "training", "features", "cards"])
    assert found.seconds == 1.5 + 5 + 1.5
    assert [*found.lines()] == ["about 8 s by the times of earlier runs in this store, without cards"]
    assert estimated(store, []).seconds is None
    assert estimated(None, ["training"]).seconds is None


def test_spans_of_time() -> None:
    spans = (0, 59, 61, 3599, 3700, 40 * 3600, 49 * 3600, 240 * 3600)
    assert [age_text(span) for span in spans] == ["0 s", "59 s", "1 min", "60 min", "1 h", "40 h", "2 days", "10 days"]


def test_the_version_is_that_of_the_package() -> None:
    assert layerlore("--version").stdout.strip() == "layerlore 0.1.0"


def test_verbose_prints_each_partition_and_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("flows.command.answer", fail)
    for words, shown in (((), False), (("--verbose",), True)):
        result = layerlore("run", "digits", *words)
        assert result.exit_code == exits.FAILED
        assert ("Traceback" in result.stderr) is shown
        assert result.stderr.splitlines()[-1].startswith("error: ZeroDivisionError: by zero")
    monkeypatch.setattr("flows.command.answer", lambda *_: (_ for _ in ()).throw(ConfigError("bad")))
    assert layerlore("run", "digits", "--verbose").stderr == "error: bad\n"


def test_a_file_of_another_program_among_the_records_does_not_end_status(copied_run: "Run") -> None:
    folder = Path(copied_run.config.store, "_runs", "tiny")
    (record,) = folder.iterdir()
    shutil.copy(record, folder / f"{record.name}~")
    (line,) = layerlore("status", copied_run.config.store).stdout.splitlines()
    assert line.startswith("tiny: done, 21 of 21 stages complete, unknown time ago")
