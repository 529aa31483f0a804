"""`layerlore compare`: settings that differ, accuracy and main figures of runs, against their stages."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from flows.comparing import _page_name
from storage.stages import open_finished
from tests.conftest import Run, Tree, tiny_config
from tests.flows.command import layerlore, refused


def run_of(tree: Tree, name: str, width: int = 4, seeds: tuple[int, ...] = (0, 1)) -> Run:
    """Make a run of the tiny config under another name, with another width."""
    changed = copy.deepcopy(tree)
    changed |= {"name": name, "seeds": list(seeds)}
    changed["networks"]["small"]["arguments"]["width"] = width
    return Run.of(changed).finish()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Run, Run]:
    """A store with two finished runs of two seeds each."""
    store = str(tmp_path_factory.mktemp("compared") / "store")
    tree = tiny_config(store)
    return store, run_of(tree, "narrow"), run_of(tree, "wide", width=6)


def accuracies(run: Run) -> list[float]:
    """Return the accuracy on held-out images of each seed, from the stored logits."""
    found = []
    for answer in run.plan.answers["interpretation"]:
        stage = open_finished(run.job.store, answer.held_out)
        found.append(float((stage.read("logits").argmax(axis=1) == stage.read("label")).mean()))
    return found


def test_settings_and_figures_are_those_of_the_runs(runs: tuple[str, Run, Run]) -> None:
    store, narrow, wide = runs
    done = layerlore("compare", store, "narrow", "wide", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["runs"] == ["narrow", "wide"]
    assert found["settings"] == {"networks.small.arguments.width": {"narrow": "4", "wide": "6"}}
    first = found["figures"][0]
    assert (first["question"], first["figure"], first["unit"]) == ("network", "accuracy", "share")
    for name, run in (("narrow", narrow), ("wide", wide)):
        expected = accuracies(run)
        assert first["values"][name]["seeds"] == 2
        np.testing.assert_allclose(first["values"][name]["mean"], np.mean(expected), rtol=1e-12)
        np.testing.assert_allclose(first["values"][name]["std"], np.std(expected, ddof=1), rtol=1e-9, atol=1e-12)
    assert {each["question"] for each in found["figures"]} == {"network", "interpretation"}
    assert all(set(each["values"]) == {"narrow", "wide"} for each in found["figures"])


def test_the_terminal_has_the_tables_and_the_page_lies_next_to_the_report(runs: tuple[str, Run, Run]) -> None:
    store, _, _ = runs
    done = layerlore("compare", store, "narrow", "wide")
    assert done.exit_code == 0, done.output
    said = done.stdout
    assert said.startswith("1 setting differs. Right answers on held-out images: narrow ")
    assert "networks.small.arguments.width" in said
    assert " ± " in said
    page = Path(said.splitlines()[-1].removeprefix("comparison: "))
    assert page == Path(store) / "reports" / "narrow" / "compare-wide.html"
    html = page.read_text()
    assert "How do narrow and wide differ?" in html
    assert '<ol class="bars"' in html
    for reference in ("assets/style.css", "assets/site.js", "index.html", "interpretation.html"):
        assert reference in html
        assert (page.parent / reference).is_file()
    assert "plotly" not in html


def test_the_order_of_the_runs_is_that_of_the_command(runs: tuple[str, Run, Run]) -> None:
    store, _, _ = runs
    found = json.loads(layerlore("compare", store, "wide", "narrow", "--json").stdout)
    assert found["runs"] == ["wide", "narrow"]
    assert found["page"].endswith("reports/wide/compare-narrow.html")
    assert list(found["figures"][0]["values"]) == ["wide", "narrow"]


def test_one_run_compares_its_networks(runs: tuple[str, Run, Run]) -> None:
    store, narrow, _ = runs
    found = json.loads(layerlore("compare", store, "narrow", "--json").stdout)
    assert found["settings"] == {}
    assert list(found["figures"][0]["values"]) == ["small"]
    assert found["figures"][0]["values"]["small"]["seeds"] == len(accuracies(narrow))


def test_unknown_repeated_and_unfinished_runs_are_refused_in_one_line(runs: tuple[str, Run, Run]) -> None:
    store, _, _ = runs
    said = refused(layerlore("compare", store, "narrow", "none"))
    assert said == "RUN: expected one of the runs narrow, wide, found 'none'"
    assert refused(layerlore("compare", store, "wide", "wide")) == "RUN: expected different runs, found 'wide' twice"
    assert f"{store}-nowhere" in refused(layerlore("compare", f"{store}-nowhere", "narrow", "wide"), 1)
    assert layerlore("compare", store).exit_code == 2


def test_a_run_with_a_missing_stage_is_refused(runs: tuple[str, Run, Run], tmp_path: Path) -> None:
    _, narrow, _ = runs
    copied = narrow.at(str(tmp_path / "store"))
    copied.job.store.remove(copied.plan.answers["interpretation"][0].finals[0].path)
    said = refused(layerlore("compare", copied.config.store, "narrow", "wide"))
    assert "run narrow: expected complete stages, found 1 of " in said


def test_pages_of_other_runs_have_other_names() -> None:
    named = [_page_name(others) for others in ((), ("networks",), ("b-c",), ("b", "c"), ("a" * 60,) * 5)]
    assert named[:4] == ["compare.html", "compare-networks.html", "compare-b-c.html", "compare-b+c.html"]
    assert len(set(named)) == 5
    assert max(map(len, named)) < 255
