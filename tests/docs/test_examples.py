"""The Python examples of the pages run: those that read a store, and the selector that CONTRIBUTING adds."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from configs.schema import Config
from flows.plan import make_plan
from tasks.coresets.selection import Floats, Selection
from tasks.steps.life import Job
from tasks.steps.records import recorded
from tasks.steps.report import write_report
from tests.conftest import Tree, complete_plan

ROOT = Path(__file__).resolve().parents[2]


def examples(page: str) -> list[str]:
    """The Python blocks of a page, indented ones too."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = re.findall(r"^( *)```python\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in found]


@pytest.mark.filterwarnings("default")  # of xarray's own imports
def test_reading_a_store(
    tiny_tree: Tree,
    make_job: Callable[[Config], Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = Config.model_validate({**tiny_tree, "name": "digits", "store": str(tmp_path / "lore")})
    plan, job = make_plan(config), make_job(config)
    with recorded(config, plan.stages):
        complete_plan(plan, job)
    write_report(job.store, plan.answers(), created="now", reused=frozenset())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in examples("docs/store.md"):
        exec(compile(block, "docs/store.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "phi_0_mean" in printed
    assert "label_given" in printed
    assert "(10, 3, 8)" in printed  # classes, components, channels of the tiny network


@pytest.fixture(scope="module")
def select_central() -> Callable[..., Selection]:
    """The selector that CONTRIBUTING writes."""
    names: dict[str, object] = {}
    (block,) = examples("CONTRIBUTING.md")
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    found = names["select_central"]
    assert callable(found)
    return found


def test_the_selector_of_contributing_keeps_what_it_says(select_central: Callable[..., Selection]) -> None:
    features = np.array([[-9.0], [0.0], [1.0], [2.0], [6.0]], dtype=np.float32)  # centre 0
    np.testing.assert_array_equal(select_central(features, 0.6).order, [1, 2, 3])
    np.testing.assert_array_equal(select_central(features, 1.0).kept, np.arange(5))


def test_the_selector_of_contributing_refuses_a_wrong_centre(select_central: Callable[..., Selection]) -> None:
    row: Floats = np.zeros((1, 1))
    with pytest.raises(ValueError, match="center: expected 'mean' or 'median', got 'mode'"):
        select_central(row, 0.5, center="mode")
