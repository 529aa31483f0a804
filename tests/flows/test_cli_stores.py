"""Commands on a store with a finished run: what they say of it, of damage in it, and what `gc` deletes."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows import exits
from storage.claims import claim
from storage.documents import decode, encode
from tests.flows.command import Write, layerlore, refused
from tests.plans import cells, learned

if TYPE_CHECKING:
    from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("wide")


def test_plan_says_what_is_there_and_what_is_not(write: Write, finished_run: "Run") -> None:
    tree = {**finished_run.tree, "interpretation": {**finished_run.tree["interpretation"], "budgets": [0.25, 1.0]}}
    before = sorted(Path(finished_run.config.store).rglob("*"))
    done = layerlore("plan", write(finished_run.tree))
    assert done.stdout.splitlines()[-1] == "21 stages, 0 to make, at most 0 B to write"
    result = layerlore("plan", write(tree))
    assert result.exit_code == 0
    assert "missing" in next(line for line in result.stdout.splitlines() if "moderate 0.25" in line)
    assert "complete" in next(line for line in result.stdout.splitlines() if " training " in line)
    assert re.search(r"^21 stages, 13 to make, at most [\d.]+ kB to write$", result.stdout, re.M), result.stdout
    assert sorted(Path(finished_run.config.store).rglob("*")) == before


def test_plan_calls_a_started_stage_partial(write: Write, copied_run: "Run") -> None:
    spec = next(iter(learned(copied_run.plan).values()))
    Path(copied_run.config.store, spec.path, "markers", "complete.json").unlink()
    lines = layerlore("plan", write(copied_run.tree)).stdout.splitlines()
    assert "partial" in next(line for line in lines if spec.key[:8] in line)


def test_a_finished_run_is_answered_without_prefect_and_dask(write: Write, copied_run: "Run") -> None:
    script = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "loaded = [m for m in ('prefect', 'distributed', 'dask') if m in sys.modules]\n"
        "print('loaded', code, loaded)"
    )
    path = write(copied_run.tree)
    assert layerlore("report", path).exit_code == 0
    command = [sys.executable, "-c", script, "run", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=True)
    lines = done.stdout.splitlines()
    assert lines == [f"report: {copied_run.config.store}/reports/tiny/index.html", "loaded 0 []"]
    assert done.stderr == f"all 21 stages are complete in {copied_run.config.store}\n"
    records = Path(copied_run.config.store, "_runs", "tiny")
    assert len(list(records.iterdir())) == 1  # nothing ran, so nothing is recorded


def test_status_of_a_store(copied_run: "Run") -> None:
    done = layerlore("status", copied_run.config.store)
    assert done.stdout.splitlines()[0].startswith("tiny: done, 21 of 21 stages complete, ")
    spec = cells(copied_run.plan)[0].evaluation
    shutil.rmtree(Path(copied_run.config.store, spec.path))
    lines = layerlore("status", copied_run.config.store, "--run", "tiny").stdout.splitlines()
    assert lines[0].startswith("tiny: done, 20 of 21 stages complete, ")
    assert "missing" in next(line for line in lines if spec.key[:8] in line)
    assert "expected one of the runs tiny, found 'other'" in refused(
        layerlore("status", copied_run.config.store, "--run", "other"), exits.FAILED
    )


def test_report_is_written_from_the_store_alone(write: Write, copied_run: "Run") -> None:
    shutil.rmtree(Path(copied_run.config.store, "reports"), ignore_errors=True)
    result = layerlore("report", write(copied_run.tree))
    page = Path(copied_run.config.store, "reports", "tiny", "index.html")
    assert result.stdout.strip() == f"report: {page}"
    assert page.is_file()
    shutil.rmtree(Path(copied_run.config.store, cells(copied_run.plan)[0].evaluation.path))
    text = refused(layerlore("report", write(copied_run.tree)))
    assert (
        text == f"{copied_run.config.store}: expected complete stages, found 1 incomplete; `layerlore run` the config"
    )


def flip(file: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def test_verify_finds_nothing_in_a_sound_store(finished_run: "Run") -> None:
    result = layerlore("verify", finished_run.config.store)
    assert (result.exit_code, result.stdout) == (0, "21 stages read, 0 damaged objects found\n")


def test_verify_names_a_flipped_byte_in_every_kind_of_file(copied_run: "Run") -> None:
    store = Path(copied_run.config.store)
    expected = []
    for kind in ("manifest", "training", "activations", "selection", "features", "evaluation", "gallery"):
        stage = sorted((store / kind).iterdir())[0]
        victim = sorted(f for f in (*stage.rglob("c/**/*"), *stage.rglob("files/*")) if f.is_file())[-1]
        flip(victim)
        expected.append(victim.relative_to(store).as_posix())
    flip(sorted((store / "selection").iterdir())[1] / "markers" / "000000.json")
    result = layerlore("verify", str(store))
    assert result.exit_code == exits.FAILED
    lines = result.stdout.splitlines()
    assert lines[-1] == "21 stages read, 8 damaged objects found"
    for place in expected:
        assert sum(place in line for line in lines) == 1, (place, lines)
    (hint,) = result.stderr.splitlines()
    assert hint.startswith("remove the folder of each damaged stage and run its config again")


@pytest.mark.parametrize("kind", ["manifest", "training", "activations", "selection", "features"])
def test_a_reading_stage_refuses_damage(copied_run: "Run", kind: str) -> None:
    store = Path(copied_run.config.store)
    readers = {
        "manifest": ("activations", "manifest.parquet"),
        "training": ("activations", "weights"),
        "activations": ("features", "maps"),
        "selection": ("features", "order"),
        "features": ("evaluation", "components"),
    }
    reader, what = readers[kind]
    for later in ("activations", "selection", "features", "evaluation", "gallery"):
        if later == reader or kind in ("manifest", "training"):
            shutil.rmtree(store / later)
    for stage in (store / kind).iterdir():
        for victim in (*stage.rglob(f"{what}/c/**/*"), *stage.glob(f"files/{what}*")):
            if victim.is_file():
                flip(victim)
    with pytest.raises(Exception, match=what) as caught:
        copied_run.finish()
    assert kind in str(caught.value)
    assert not list((store / reader).glob("*/markers/complete.json"))


def age(folder: Path, hours: float) -> None:
    """Make everything below a folder older."""
    then = time.time() - 3600 * hours
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def test_gc_lists_then_deletes_only_what_no_run_refers_to(copied_run: "Run") -> None:
    store = Path(copied_run.config.store)
    assert layerlore("gc", str(store)).stdout == "0 B would be freed; add --yes to delete\n"
    record = next((store / "_runs" / "tiny").iterdir())
    kept = decode(record.read_bytes(), "record")
    orphans = [spec.path for spec in copied_run.plan.stages if spec.stage in ("evaluation", "gallery")]
    record.unlink()
    kept["stages"] = [stage for stage in kept["stages"] if stage["path"] not in orphans]
    record.write_bytes(encode(kept))
    young = layerlore("gc", str(store), "--yes")
    assert len(re.findall(r"kept \(written \d\.\d h ago\)", young.stdout)) == len(orphans) == 5
    for path in orphans:
        age(store / path, 30)
    listed = layerlore("gc", str(store))
    assert listed.stdout.count("would delete: ") == 5
    assert all((store / path / "markers" / "complete.json").exists() for path in orphans)
    with claim(copied_run.job.store, orphans[0], "someone"):
        deleted = layerlore("gc", str(store), "--yes")
    assert f"kept ({orphans[0].replace('/', '-')} is held by someone" in deleted.stdout
    assert deleted.stdout.count("deleted: ") == 4
    assert [(store / path).exists() for path in orphans] == [True, False, False, False, False]
    assert layerlore("verify", str(store)).exit_code == 0


def test_gc_stops_at_a_damaged_record(copied_run: "Run") -> None:
    flip(next(Path(copied_run.config.store, "_runs", "tiny").iterdir()))
    text = refused(layerlore("gc", copied_run.config.store, "--yes"), exits.FAILED)
    assert "remove that file once its run is not needed, then collect again" in text
    assert layerlore("verify", copied_run.config.store).exit_code == exits.FAILED
