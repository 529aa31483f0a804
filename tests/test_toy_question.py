"""A new question needs its own folders, a line in `QUESTIONS` with its import, and a field in `Config` with its import.

A toy question (one kind of stage, a plan, a page) is put into a copy of the sources and run from the command line.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.numpy import load_file

from storage.runs import records
from storage.stores import open_store
from tests.shared import prefect_home

if TYPE_CHECKING:
    from tests.conftest import Tree

ROOT = Path(__file__).resolve().parent.parent
TOY = Path(__file__).resolve().parent / "toy"
LINES = {  # what is added to files that are there: a line before another line
    "tasks/steps/questions.py": {
        "from tasks.steps.tracing.question import TRACING": "from tasks.steps.toy.question import TOY",
        '    "tracing": TRACING,': '    "toy": TOY,',
    },
    "configs/schema.py": {
        "from configs.tracing import Tracing": "from configs.toy import Toy",
        "    tracing: Tracing | None = None": "    toy: Toy | None = None",
    },
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the sources with the toy question in it."""
    root = tmp_path_factory.mktemp("house")
    for package in ("configs", "flows", "storage", "tasks"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in TOY.rglob("*.txt"):
        target = root / file.relative_to(TOY).with_suffix("")
        assert not target.exists(), target
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for name, lines in LINES.items():
        text = (root / name).read_text()
        for before, line in lines.items():
            assert text.count(f"{before}\n") == 1, before
            text = text.replace(f"{before}\n", f"{line}\n{before}\n")
        (root / name).write_text(text)
    prefect_home(tmp_path_factory, root / "prefect")
    return root


def layerlore(house: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the copy."""
    keep = ("PATH", "HOME", "OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    environment = {name: os.environ[name] for name in keep if name in os.environ}
    environment |= {"PYTHONPATH": str(house), "PREFECT_HOME": str(house / "prefect")}
    command = [sys.executable, "-m", "flows.cli", *words]
    return subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True, check=False, timeout=240)


def test_two_lines_and_two_imports_are_all_that_a_question_adds_to_old_files() -> None:
    assert len(LINES) == 2
    assert [len(lines) for lines in LINES.values()] == [2, 2]


@pytest.mark.slow
@pytest.mark.cluster
def test_a_toy_question_is_planned_run_and_reported(house: Path, tiny_tree: "Tree") -> None:
    tree = {key: value for key, value in tiny_tree.items() if key != "interpretation"}
    tree |= {"store": "store", "toy": {"networks": ["small"]}}
    (house / "toy.yaml").write_text(yaml.safe_dump(tree))
    planned = layerlore(house, "plan", "toy.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "3 stages, 3 to make" in planned.stdout
    refused = layerlore(house, "plan", "toy.yaml", "--set", "toy.power=5")
    assert (refused.returncode, refused.stderr) == (2, "error: toy.power: expected at most 4, found more; take 2\n")
    ran = layerlore(house, "run", "toy.yaml")
    assert ran.returncode == 0, ran.stderr
    assert "report: " in ran.stdout
    state = layerlore(house, "status", "store")
    assert "3 of 3 stages complete" in state.stdout
    again = layerlore(house, "report", "toy.yaml")
    assert again.returncode == 0, again.stderr
    report = house / "store" / "reports" / "tiny"
    table = pd.read_parquet(report / "tables" / "norms.parquet")
    (weights,) = (house / "store").glob("training/*/files/weights.safetensors")
    expected = {n: float(np.linalg.norm(w.astype(np.float64))) for n, w in load_file(weights).items() if w.ndim}
    found = dict(zip(table["tensor"], table["norm"], strict=True))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), rtol=1e-12)
    page = (report / "toy.html").read_text()
    assert "<h1>How large are the weights?</h1>" in page
    assert all(name in page for name in expected)
    assert re.search(r'href="toy\.html"', (report / "index.html").read_text())
    (record,) = records(open_store(str(house / "store")), "tiny")
    assert [stage["path"].split("/")[0] for stage in record.stages] == ["manifest", "training", "norms"]
