"""The notebooks of the documentation run from top to bottom, and what their cells end with can be shown."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "docs" / "notebooks").glob("*.ipynb"))
SHOWN = """
def _shown(value):
    rich = getattr(value, "_repr_html_", None)
    text = rich() if rich is not None else repr(value)
    assert text, value
    print("SHOWN", type(value).__name__, len(text))
"""


def cells_of(notebook: Path) -> list[str]:
    """Return the code of a notebook's cells."""
    document = json.loads(notebook.read_text(encoding="utf-8"))
    assert document["nbformat"] == 4
    return ["".join(cell["source"]) for cell in document["cells"] if cell["cell_type"] == "code"]


def as_script(cells: list[str]) -> tuple[str, int]:
    """Return one script of all cells that shows what each ends with, and the number of shown values."""
    parts, shown = [SHOWN], 0
    for cell in cells:
        tree = ast.parse(cell)
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = tree.body[-1]
            last.value = ast.Call(ast.Name("_shown", ast.Load()), [last.value], [])
            shown += 1
        parts.append(ast.unparse(ast.fix_missing_locations(tree)))
    return "\n".join(parts), shown


def test_there_are_three_notebooks_without_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first-look", "own-loop-to-card", "own-network-and-data"]
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, tmp_path: Path) -> None:
    script, shown = as_script(cells_of(notebook))
    (tmp_path / "notebook.py").write_text(script)
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path / "prefect"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "notebook.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=840
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("SHOWN")]
    assert len(lines) == shown
    assert any(line.startswith("SHOWN Run") for line in lines)
    assert any(line.startswith("SHOWN Card") for line in lines)
