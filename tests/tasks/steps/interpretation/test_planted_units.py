"""VEBI on a network with known units: which units each budget finds, how they cover the layers, and their pictures."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from configs.load import ConfigError
from flows.progress import planned_stages
from storage.stages import FinishedStage, open_finished
from tasks.engine.life import complete
from tasks.steps.interpretation.plan import Cell
from tasks.steps.interpretation.results import interpretation_results
from tasks.steps.interpretation.stills import interpretation_files
from tasks.steps.interpretation.unit_pictures import UNIT_PICTURES
from tests.plans import cells, interpreted
from tests.tasks.steps.interpretation.planted_units import HELD_OUT, LEARN, planted_config

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


@pytest.fixture(scope="module")
def planted_run(new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Return the run of the planted network, made."""
    return new_run(planted_config(tmp_path_factory.mktemp("planted"))).finish()


@pytest.fixture(scope="module")
def odd_run(new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Return the same with two classes more: one is never predicted, one has a single image besides."""
    return new_run(planted_config(tmp_path_factory.mktemp("odd"), extra=(10, 1))).finish()


def cell_of(run: "Run", budget: float) -> Cell:
    """Return a coreset's cell."""
    return next(cell for cell in cells(run.plan) if cell.budget == budget)


def pictures_of(run: "Run") -> FinishedStage:
    """Return the pictures of the units that only coresets find."""
    (answer,) = interpreted(run.plan)
    return open_finished(run.job.store, answer.pictures["vebi"])


def test_each_budget_finds_the_planted_units(planted_run: "Run") -> None:
    for budget, unit, weight in ((0.2, 3, 4 / 3), (0.8, 0, 2.0), (1.0, 0, 2.0)):
        stage = open_finished(planted_run.job.store, cell_of(planted_run, budget).features)
        expected = np.zeros((3, 9))
        expected[np.arange(3), unit + np.arange(3)] = weight
        np.testing.assert_allclose(np.asarray(stage.read("weights"), np.float64), expected, atol=1e-9)
        assert (stage.summary["layers"], stage.summary["units_mean"], stage.summary["few_units"]) == ([3, 6], 1, True)


def test_the_coverage_is_that_of_the_planted_units(planted_run: "Run") -> None:
    # of each class and ReLU: units of the coreset, of the full data, of both
    for budget, coverage in ((0.2, [[0, 1, 0], [1, 0, 0]]), (0.8, [[1, 1, 1], [0, 0, 0]])):
        stage = open_finished(planted_run.job.store, cell_of(planted_run, budget).evaluation)
        np.testing.assert_array_equal(stage.read("coverage"), [coverage] * 3)


def test_units_of_the_small_coreset_are_shown_on_the_images_that_excite_them(planted_run: "Run") -> None:
    stage = pictures_of(planted_run)
    assert stage.summary == {"titles": ["moderate 20 %", "moderate 80 %"], "layers": [3, 6], "total": 3}
    assert np.asarray(stage.read("unit")).tolist() == [[c, 1, c, 0] for c in range(3)]  # label, ReLU, filter, elsewhere
    np.testing.assert_allclose(np.asarray(stage.read("weight"), np.float64), [[4 / 3, 0]] * 3, atol=1e-9)
    pairs, others = HELD_OUT
    responses, labels, heat = (np.asarray(stage.read(name)) for name in ("response", "image_label", "heat"))
    np.testing.assert_array_equal(responses, [[0.75] * pairs + [0] * (4 - pairs)] * 3)
    held_out = open_finished(planted_run.job.store, interpreted(planted_run.plan)[0].held_out)
    ids = np.asarray(held_out.read("sample_id"))
    for c in range(3):
        assert labels[c, :pairs].tolist() == [c] * pairs
        first = c * (pairs + others)
        assert np.asarray(stage.read("sample_id"))[c, :pairs].tolist() == ids[first : first + pairs].tolist()
        for i in range(pairs):
            expected = np.zeros((8, 8), np.uint8)
            expected[i, 3] = 255  # the left pixel of the pair
            np.testing.assert_array_equal(heat[c, i], expected)
            picture = np.zeros((8, 8, 3), np.uint8)
            picture[i, 3:5, c] = 255
            np.testing.assert_array_equal(np.asarray(stage.read("image"))[c, i], picture)


def test_pictures_made_again_are_the_same_bytes(planted_run: "Run", tmp_path: Path) -> None:
    run = planted_run.at(str(tmp_path / "store"))
    spec = interpreted(run.plan)[0].pictures["vebi"]
    before = {name: np.asarray(pictures_of(run).read(name)).tobytes() for name in pictures_of(run).layout.arrays}
    run.job.store.remove(spec.path)
    (stage,) = complete(run.job, UNIT_PICTURES, [spec])
    assert {name: np.asarray(stage.read(name)).tobytes() for name in before} == before


def test_a_class_never_predicted_and_a_class_with_one_image_are_counted(odd_run: "Run") -> None:
    for budget in (0.2, 0.8, 1.0):
        stage = open_finished(odd_run.job.store, cell_of(odd_run, budget).features)
        assert stage.summary["never_predicted"] == 2
        weights = np.asarray(stage.read("weights"), np.float64)
        assert not weights[3:].any()
        assert (weights[:3] > 0).sum() == 3
        assert stage.summary["classes"]["4"]["kept"] == 1
        gram = open_finished(odd_run.job.store, cell_of(odd_run, budget).features.inputs["gram"])
        counts = {0.2: 2, 0.8: 8, 1.0: sum(LEARN)}[budget]
        assert gram.summary["predicted"] == [2 * counts + 1, counts, counts, 0, 0]  # black images go to class 0
        assert gram.summary["samples"] == 4 * counts + 1
    assert pictures_of(odd_run).summary["total"] == 3


def test_a_run_without_such_units_has_no_picture(new_run: Callable[[Tree], "Run"], tmp_path: Path) -> None:
    tree = planted_config(tmp_path / "same")
    tree["interpretation"]["budgets"] = [0.8]
    run = new_run(tree).finish()
    stage = pictures_of(run)
    assert (stage.summary["total"], stage.layout.arrays["heat"].shape) == (0, (0, 4, 8, 8))
    assert np.asarray(stage.read("unit")).shape == (0, 4)


def test_a_network_without_a_relu_is_refused_at_plan_time(new_run: Callable[[Tree], "Run"], tmp_path: Path) -> None:
    tree = planted_config(tmp_path / "smooth")
    tree["networks"]["planted"]["model"] = "tests.tasks.steps.interpretation.planted_units:without_relu"
    message = (
        "interpretation.interpreters.vebi: networks.planted: expected at least one ReLU up to the layer, found none; "
        "VEBI selects outputs of ReLUs: leave it out, and take ice or topics for a network with other activations"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        planned_stages(new_run(tree).plan, None)


def test_the_page_has_the_planted_units(planted_run: "Run") -> None:
    results = interpretation_results(planted_run.job.store, interpreted(planted_run.plan))
    units = results.units
    assert units is not None
    assert units.mu == 10
    sizes = units.sizes.set_index(["selector", "budget"])
    assert sizes["units"].tolist() == [1.0] * 4
    assert sizes["few"].all()
    assert sizes["samples"].to_dict() == {
        ("full data", 1.0): 30,
        ("moderate", 0.2): 6,
        ("moderate", 0.8): 24,
        ("moderate", 1.0): 30,
    }
    assert sizes["added"].to_dict()["moderate", 0.8] == 24 - 6
    small = units.coverage[units.coverage["budget"] == 0.2]
    assert small[["call", "size", "units", "units_reference", "units_shared"]].to_numpy().tolist() == [
        [0, 3, 0, 1, 0],
        [1, 6, 1, 0, 0],
    ]
    assert units.paths["title"].unique().tolist() == ["full data", "moderate 20 %"]
    full = units.paths[(units.paths["title"] == "full data") & (units.paths["label"] == 0)]
    assert full["units"].tolist() == [0, 1]
    np.testing.assert_allclose(full["mu"], [0, 2.0], atol=1e-9)
    (pictures,) = units.pictures
    assert (pictures.network, pictures.total) == ("planted", 3)
    for c, unit in enumerate(pictures.units):
        assert (unit.class_name, unit.call, unit.channel, unit.elsewhere) == (str(c), 1, c, False)
        assert unit.weights == {"moderate 20 %": pytest.approx(4 / 3)}
        assert [image.true_class for image in unit.images] == [str(c)] * HELD_OUT[0]  # others do not excite it
        brightest = unit.images[1].overlay.sum(axis=2)
        assert np.unravel_index(brightest.argmax(), brightest.shape) == (1, 3)
    assert results.over_repeats["units_mean"].tolist() == [1.0] * 3
    assert results.robustness["units_mean"].tolist() == [1.0]


def test_the_report_has_the_tables_and_figures_of_units(planted_run: "Run") -> None:
    answers = interpreted(planted_run.plan)
    results = interpretation_results(planted_run.job.store, answers)
    files = interpretation_files(planted_run.job.store, answers, results, "show")
    expected = {f"tables/{name}.parquet" for name in ("units", "coverage", "unit_sizes", "unit_paths")}
    assert expected | {"figures/planted-units.png", "figures/planted-units-mu.png"} <= set(files)
