"""Tables and pictures of the cards of a run: matched features by loops over all orders, names, ids, what is private."""

import copy
import io
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from storage.stages import open_finished
from tasks.figures.overlay import thumbnail
from tasks.report.interpretation.card_results import FULL, CardResults
from tasks.report.interpretation.cards import cards_of
from tasks.steps.interpretation.card_results import card_results, feature_table
from tasks.steps.report import write_report
from tests.plans import cells, interpreted, references

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.conftest import Plain

Tree = dict[str, Any]  # Any: YAML
Doubles = NDArray[np.float64]


def results_of(run: "Run", images: str = "show") -> CardResults:
    """Return the cards of a run."""
    found = card_results(run.job.store, interpreted(run.plan), images)
    assert found is not None
    return found


def number_of(results: CardResults, selector: str, budget: float) -> int:
    """Return the number of a set."""
    (number,) = results.sets.query(f"selector == {selector!r} and budget == {budget}")["set"]
    return int(number)


def degrees(one: Doubles, other: Doubles) -> float:
    """Return the angle between two vectors."""
    return float(np.degrees(np.arccos(np.clip(one @ other / np.linalg.norm(one) / np.linalg.norm(other), -1, 1))))


def test_sets_are_the_full_data_and_the_first_draws(finished_run: "Run") -> None:
    sets = results_of(finished_run).sets
    assert sets["selector"].tolist() == [FULL, "random", "random", "moderate", "moderate"]
    assert sets["budget"].tolist() == [1.0, 0.5, 1.0, 0.5, 1.0]
    assert set(sets["reference"]) == {0}
    assert set(sets["noun"]) == {"component"}


def test_features_are_matched_with_the_least_sum_of_angles(finished_run: "Run") -> None:
    results, store = results_of(finished_run), finished_run.job.store
    (cell,) = [c for c in cells(finished_run.plan) if (c.selector, c.budget) == ("moderate", 0.5)]
    reference = references(finished_run.plan)["small", 0, "ice"]
    whole, mine = (
        np.asarray(open_finished(store, s).read("components"), np.float64) for s in (reference, cell.features)
    )
    number = number_of(results, "moderate", 0.5)
    mine_only = {name: getattr(results, name).query(f"set == {number}") for name in ("matches", "features")}
    for label in range(10):
        between = [[degrees(a, b) for b in mine[label]] for a in whole[label]]
        best = min(itertools.permutations(range(3)), key=lambda order: sum(between[i][j] for i, j in enumerate(order)))
        rows = mine_only["matches"].query(f"label == {label}").sort_values("feature")
        assert rows["partner"].tolist() == list(best)
        np.testing.assert_allclose(rows["angle"], [between[i][j] for i, j in enumerate(best)], atol=1e-3)
        for _, row in mine_only["features"].query(f"label == {label}").iterrows():
            assert best[row["matched"]] == row["feature"]
            np.testing.assert_allclose(row["angle"], between[row["matched"]][row["feature"]], atol=1e-3)
    full = results.features[results.features["set"] == 0]
    assert (full["matched"] == full["feature"]).all()
    np.testing.assert_allclose(full["angle"], 0, atol=1e-5)


def test_the_yardstick_is_the_median_angle_to_another_class(finished_run: "Run") -> None:
    reference = references(finished_run.plan)["small", 0, "ice"]
    whole = np.asarray(open_finished(finished_run.job.store, reference).read("components"), np.float64)
    angles: list[float] = []
    for label in range(10):
        between = [[degrees(a, b) for b in whole[(label + 1) % 10]] for a in whole[label]]
        best = min(itertools.permutations(range(3)), key=lambda order: sum(between[i][j] for i, j in enumerate(order)))
        angles += [between[i][j] for i, j in enumerate(best)]
    (row,) = results_of(finished_run).yardsticks.to_dict("records")
    np.testing.assert_allclose(row["angle"], np.median(angles), rtol=1e-6)


def test_images_have_their_ids_and_pictures(finished_run: "Run", plain: "dict[str, Plain]") -> None:
    results = results_of(finished_run)
    assert set(results.images["sample_id"]) <= set(plain["val"].ids.tolist())
    assert set(results.images["picture"]) == set(results.pictures)
    position = results.images["picture"].str.removeprefix("small:").astype(int)
    np.testing.assert_array_equal(plain["val"].ids[position], results.images["sample_id"])
    for label in (0, 7):
        ids = results.images.loc[results.images["label"] == label, "sample_id"]
        assert set(ids) <= set(plain["val"].ids[plain["val"].of_class(label)].tolist())


def test_the_table_of_features_names_samples_by_rank(finished_run: "Run") -> None:
    results = results_of(finished_run)
    table = feature_table(results)
    assert list(table.columns[:9]) == [
        *("network", "seed", "interpreter", "selector", "budget", "label", "feature", "name", "layer"),
    ]
    assert len(table) == 5 * 10 * 3
    row = table.query("selector == 'random' and budget == 0.5 and label == 4").iloc[1]
    number, feature = number_of(results, "random", 0.5), int(row["feature"])
    mine = results.images.query(f"set == {number} and label == 4 and feature == {feature}").sort_values("rank")
    assert row["sample_ids"] == " ".join(str(i) for i in mine["sample_id"])
    assert row["name"] == f"component {feature}"


@pytest.fixture(scope="module")
def trained_on_what_is_compared(
    finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path_factory: pytest.TempPathFactory
) -> "Run":
    """Return a run that compares features on training images, with the pictures that this allows."""
    tree = copy.deepcopy(finished_run.at(str(tmp_path_factory.mktemp("private") / "store")).tree)
    tree["interpretation"] |= {"evaluate": "train", "selectors": {"moderate": {}}}
    return new_run(tree).finish()


def test_training_images_are_shown_named_or_neither(trained_on_what_is_compared: "Run") -> None:
    run = trained_on_what_is_compared
    shown, named, none = (results_of(run, images) for images in ("show", "ids", "none"))
    assert shown.pictures
    assert set(shown.images["picture"]) == set(shown.pictures)
    for private in (named, none):
        assert not private.pictures
        assert set(private.images["picture"]) == {""}
    np.testing.assert_array_equal(named.images["sample_id"], shown.images["sample_id"])
    assert set(none.images["sample_id"]) == {-1}
    assert set(feature_table(none)["sample_ids"]) == {""}


@pytest.mark.parametrize("images", ["ids", "none"])
def test_a_report_has_no_byte_of_a_training_image(
    trained_on_what_is_compared: "Run", new_run: Callable[[Tree], "Run"], images: str
) -> None:
    run = trained_on_what_is_compared
    tree = copy.deepcopy(run.tree)
    tree["interpretation"]["gallery"] = 0
    private = new_run(tree | {"report": {"training_images": images}})
    write_report(run.job.store, private.plan.made(), created="now", reused=frozenset())
    files = {name: run.job.store.read(f"reports/tiny/{name}") for name in run.job.store.files("reports/tiny")}
    site = b"".join(data for name, data in files.items() if name.endswith((".html", ".js")) and "plotly" not in name)
    for picture in results_of(run).pictures.values():
        assert thumbnail(picture).uri.encode() not in site
    assert b"data:image/png" not in site
    table = pd.read_csv(io.BytesIO(files["tables/features.csv"]))
    assert table["sample_ids"].isna().all() == (images == "none")
    assert (b'"sample ' in files["assets/cards-data.js"]) == (images == "ids")


@pytest.mark.parametrize("images", ["ids", "none"])
def test_images_that_another_network_is_trained_on_are_private_too(
    finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path: Path, images: str
) -> None:
    tree = copy.deepcopy(finished_run.at(str(tmp_path / "store")).tree)
    other = copy.deepcopy(tree["networks"]["small"])
    other["train"]["split"] = "val"  # question 1 does not ask about it
    tree["networks"]["other"], tree["interpretation"]["gallery"] = other, 0
    run = new_run(tree | {"report": {"training_images": images}}).finish()
    results = results_of(run, images)
    assert not results.pictures
    assert (set(results.images["sample_id"]) == {-1}) == (images == "none")
    write_report(run.job.store, run.plan.made(), created="now", reused=frozenset())
    files = {name: run.job.store.read(f"reports/tiny/{name}") for name in run.job.store.files("reports/tiny")}
    site = b"".join(data for name, data in files.items() if name.endswith((".html", ".js")) and "plotly" not in name)
    assert b"data:image/png" not in site
    assert bool(re.search(rb"sample \d", site)) == (images == "ids")
    for table in (pd.read_csv(io.BytesIO(files["tables/features.csv"]), keep_default_na=False), feature_table(results)):
        assert (set(table["sample_ids"]) == {""}) == (images == "none")
    written = pd.read_parquet(io.BytesIO(files["tables/features.parquet"]))
    assert (set(written["sample_ids"]) == {""}) == (images == "none")


def test_a_setting_of_privacy_needs_no_other_stage(finished_run: "Run", new_run: Callable[[Tree], "Run"]) -> None:
    private = new_run({**finished_run.tree, "report": {"training_images": "none"}})
    assert {spec.path for spec in private.plan.stages} == {spec.path for spec in finished_run.plan.stages}


def test_units_are_the_same_or_not_and_a_class_may_have_none(
    finished_run: "Run", new_run: Callable[[Tree], "Run"], tmp_path: Path
) -> None:
    tree = copy.deepcopy(finished_run.at(str(tmp_path / "store")).tree)
    tree["interpretation"] |= {"selectors": {"moderate": {}}, "budgets": [0.25], "interpreters": {"vebi": {}}}
    run = new_run(tree).finish()  # two epochs: the network never predicts some classes
    results = results_of(run)
    (cell,) = cells(run.plan)
    reference = references(run.plan)["small", 0, "vebi"]
    stages = [open_finished(run.job.store, spec) for spec in (reference, cell.features)]
    whole, mine = (np.asarray(stage.read("weights")) for stage in stages)
    layers = stages[0].summary["layers"]
    names = [
        (f"ReLU {i + 1} of {len(layers)}, channel {c}", f"ReLU {i + 1} of {len(layers)}")
        for i, n in enumerate(layers)
        for c in range(n)
    ]
    counts = results.classes.set_index(["set", "label"])["n_features"]
    assert 0 in counts.tolist()
    for label in range(10):
        assert counts[0, label] == (whole[label] > 0).sum()
        assert counts[1, label] == (mine[label] > 0).sum()
        matches = results.matches.query(f"set == 1 and label == {label}")
        assert matches["feature"].tolist() == np.flatnonzero(whole[label]).tolist()
        expected = [unit if mine[label, unit] > 0 else -1 for unit in np.flatnonzero(whole[label]).tolist()]
        assert matches["partner"].tolist() == expected
        for _, row in results.features.query(f"set == 1 and label == {label}").iterrows():
            assert row["matched"] == (row["feature"] if whole[label, row["feature"]] > 0 else -1)
            assert (row["name"], row["layer"]) == names[row["feature"]]
    cards = cards_of(results)
    assert cards is not None
    empty = [view for view in cards.data["views"] if not view["pairs"]]  # type: ignore[attr-defined]  # JSON
    assert empty
    assert all("does not find a unit that describes" in view["line"] for view in empty)
