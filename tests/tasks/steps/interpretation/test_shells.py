"""Gram matrices that grow from budget to budget: those of sums over each whole coreset, for every selector."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import complete
from tasks.interpreters.panels import panel_sums
from tasks.steps.interpretation import unit_gram as gram_module
from tasks.steps.interpretation.selection import kept_positions
from tasks.steps.interpretation.unit_gram import UNIT_GRAM, predicted_classes, read_system
from tests.plans import cells, references

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Doubles = NDArray[np.float64]
BUDGETS = [0.5, 0.1, 1.0, 0.3]
SELECTORS: dict[str, Tree] = {
    "class": {"random": {"repeats": 2}, "moderate": {}, "dgpruning": {}},
    "dataset": {"moderate": {"scope": "dataset", "min_per_class": 2}},
}


@pytest.fixture(scope="module")
def shell_runs(
    finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory
) -> "dict[str, Run]":
    """Return the tiny run with VEBI at four budgets, with coresets of each class and of the data set."""
    tree = copy.deepcopy(finished_run.at(str(tmp_path_factory.mktemp("shells") / "store")).tree)
    tree["networks"]["small"]["train"] |= {"epochs": 40, "optimizer": {"kind": "adam", "lr": 0.01}}
    tree["interpretation"] |= {"budgets": BUDGETS, "interpreters": {"vebi": {"mu": 2.0}}}
    found = {}
    for scope, selectors in SELECTORS.items():
        own = copy.deepcopy(tree)
        own["interpretation"]["selectors"] = selectors
        found[scope] = new_run(own).finish()
    return found


def grams(run: "Run") -> dict[tuple[str, int, float], StageSpec]:
    """Return the Gram matrices of a run by selector, repeat and budget."""
    return {(c.selector, c.repeat, c.budget): c.features.inputs["gram"] for c in cells(run.plan)}


def samples_of(run: "Run", spec: StageSpec) -> NDArray[np.int64]:
    """Return the positions of a coreset."""
    return np.sort(np.concatenate(kept_positions(open_finished(run.job.store, spec.inputs["selection"]))))


def by_loops(run: "Run", spec: StageSpec) -> tuple[Doubles, Doubles]:
    """Return X'X and X'L of a coreset, a sample at a time."""
    x = np.asarray(open_finished(run.job.store, spec.inputs["responses"]).read("responses"), np.float64)
    activations = spec.inputs["responses"].inputs["activations"]
    best = open_finished(run.job.store, activations).read("logits").argmax(axis=1)
    gram, moment = np.zeros((x.shape[1],) * 2), np.zeros((x.shape[1], 10))
    for row in samples_of(run, spec).tolist():
        gram += np.outer(x[row], x[row])
        moment[:, best[row]] += x[row]
    return gram, moment


@pytest.mark.parametrize("scope", SELECTORS)
def test_sums_that_grow_are_those_of_each_whole_coreset(shell_runs: "dict[str, Run]", scope: str) -> None:
    run = shell_runs[scope]
    for (selector, _, budget), spec in grams(run).items():
        gram, moment = read_system(open_finished(run.job.store, spec))
        direct, products = by_loops(run, spec)
        np.testing.assert_allclose(gram, direct, rtol=1e-12, atol=1e-14, err_msg=f"{selector} {budget}")
        np.testing.assert_allclose(moment, products, rtol=1e-12, atol=1e-14)
        np.testing.assert_array_equal(gram, gram.T)


def test_each_budget_reads_the_next_smaller_of_its_selector_and_draw(shell_runs: "dict[str, Run]") -> None:
    run, found = shell_runs["class"], grams(shell_runs["class"])
    for (selector, repeat, budget), spec in found.items():
        before = {0.1: None, 0.3: 0.1, 0.5: 0.3, 1.0: None}[budget]  # the full data is the same for all selectors
        smaller = spec.inputs.get("smaller")
        assert smaller == (None if before is None else found[selector, repeat, before])
        summary, kept = open_finished(run.job.store, spec).summary, samples_of(run, spec)
        inner = samples_of(run, smaller) if smaller is not None else np.zeros(0, np.int64)
        assert set(inner.tolist()) <= set(kept.tolist())
        assert (summary["samples"], summary["added"]) == (len(kept), len(kept) - len(inner))
        activations = spec.inputs["responses"].inputs["activations"]
        counts = np.bincount(predicted_classes(run.job.store, activations, kept), minlength=10)
        assert summary["predicted"] == counts.tolist()
        own = sum(marker["numbers"]["seconds"] for marker in open_finished(run.job.store, spec).markers())
        inside = 0.0 if smaller is None else open_finished(run.job.store, smaller).summary["seconds_chain"]
        assert summary["seconds"] == own > 0
        assert summary["seconds_chain"] == inside + own
    (full,) = references(run.plan).values()
    assert {spec.path for (_, _, budget), spec in found.items() if budget == 1} == {full.inputs["gram"].path}


def test_units_state_the_cost_of_the_fit_and_of_their_sums(shell_runs: "dict[str, Run]") -> None:
    run = shell_runs["class"]
    for cell in cells(run.plan):
        units, gram = (open_finished(run.job.store, s) for s in (cell.features, cell.features.inputs["gram"]))
        fit = sum(numbers["seconds"] for numbers in units.summary["classes"].values())
        expected = {"fit": fit, "shell": gram.summary["seconds"], "chain": gram.summary["seconds_chain"]}
        assert units.summary["seconds"] == expected


def test_coresets_that_do_not_nest_are_summed_whole(shell_runs: "dict[str, Run]", tmp_path: Path) -> None:
    run = shell_runs["class"].at(str(tmp_path / "store"))
    found, store = grams(run), run.job.store
    # A draw of another repeat does not hold the samples of this one.
    spec = gram_module.unit_gram_spec(
        found["random", 0, 0.5].inputs["responses"],
        found["random", 0, 0.5].inputs["selection"],
        found["random", 1, 0.3],
    )
    (stage,) = complete(run.job, UNIT_GRAM, [spec])
    assert not set(samples_of(run, found["random", 1, 0.3]).tolist()) <= set(samples_of(run, spec).tolist())
    assert stage.summary["added"] == stage.summary["samples"] == len(samples_of(run, spec))
    gram, moment = read_system(open_finished(store, spec))
    direct, products = by_loops(run, spec)
    np.testing.assert_allclose(gram, direct, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(moment, products, rtol=1e-12, atol=1e-14)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of samples of each sum."""
    seen: list[int] = []

    def sums(chunks: Any, *others: Any) -> Any:
        listed = list(chunks)
        seen.append(sum(len(x) for x, _ in listed))
        return panel_sums(listed, *others)

    monkeypatch.setattr(gram_module, "panel_sums", sums)
    return seen


def test_every_sample_of_a_selector_is_summed_once(
    shell_runs: "dict[str, Run]", tmp_path: Path, counted: list[int]
) -> None:
    run = shell_runs["class"].at(str(tmp_path / "store"))
    chain = [grams(run)["dgpruning", 0, budget] for budget in (0.1, 0.3, 0.5)]
    before = [as_bytes(run, spec) for spec in chain]
    for spec in chain:
        run.job.store.remove(spec.path)
    for spec in chain:
        complete(run.job, UNIT_GRAM, [spec])
    assert sum(counted) == len(samples_of(run, chain[-1]))
    assert counted == np.diff([0, *(len(samples_of(run, spec)) for spec in chain)]).tolist()
    assert [as_bytes(run, spec) for spec in chain] == before


def as_bytes(run: "Run", spec: StageSpec) -> list[bytes]:
    """Return the arrays of a Gram matrix as they are stored."""
    stage = open_finished(run.job.store, spec)
    return [np.asarray(stage.read(name)).tobytes() for name in ("gram", "moment")]


def test_a_chain_that_is_killed_in_the_middle_ends_with_the_same_bytes(
    shell_runs: "dict[str, Run]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram_module, "PANEL_BYTES", 8 * 20 * 6)  # several panels
    run = shell_runs["class"].at(str(tmp_path / "store"))
    chain = [grams(run)["moderate", 0, budget] for budget in (0.1, 0.3, 0.5)]

    def make() -> list[list[bytes]]:
        for spec in chain:
            complete(run.job, UNIT_GRAM, [spec])
        return [as_bytes(run, spec) for spec in chain]

    for spec in chain:
        run.job.store.remove(spec.path)
    whole = make()
    for spec in chain[1:]:
        run.job.store.remove(spec.path)
    panels = []

    def dies(*given: Any) -> Any:
        panels.append(0)
        if len(panels) == 2:
            raise KeyboardInterrupt
        return panel_sums(*given)

    with monkeypatch.context() as patched:
        patched.setattr(gram_module, "panel_sums", dies)
        with pytest.raises(KeyboardInterrupt):
            make()
    assert make() == whole


class Backwards(SerialPool):
    """Workers that end in the other order."""

    def map(self, function: Any, items: Any, *, network: bool = False) -> Any:
        yield from super().map(function, items[::-1], network=network)


def test_the_order_of_panels_does_not_change_the_bytes(
    shell_runs: "dict[str, Run]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram_module, "PANEL_BYTES", 8 * 20 * 6)
    run = shell_runs["class"].at(str(tmp_path / "store"))
    chain = [grams(run)["random", 0, budget] for budget in (0.1, 0.3)]
    made = []
    for pool in (SerialPool(), Backwards()):
        for spec in chain:
            run.job.store.remove(spec.path)
        for spec in chain:
            complete(replace(run.job, pool=pool), UNIT_GRAM, [spec])
        made.append([as_bytes(run, spec) for spec in chain])
    assert open_finished(run.job.store, chain[0]).layout.partitions > 1
    assert made[0] == made[1]


@pytest.mark.parametrize("chunk", [1, 8 * 20 * 5])
def test_chunks_change_nothing_beyond_rounding(
    shell_runs: "dict[str, Run]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    run = shell_runs["class"].at(str(tmp_path / "store"))
    spec = grams(run)["random", 1, 0.5]
    gram, moment = read_system(open_finished(run.job.store, spec))
    monkeypatch.setattr(gram_module, "CHUNK_BYTES", chunk)
    run.job.store.remove(spec.path)
    (stage,) = complete(run.job, UNIT_GRAM, [spec])
    other, products = read_system(stage)
    np.testing.assert_allclose(other, gram, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(products, moment, rtol=1e-12, atol=1e-14)


class Imagenet:
    """A survey of ResNet-50's units on a data set of some size."""

    def __init__(self, per_class: int) -> None:
        self.per_class = per_class

    def data(self, manifest: StageSpec) -> Any:
        counts = [self.per_class] * 1000
        return SimpleNamespace(split=lambda name: {"labels": list(range(1000)), "counts": counts})

    def look(self, spec: StageSpec, topic: str, look: object) -> tuple[int, ...]:
        return (22_720,)


def test_the_planned_memory_of_a_panel_is_far_below_the_matrix(shell_runs: "dict[str, Run]") -> None:
    spec = grams(shell_runs["class"])["moderate", 0, 0.5]
    few, many = (UNIT_GRAM.size(spec, Imagenet(n)).peak for n in (13, 1300))  # type: ignore[arg-type]  # a part of it
    assert many - few == 64 * 1000 * (1300 - 13)  # positions and predictions, no responses
    assert many < 8 * 22_720**2 / 8  # an eighth of the matrix of 4.1 GB
