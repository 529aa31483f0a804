"""The Python examples of the pages run: those that read a store or record, and what CONTRIBUTING adds."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from configs.schema import Config
from flows.plan import make_plan
from tasks.coresets.selection import Floats, Selection
from tasks.engine.life import Job
from tasks.engine.records import recorded
from tasks.recording import open_updates
from tasks.steps.report import write_report
from tasks.tracing import Influential
from tests.conftest import Tree
from tests.plans import complete_plan

if TYPE_CHECKING:
    from tests.conftest import Run

ROOT = Path(__file__).resolve().parents[2]
UPDATES = "## Updates"  # the part of docs/store.md that reads a recorded training


def examples(page: str, after: str = "", before: str = "") -> list[str]:
    """The Python blocks of a page, indented ones too, or of the part between two headings."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert after in text, after
    text = text[text.index(after) :]
    if before:
        text = text[: text.index(before)]
    blocks = re.findall(r"^( *)```python\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for _, block in blocks]


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
    with recorded(job.store, config, plan.stages):
        complete_plan(plan, job)
    write_report(job.store, plan.made(), created="now", reused=frozenset())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in examples("docs/store.md", before=UPDATES):
        exec(compile(block, "docs/store.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "phi_0_mean" in printed
    assert "label_given" in printed
    assert "(10, 3, 8)" in printed  # classes, components, channels of the tiny network


@pytest.mark.filterwarnings("default")  # of xarray's own imports
def test_reading_updates(
    traced_tree: Tree,
    make_job: Callable[[Config], Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train = {**traced_tree["networks"]["small"]["train"], "batches": {"kind": "single-example"}}
    mlp = {"model": "mlp", "arguments": {"sizes": [64, 8, 10], "bias": False}, "train": train}
    networks = {"mlp": {**mlp, "preprocessing": {"mode": "L"}}}
    asked = {"networks": ["mlp"], "queries": {"count": 4}}
    store = str(tmp_path / "lore")
    tree = {**traced_tree, "name": "tracing-digits", "store": store, "networks": networks, "tracing": asked}
    train["optimizer"] = {"kind": "sgd", "lr": 0.05}  # as in the preset: examples only, without decay
    config = Config.model_validate(tree)
    plan, job = make_plan(config), make_job(config)
    with recorded(job.store, config, plan.stages):
        complete_plan(plan, job)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in examples("docs/store.md", after=UPDATES):
        exec(compile(block, "docs/store.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "dense ['1', '3'] 120" in printed  # 60 digits, two epochs
    assert "query 0: examples" in printed


def test_recording_a_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in examples("docs/tracing.md"):
        exec(compile(block, "docs/tracing.md", "exec"), names)
    influence = names["influence"]
    assert isinstance(influence, Influential)
    assert influence.ids.shape == (5, 10)
    assert (np.diff(influence.sums) <= 0).all()
    printed = capsys.readouterr().out
    assert str(influence.ids[0]) in printed
    parts = open_updates("lore-of-parts")
    assert [ids.tolist() for ids in parts.examples[:2]] == [list(range(0, 60, 3)), list(range(1, 60, 3))]
    assert parts.steps == 10


@pytest.fixture(scope="module")
def select_central() -> Callable[..., Selection]:
    """The selector that CONTRIBUTING writes."""
    names: dict[str, object] = {}
    (block,) = examples("CONTRIBUTING.md")
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    select_central = names["select_central"]
    assert callable(select_central)
    return select_central


def test_the_selector_of_contributing_keeps_what_it_says(select_central: Callable[..., Selection]) -> None:
    features = np.array([[-9.0], [0.0], [1.0], [2.0], [6.0]], dtype=np.float32)  # centre 0
    np.testing.assert_array_equal(select_central(features, 0.6).order, [1, 2, 3])
    np.testing.assert_array_equal(select_central(features, 1.0).kept, np.arange(5))


def test_the_selector_of_contributing_refuses_a_wrong_centre(select_central: Callable[..., Selection]) -> None:
    row: Floats = np.zeros((1, 1))
    with pytest.raises(ValueError, match="center: expected 'mean' or 'median', found 'mode'"):
        select_central(row, 0.5, center="mode")


@pytest.mark.parametrize("page", ["docs/decomposition.md", "docs/graphs.md"])
def test_short_examples_run(page: str) -> None:
    """That of graphs defines a method, which is compiled and then called with a stand-in network."""
    names: dict[str, Any] = {}
    for block in examples(page):
        exec(compile(block, page, "exec"), names)
    if page == "docs/decomposition.md":
        assert names["logits"].shape == (100, 3)
        return
    assert callable(names["forward"])


def test_the_notebook_door_of_the_readme(carded_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = carded_run.at(str(tmp_path / "lore"))
    write_report(run.job.store, run.plan.made(), created="now", reused=frozenset())
    monkeypatch.chdir(tmp_path)
    (block,) = examples("README.md")
    assert '"lore/", "all-digits"' in block
    names: dict[str, Any] = {}
    exec(compile(block.replace("all-digits", "carded"), "README.md", "exec"), names)
    assert {"by_budget"} <= set(names["run"].tables)
