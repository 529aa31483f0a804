"""The example script for foreign loops runs as a user runs it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs/examples/record_training.py"


def run(store: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run the script from another folder."""
    command = [sys.executable, str(SCRIPT), str(store), *more]
    return subprocess.run(command, cwd=store.parent, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("parts", [1, 4])
def test_the_example_records_and_explains(tmp_path: Path, parts: int) -> None:
    done = run(tmp_path / "lore", "--epochs", "5", "--parts", str(parts))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("235 updates, last loss 0.")  # 1,500 digits in batches of 32, five times
    assert lines[1] == "query: a 0, answered 0"
    scores = [float(re.fullmatch(r"example \d+: a \d, contribution (-?[\d.]+)", line)[1]) for line in lines[2:]]  # type: ignore[index]  # a mismatch fails
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert sum(": a 0," in line for line in lines[2:]) >= 3  # nulls teach a null
    again = run(tmp_path / "lore")
    assert again.returncode == 1
    assert (
        "expected an unfinished archive, found a finished one of 235 steps; read it, or record elsewhere"
        in again.stderr
    )


def test_three_lines_record_it() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert sum("recorder" in line for line in text.split("def train")[1].split("return")[0].splitlines()) == 3
