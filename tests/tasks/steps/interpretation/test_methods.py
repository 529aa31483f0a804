"""Methods of interpretation: what all keep to, and one with two stages of its own from config to report."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from configs.load import ConfigError
from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.step import Size, Step, Work
from tasks.steps.interpretation.method import Expressed, Maps, Method
from tasks.steps.interpretation.methods import METHODS
from tasks.steps.interpretation.question import INTERPRETATION
from tasks.steps.interpretation.results import interpretation_results
from tasks.steps.interpretation.selection import kept_positions
from tasks.steps.plan import waves
from tasks.steps.questions import STEPS
from tests.plans import cells, galleries, interpreted, references

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain

Tree = dict[str, Any]  # Any: YAML


def a_class(work: Work, name: str, values: np.ndarray) -> None:
    """Write the one partition of a stage of (class, channel)."""
    with work.stage.partition(0) as part:
        part.write(name, values.astype(np.float32))


def channels_of(store: Store, spec: StageSpec, name: str) -> Layout:
    """Return the layout of an array (class, channel)."""
    n = len(open_finished(store, spec.inputs["selection"]).read("label"))
    d = open_finished(store, spec.inputs["activations"]).layout.arrays["maps"].shape[-1]
    return Layout(1, {name: ArrayLayout((n, d), "float32", ("class", "channel"), n, n)})


def average(work: Work, number: int) -> None:
    """Write the mean of each class's kept maps over images and positions."""
    spec, store = work.stage.spec, work.stage.store
    maps = np.asarray(open_finished(store, spec.inputs["activations"]).read("maps"), np.float32)
    selection = open_finished(store, spec.inputs["selection"])
    kept = kept_positions(selection)
    a_class(work, "mean", np.stack([maps[rows].mean(axis=(0, 1, 2)) for rows in kept]))


def normalise(work: Work, number: int) -> None:
    """Write each class's mean at unit length."""
    means = np.asarray(open_finished(work.stage.store, work.stage.spec.inputs["means"]).read("mean"))
    a_class(work, "direction", means / np.linalg.norm(means, axis=1, keepdims=True))


def summary(stage: Stage) -> Mapping[str, Json]:
    return {"classes": {str(label): {"kept": 0, "relative_error": 0.5, "seconds": 0.0} for label in range(10)}}


MEANS = Step("means", 1, lambda store, spec: channels_of(store, spec, "mean"), average, lambda *_: Size(0, 0))
DIRECTIONS = Step(
    "directions",
    1,
    lambda store, spec: channels_of(store, spec, "direction"),
    normalise,
    lambda *_: Size(0, 0),
    summary=summary,
)


@dataclass(frozen=True)
class Direction:
    """One direction of length 1 per class: what lies along it is kept."""

    vector: Maps

    def express(self, maps: Maps) -> Expressed:
        codes = maps @ self.vector
        return Expressed(codes.reshape(-1, 1).astype(np.float64), codes[..., None] * self.vector)

    def heat_maps(self, maps: Maps, size: tuple[int, int]) -> Maps:
        return np.full((len(maps), *size), 0.2, np.float32)


def plan(activations: StageSpec, selection: StageSpec, parameters: Mapping[str, Json], seed: int) -> StageSpec:
    inputs = {"activations": activations, "selection": selection}
    means = MEANS.spec({}, inputs)
    return DIRECTIONS.spec({"interpreter": "direction", **parameters}, {**inputs, "means": means})


def read(store: Store, spec: StageSpec) -> Callable[[int], Direction]:
    vectors = np.asarray(open_finished(store, spec).read("direction"))
    return lambda index: Direction(vectors[index])


def check(*, depth: int = 1) -> None:
    if depth < 1:
        raise ValueError(f"depth: expected at least 1, got {depth}")


DIRECTION = Method((MEANS, DIRECTIONS), plan, read, check, lambda spec, channels: 1)


@pytest.fixture
def two_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enter the method as a line in METHODS does."""
    monkeypatch.setitem(METHODS, "direction", DIRECTION)
    for step in DIRECTION.steps:
        monkeypatch.setitem(STEPS, step.kind, step)


@pytest.fixture(scope="module")
def all_methods(
    finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory
) -> "Run":
    """Return the tiny run at budget 1 with every method, made."""
    tree = copy.deepcopy(finished_run.at(str(tmp_path_factory.mktemp("methods") / "store")).tree)
    few = {"ice": {"components": 3}, "vebi": {}, "topics": {"topics": 3, "hidden": 9, "epochs": 1, "frozen_epochs": 0}}
    tree["interpretation"] |= {"selectors": {"moderate": {}}, "budgets": [1.0], "interpreters": few}
    assert set(few) == set(METHODS)
    return new_run(tree).finish()


@pytest.mark.parametrize("name", METHODS)
def test_contract(all_methods: "Run", name: str) -> None:
    (answer,) = interpreted(all_methods.plan)
    selection, method = answer.cells[0].selection, METHODS[name]
    spec = method.plan(answer.learn, selection, {}, 5)
    assert spec.parameters["interpreter"] == name
    assert spec.inputs["activations"] == answer.learn
    scores = method.scores(spec, answer.held_out, {}) if method.scores else spec
    compared = method.evaluate(spec, spec, answer.held_out) if method.evaluate else spec
    pictures = method.pictures({"all": spec}, spec, answer.held_out) if method.pictures else spec
    every = {s.path: s for one in (spec, scores, compared, pictures) for s in _all(one)}
    kinds = {stage.stage for wave in waves(list(every.values())) for stage in wave}
    assert kinds - {s.stage for s in _all(selection)} - {"activations"} == {step.kind for step in method.steps}
    assert set(method.steps) <= set(INTERPRETATION.steps)
    reference = references(all_methods.plan)["small", 0, name]
    maps = np.array(open_finished(all_methods.job.store, answer.held_out).read("maps", 0, 4), np.float32)
    features = method.read(all_methods.job.store, reference)(0)
    found, heat = features.express(maps), features.heat_maps(maps, (8, 6))
    assert found.reconstruction.shape == maps.shape
    assert found.reconstruction.dtype == np.float32
    assert found.columns.dtype == np.float64
    assert len(found.columns) == maps[..., 0].size
    assert found.columns.shape[1] <= method.n_columns(reference, maps.shape[-1])
    if name != "topics":  # their columns are products with the maps themselves
        # The columns stand for the reconstructed maps: their inner products are the same.
        flat = found.reconstruction.reshape(len(found.columns), -1).astype(np.float64)
        np.testing.assert_allclose(found.columns @ found.columns.T, flat @ flat.T, rtol=1e-4, atol=1e-5)
    assert heat.shape == (4, 8, 6)
    assert heat.min() >= 0
    assert heat.max() <= 1
    np.testing.assert_allclose(heat[2], features.heat_maps(maps[2:3], (8, 6))[0], atol=1e-5)


def _all(spec: StageSpec) -> list[StageSpec]:
    """Return a stage and all that it reads."""
    found = {spec.path: spec}
    for one in spec.inputs.values():
        found |= {s.path: s for s in _all(one)}
    return list(found.values())


@pytest.mark.usefixtures("two_stages")
def test_a_method_with_stages_of_its_own_goes_from_config_to_results(
    copied_run: "Run", plain: "dict[str, Plain]", new_run: Callable[[Tree], "Run"]
) -> None:
    tree = copy.deepcopy(copied_run.tree)
    tree["interpretation"] |= {"selectors": {"moderate": {}}, "interpreters": {"direction": {"depth": 2}}}
    run = new_run(tree).finish()
    kinds = [spec.stage for spec in run.plan.stages]
    assert [kinds.count(kind) for kind in ("means", "directions", "features")] == [2, 2, 0]
    cell = next(one for one in cells(run.plan) if one.budget == 1.0)
    stage = open_finished(run.job.store, cell.evaluation)
    for label in range(10):
        found = dict(zip(stage.summary["measures"], np.asarray(stage.read("values"))[label].tolist(), strict=True))
        learned = plain["train"].maps[plain["train"].of_class(label)].mean(axis=(0, 1, 2))
        vector = learned / np.linalg.norm(learned)
        maps = plain["val"].maps[plain["val"].of_class(label)]
        rebuilt = (maps @ vector)[..., None] * vector
        np.testing.assert_allclose(found["error_val"], np.linalg.norm(maps - rebuilt) / np.linalg.norm(maps), rtol=1e-3)
        np.testing.assert_allclose(found["accuracy"], (plain["val"].predict(rebuilt).argmax(1) == label).mean())
        assert found["rank"] == 1
        assert found["distance_0"] == pytest.approx(0, abs=1e-6)
    (gallery,) = galleries(run.plan).values()
    assert set(np.asarray(open_finished(run.job.store, gallery).read("heat")).ravel().tolist()) == {51}  # 0.2 of 255
    table = interpretation_results(run.job.store, interpreted(run.plan)).classes
    assert set(table["interpreter"]) == {"direction"}
    assert set(table["error_fit"]) == {0.5}


@pytest.mark.usefixtures("two_stages")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"width": 1}, "interpretation.interpreters.direction.width: unknown parameter; known: depth"),
        ({"depth": 0}, "interpretation.interpreters.direction: depth: expected at least 1, got 0"),
    ],
)
def test_its_parameters_are_checked_as_those_of_others(
    tiny_tree: Tree, new_run: Callable[[Tree], "Run"], parameters: Tree, message: str
) -> None:
    tiny_tree["interpretation"]["interpreters"] = {"direction": parameters}
    with pytest.raises(ConfigError, match=message):
        new_run(tiny_tree)
