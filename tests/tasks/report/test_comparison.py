"""Measures side by side: mean and spread over seeds, differences, and the settings that differ."""

import numpy as np
import pandas as pd

from tasks.report.comparison import compare_runs, differing
from tasks.report.formats import NBSP
from tasks.report.measures import Compared, Figure, compare, difference, joined, measure_rows


def measured(
    network: str, values: dict[int, float], question: str = "tracing", measure: str = "accuracy"
) -> pd.DataFrame:
    """Return a measure of one network, by seed."""
    return measure_rows(question, [(network, seed, measure, "share", value) for seed, value in values.items()])


def test_mean_and_spread_are_those_over_seeds() -> None:
    columns, (one,) = compare({"a": measured("net", {0: 0.5, 1: 0.7, 2: 0.9}), "b": measured("net", {0: 0.25})})
    assert columns == ["a", "b"]
    np.testing.assert_allclose([one.figures["a"].mean, one.figures["a"].std], [0.7, 0.2])
    assert (one.figures["b"].mean, one.figures["b"].seeds) == (0.25, 1)
    assert np.isnan(one.figures["b"].std)  # not known, which is not the same as 0


def test_networks_have_the_name_of_their_run_where_it_has_several() -> None:
    two = pd.concat([measured("x", {0: 0.5}), measured("y", {0: 0.6})])
    assert compare({"a": two, "b": measured("x", {0: 0.7})})[0] == ["a: x", "a: y", "b: x"]
    assert compare({"a": two})[0] == ["x", "y"]


def test_the_accuracy_counts_once_and_unknown_values_are_left_out() -> None:
    tables = [
        measured("x", {0: 0.5}, "interpretation"),
        measured("x", {0: 0.5, 1: 0.6}),
        measured("x", {0: np.nan}, measure="m"),
    ]
    found = joined(tables)
    assert found[["question", "seed", "value"]].values.tolist() == [["interpretation", 0, 0.5], ["tracing", 1, 0.6]]


def test_a_difference_says_if_it_exceeds_the_spread_over_seeds() -> None:
    def said(a: Figure, b: Figure) -> str:
        return difference(Compared("", "accuracy", "share", {"a": a, "b": b}), "a", "b").replace(NBSP, " ")

    known = Figure(0.5, 0.02, 3)
    assert said(known, Figure(0.53, 0.01, 3)) == "+3.0 points (within 2 spreads)"
    assert said(known, Figure(0.45, 0.01, 3)) == "−5.0 points (beyond 2 spreads)"
    assert said(Figure(0.5, np.nan, 1), Figure(0.53, np.nan, 1)) == "+3.0 points"


def test_settings_that_differ_are_named_by_their_key() -> None:
    a = {"name": "a", "store": "x/", "seeds": [0], "networks": {"n": {"model": "small-cnn", "train": {"lr": 0.1}}}}
    b = {"name": "b", "store": "y/", "seeds": [0, 1], "networks": {"n": {"model": "small-cnn", "weights": "w.pt"}}}
    assert differing({"a": a, "b": b}) == {
        "seeds": {"a": "[0]", "b": "[0, 1]"},
        "networks.n.train.lr": {"a": "0.1", "b": ""},
        "networks.n.weights": {"a": "", "b": "w.pt"},
    }
    assert differing({"a": a, "same": {**a, "name": "same"}}) == {}


def test_a_measure_that_one_run_does_not_have_is_a_dash() -> None:
    found = compare_runs(
        {"a": {}, "b": {}}, {"a": measured("x", {0: 0.5}), "b": measured("x", {0: 0.5}, measure="other")}
    )
    figures, settings = found.tables()
    assert [row[1:] for row in figures.rows] == [
        ("accuracy", f"50.0{NBSP}%", "–", "–"),
        ("other", "–", f"50.0{NBSP}%", "–"),
    ]
    assert settings.rows == ()
    assert found.sentence().startswith("No setting differs. Right answers on held-out images: a 50.0")
