"""`import layerlore`: light, complete, and ours wherever it is imported."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import layerlore

if TYPE_CHECKING:
    from tests.conftest import Run

HEAVY = {"torch", "numpy", "pandas", "zarr", "xarray", "plotly", "matplotlib", "prefect", "distributed", "pydantic"}


def python(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new process whose working directory is `folder`, which is searched first."""
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=200)


def test_the_import_loads_nothing_heavy(tmp_path: Path) -> None:
    done = python(tmp_path, "import layerlore, sys; print(*sorted(sys.modules))")
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize("name", layerlore.__all__)
def test_each_name_is_that_of_its_own_module(name: str) -> None:
    assert name in dir(layerlore)
    assert getattr(layerlore, name) is getattr(import_module(layerlore._HOME[name]), name)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'shape'; it has .*shape_distance"):
        layerlore.shape  # noqa: B018  # asked for its error


def test_ours_are_taken_where_a_project_has_folders_of_the_same_names(tmp_path: Path) -> None:
    for name in ("tasks", "configs", "flows", "storage"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("mine = True\n")
    code = "import layerlore; print(layerlore.shape_distance.__module__, len(layerlore.preset('digits')))"
    done = python(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "tasks.metrics.shape"
    clash = python(tmp_path, "import tasks, layerlore")
    assert clash.returncode == 1
    line = clash.stderr.splitlines()[-1]
    assert line.startswith("ImportError: package 'tasks': expected layerlore's, found ")
    assert line.endswith("import layerlore before it, or rename that folder")


def test_a_run_offers_its_tables_arrays_figures_and_cards(carded_run: "Run") -> None:
    run = layerlore.open_run(carded_run.config.store)
    assert layerlore.runs_of(carded_run.config.store) == ["carded"]
    assert list(run.stages["path"]) == [spec.path for spec in carded_run.plan.stages]
    (influence,) = [spec for spec in carded_run.plan.stages if spec.path.startswith("influence/")]
    by_kind, by_path = run.arrays["influence"], run.arrays[influence.path]
    assert by_kind.sizes == by_path.sizes
    assert by_kind["top_id"].dims[0] == "ranking"
    with pytest.raises(KeyError, match="array 'nothing': expected one of"):
        run.arrays["nothing"]
    assert any(name.startswith("tracing/") for name in run.figures)
    name = next(name for name in run.figures if name.startswith("interpretation/"))
    assert len(run.figures[name].data) > 0
    card = run.card(wrong=1)
    assert set(card.tables) >= {"answers", "deciding", "holding", "examples", "course of classes"}
    assert all(isinstance(table, pd.DataFrame) for table in card.tables.values())
    assert card.html.startswith("<!DOCTYPE html>")
    assert len(card.sentences) in (6, 7)  # a warning, where the network is at chance


def test_rich_displays_are_escaped(carded_run: "Run") -> None:
    run = layerlore.open_run(carded_run.config.store)
    shown = run._repr_html_()
    assert "carded" in shown
    assert "small" in shown
    card = run.card(wrong=1)
    assert 'src="data:image/png;base64,' in card._repr_html_()
    object.__setattr__(card.results, "network", "<script>alert(1)</script>")
    assert "<script>" not in card._repr_html_()
    assert "&lt;script&gt;" in card._repr_html_()


def test_a_store_without_runs_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(layerlore.StoreError):
        layerlore.open_run(str(tmp_path))
    with pytest.raises(layerlore.ConfigError, match=r"NAME: expected one of .*digits"):
        layerlore.preset("nothing")
