"""Stages that are made together: each is what it is alone, whatever networks, seeds and settings are there."""

import copy
import importlib
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import nnls

import tasks.steps
from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.engine.life import complete
from tasks.engine.step import Step
from tasks.interpreters import INTERPRETERS, Features, Interpreter
from tasks.steps.common.activations import ranges_by_class
from tasks.steps.concepts.responses import RESPONSES
from tasks.steps.decomposition.ablation import ABLATION
from tasks.steps.decomposition.histogram import STRONGEST, histogram_spec
from tasks.steps.decomposition.scores import SCORES
from tasks.steps.interpretation.evaluation import EVALUATION
from tasks.steps.interpretation.methods import METHODS, one_stage
from tasks.steps.interpretation.selection import SELECTION
from tasks.steps.interpretation.unit_evaluation import UNIT_EVALUATION
from tasks.steps.taught.projected import NEURON_CONTRIBUTIONS
from tests.plans import cells, decomposed, references

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Doubles = NDArray[np.float64]
NETWORKS, SEEDS = ("small", "other"), (0, 1)
GROUPED: dict[str, Step] = {
    "selection": SELECTION,
    "evaluation": EVALUATION,
    "unit-evaluation": UNIT_EVALUATION,
    "responses": RESPONSES,
    "strongest": STRONGEST,
    "head-scores": SCORES,
    "ablation": ABLATION,
}


ELSEWHERE = (NEURON_CONTRIBUTIONS,)  # tests/tasks/steps/taught/test_taught.py


def fit_channels(maps: NDArray[Any], *, seed: Any, channels: int = 2) -> Features:  # Any: float16 or float32; unused
    """Take as features the channels with the largest sums, which a projection onto their axes reads back."""
    chosen = np.argsort(-maps.sum(axis=(0, 1, 2)))[:channels]
    return Features({"axes": np.eye(maps.shape[-1], dtype=np.float32)[chosen]}, {})


CHANNELS = Interpreter(
    fit=fit_channels,
    shapes=lambda n_channels, *, channels=2: {"axes": (channels, n_channels)},
    encode=lambda arrays, maps: maps @ arrays["axes"].T,
    reconstruct=lambda arrays, codes: codes @ arrays["axes"],
    columns=lambda arrays, codes: codes.reshape(-1, codes.shape[-1]).astype(np.float64),
    check=lambda *, channels=2: None,
)


def doubled(tree: Tree, question: str, store: str) -> Tree:
    """Return a config for two seeds and two networks of one shape: what is mixed up fits, and is not refused."""
    tree = copy.deepcopy(tree)
    tree |= {"store": store, "seeds": list(SEEDS)}
    tree["networks"]["small"]["train"].pop("gates", None)
    tree["networks"]["other"] = copy.deepcopy(tree["networks"]["small"])
    tree["networks"]["other"]["train"]["optimizer"]["lr"] /= 2
    tree[question] |= {"networks": list(NETWORKS), "gallery": 0}
    return tree


@pytest.fixture(scope="module")
def interpreted(
    finished_run: "Run", new_run: "Callable[[Tree], Run]", tmp_path_factory: pytest.TempPathFactory
) -> "Iterator[Run]":
    """Question 1 asked about two seeds, two networks and two interpreters, all evaluations in one call."""
    tree = doubled(finished_run.tree, "interpretation", str(tmp_path_factory.mktemp("interpreted") / "store"))
    tree["interpretation"] |= {"selectors": {"random": {}, "moderate": {}}, "budgets": [0.5]}
    tree["interpretation"]["interpreters"] = {"ice": {"components": 3}, "channels": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(INTERPRETERS, "channels", CHANNELS)
        patch.setitem(METHODS, "channels", one_stage("channels"))
        yield new_run(tree).finish()


@pytest.fixture(scope="module")
def units_twice(
    finished_run: "Run", new_run: "Callable[[Tree], Run]", tmp_path_factory: pytest.TempPathFactory
) -> "Run":
    """Question 1 asked with units of all layers about two seeds and two networks."""
    tree = doubled(finished_run.tree, "interpretation", str(tmp_path_factory.mktemp("units") / "store"))
    tree["interpretation"] |= {"selectors": {"random": {}, "moderate": {}}, "budgets": [0.25, 0.5]}
    tree["interpretation"]["interpreters"] = {"vebi": {}}
    return new_run(tree).finish()


@pytest.fixture(scope="module")
def decomposed_twice(
    decomposed_run: "Run", new_run: "Callable[[Tree], Run]", tmp_path_factory: pytest.TempPathFactory
) -> "Run":
    """Question 2 asked about two seeds and two networks, with every ranking of the top-k features."""
    tree = doubled(decomposed_run.tree, "decomposition", str(tmp_path_factory.mktemp("decomposed") / "store"))
    tree["decomposition"] |= {"retraining": {}, "sample_need": [], "k1": [3]}
    tree["decomposition"]["ablation"]["noises"] = ["feature_moments"]
    run = new_run(tree).finish()
    complete(run.job, STRONGEST, rankings(run))
    return run


def rankings(run: "Run") -> list[StageSpec]:
    """Return top-k counts of every ranking and kind of class, of each network and seed."""
    kinds = itertools.product(("abs", "value", "contribution"), ("label", "prediction"), (None, 3))
    made = [
        histogram_spec(one.learn, 3, limit=limit, rank_by=rank_by, group_by=group_by)
        for rank_by, group_by, limit in kinds
        for one in decomposed(run.plan)
    ]
    return [spec.inputs["strongest"] for spec in made]


def digests(run: "Run", specs: list[StageSpec]) -> list[dict[str, str]]:
    """Return the digests of each stage's arrays and files."""
    notes = [open_finished(run.job.store, spec).note for spec in specs]
    return [{**note["arrays"], **note["files"]} for note in notes]


@pytest.mark.parametrize("kind", GROUPED)
def test_stages_made_together_are_what_each_is_alone(
    kind: str, interpreted: "Run", units_twice: "Run", decomposed_twice: "Run", probed_run: "Run", tmp_path: Path
) -> None:
    runs = {"selection": interpreted, "evaluation": interpreted, "unit-evaluation": units_twice}
    runs["responses"] = probed_run
    run = runs.get(kind, decomposed_twice).at(str(tmp_path / "copied"))
    planned = [spec for spec in run.plan.stages if spec.stage == kind]
    specs = sorted({*planned, *(rankings(run) if kind == "strongest" else ())}, key=lambda spec: spec.key)  # mixed
    before = digests(run, specs)
    orders = []
    for batches in ([specs], [[spec] for spec in specs]):
        for spec in specs:
            run.job.store.remove(spec.path)
        for batch in batches:
            complete(run.job, GROUPED[kind], batch)
        orders.append(digests(run, specs))
    together, alone = orders
    assert together == alone == before
    assert len({str(found) for found in alone}) > len(specs) / 2  # or the test could not distinguish them


def test_every_kind_of_stage_that_is_made_together_is_tested_here() -> None:
    modules = [m.name for m in pkgutil.walk_packages(tasks.steps.__path__, "tasks.steps.") if not m.ispkg]
    values = [value for name in modules for value in vars(importlib.import_module(name)).values()]
    grouped = {id(value) for value in values if isinstance(value, Step) and value.group is not None}
    assert grouped == {id(step) for step in (*GROUPED.values(), *ELSEWHERE)}


def test_question_1_gives_a_network_and_seed_what_a_run_of_it_alone_gives(
    interpreted: "Run", new_run: "Callable[[Tree], Run]", tmp_path: Path
) -> None:
    network, seed, tree = NETWORKS[1], SEEDS[1], copy.deepcopy(interpreted.tree)
    tree |= {"store": str(tmp_path / "store"), "seeds": [seed], "networks": {network: tree["networks"][network]}}
    tree["interpretation"]["networks"] = [network]
    alone = new_run(tree).finish()
    specs = [cell.evaluation for cell in cells(alone.plan)]
    assert len(specs) == 4
    assert digests(alone, specs) == digests(interpreted, specs)


def centred_columns(run: "Run", features: StageSpec, held_out: StageSpec, index: int) -> tuple[Doubles, Doubles]:
    """Return a class's maps (rows, d) and what its features make of them, row by row."""
    activations, fitted = open_finished(run.job.store, held_out), open_finished(run.job.store, features)
    start, stop = list(ranges_by_class(activations).values())[index]
    rows = np.asarray(activations.read("maps", start, stop), np.float64)
    rows = rows.reshape(-1, rows.shape[-1])
    (name,) = fitted.layout.arrays
    basis = np.asarray(fitted.read(name, index, index + 1)[0], np.float64)
    if name == "axes":
        return rows, rows @ basis.T @ basis
    return rows, np.array([nnls(basis.T, row.clip(min=0))[0] for row in rows]) @ basis


def angle(x: Doubles, y: Doubles, *, whiten: bool) -> float:
    """Return the shape distance of two sets of rows by singular values: of the rows themselves, or whitened ones."""
    sets = []
    for rows in (x, y):
        left, values, _ = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
        kept = values > 3e-5 * values[0]
        sets.append(left[:, kept] if whiten else (left * values)[:, kept])
    cosine = np.linalg.svd(sets[0].T @ sets[1], compute_uv=False).sum() / np.prod([np.linalg.norm(s) for s in sets])
    return float(np.arccos(min(1.0, cosine)))


def test_question_1_gives_the_distances_of_plain_loops_for_every_network_seed_and_interpreter(
    interpreted: "Run",
) -> None:
    run, answers = interpreted, []
    for cell in cells(run.plan):
        stage, held_out = open_finished(run.job.store, cell.evaluation), cell.evaluation.inputs["activations"]
        values, names = np.asarray(stage.read("values")), stage.summary["measures"]
        reference = references(run.plan)[cell.network, cell.seed, cell.interpreter]
        for index in range(0, 10, 3):
            maps, mine = centred_columns(run, cell.features, held_out, index)
            _, whole = centred_columns(run, reference, held_out, index)
            measured = dict(zip(names, values[index].tolist(), strict=True))
            for name, whiten in (("distance_0", True), ("distance_1", False)):
                np.testing.assert_allclose(measured[name], angle(mine, whole, whiten=whiten), rtol=1e-3, atol=1e-3)
            error = np.linalg.norm(maps - mine) / np.linalg.norm(maps)
            np.testing.assert_allclose(measured["error_val"], error, rtol=1e-3)
        answers.append((cell.network, cell.seed, cell.interpreter, cell.selector))
    assert len({*answers}) == len(answers) == 16
