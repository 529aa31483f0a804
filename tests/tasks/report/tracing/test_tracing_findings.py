"""The headline sentences of the tracing page, worked by hand."""

import numpy as np
import pandas as pd
import pytest

from tasks.report.formats import NBSP
from tasks.report.tracing.findings import class_specificity, early_shares, tracing_findings

LAYERS = pd.DataFrame(
    {
        "layer": ["conv1", "conv2", "conv3", "fc"],
        "init_share": [0.8, 0.5, 0.3, 0.1],
        "residual_max": [1e-8, 3.14e-7, 1e-9, np.nan],
        "agreement_1": [0.25, 0.15, 0.5, 1.0],
    }
)
SHARES = pd.DataFrame(
    {
        "layer": ["conv1"] * 4 + ["fc"] * 4 + ["dead"] * 4,
        "epoch": [1, 2, 3, 4] * 3,
        "gamma": [0.6, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1, 0.7, 0.0, 0.0, 0.0, -0.1],
    }
)
EVALUATION = pd.DataFrame(
    {
        "measure": ["mislabel AUC", "LDS", "LDS", "check"],
        "layer": ["", "conv1", "fc", "fc"],
        "value": [0.91, 0.1, 0.31, np.nan],
        "spread": [np.nan, 0.02, 0.02, np.nan],
        "baseline": [0.953, 0.62, 0.62, np.nan],
        "baseline_name": ["summed loss", "ceiling", "ceiling", ""],
    }
)


def say(
    layers: pd.DataFrame = LAYERS, shares: pd.DataFrame = SHARES, evaluation: pd.DataFrame = EVALUATION
) -> dict[str, list[str]]:
    """Return the sentences under each word, with plain spaces."""
    found: dict[str, list[str]] = {}
    for finding in tracing_findings(layers, shares, evaluation):
        found.setdefault(finding.about, []).append(finding.text.replace(NBSP, " "))
    return found


def test_most_and_least_class_specific_layers_and_the_trend_with_depth() -> None:
    assert say()["Classes"] == [
        "The top-1 example is of the predicted class for 100.0 % of the queries in fc (most) and 15.0 % in conv2 "
        "(least). The later half of the layers agrees more than the earlier half: 75.0 % against 20.0 % on average."
    ]
    falling = LAYERS.assign(agreement_1=[0.5, 0.5, 0.5, 0.1])
    assert "agrees less than the earlier half: 30.0 % against 50.0 %" in say(falling)["Classes"][0]
    flat = say(LAYERS.assign(agreement_1=0.5))["Classes"][0]
    assert flat.startswith("The top-1 example is of the predicted class for 50.0 % of the queries in conv1. ")
    assert "agrees as much as the earlier half" in flat
    assert "half" not in say(LAYERS[:3])["Classes"][0]  # three layers have no halves to compare
    assert "Classes" not in say(LAYERS.assign(agreement_1=np.nan))


def test_early_share_is_that_of_the_first_quarter_of_the_epochs() -> None:
    part, first, n_epochs = early_shares(SHARES)
    assert (first, n_epochs) == (1, 4)
    assert part.to_dict() == pytest.approx({"conv1": 0.6, "fc": 0.1})  # "dead" adds up to less than nothing
    assert say()["When"] == [
        "The first epoch of 4 brought more than half of the examples' contribution in 1 of 2 layers: most in conv1 "
        "(60.0 %), least in fc (10.0 %)."
    ]
    taken = SHARES.assign(gamma=[0.9, -0.1, -0.1, -0.1] * 3)
    assert "(150.0 %). Above 100 %: later epochs took some of it away again." in say(shares=taken)["When"][0]
    assert "When" not in say(shares=SHARES[SHARES["epoch"] == 1])
    assert "When" not in say(shares=SHARES[:0])


def test_initial_weights_are_told_where_they_have_a_part() -> None:
    text = "hold 80.0 % in conv1 (most) and 10.0 % in fc (least) of the squared norm"
    assert text in say()["Start"][0]
    assert "Start" not in say(LAYERS.assign(init_share=np.nan))
    assert "Start" not in say(LAYERS.assign(init_share=0.0))


def test_the_worst_residual_is_told_with_its_layer() -> None:
    assert "to within 3.1e−07 of it" in say()["Adds up"][0]
    assert say()["Adds up"][0].endswith("worst layer, conv2.")


def test_evaluation_is_set_beside_its_baseline_without_a_verdict() -> None:
    assert say()["Trust"] == [
        "mislabel AUC: 0.910 (0.043 below the summed loss, 0.953).",
        "LDS: between 0.100 ± 0.020 (0.520 below the ceiling, 0.620) in conv1 and 0.310 ± 0.020 (0.310 below the "
        "ceiling, 0.620) in fc.",
        "check: no value is known.",
    ]
    one = EVALUATION[:1].assign(value=0.953, baseline_name="")
    assert say(evaluation=one)["Trust"] == ["mislabel AUC: 0.953 (equal to its baseline, 0.953)."]


def test_layers_that_no_class_owns_are_counted_with_their_specificity() -> None:
    """Five classes: chance is 0.2, so that an agreement of 0.24 is 5 % of the way to certainty."""
    shares = pd.DataFrame({"layer": "conv1", "epoch": 1, "label": range(5), "gamma": 0.1})
    layers = LAYERS.assign(agreement_10=[0.24, 0.2, 0.6, 1.0])
    assert class_specificity(layers, 5).to_dict() == pytest.approx({"conv1": 0.05, "conv2": 0, "conv3": 0.5, "fc": 1})
    assert say(layers, shares)["Depth"] == [
        "No class owns 2 of 4 layers: class specificity is below 0.1 on a scale from chance (0, 20.0 % agreement @10) "
        "to certainty (1) in conv1 (0.050), conv2 (0.000). The others reach 1.000 in fc. The paper reads such layers "
        "as ones that a shallower network can do without."
    ]
    owned = say(layers.assign(agreement_10=[0.36, 0.6, 0.6, 1.0]), shares)["Depth"][0]
    assert owned.startswith("Classes own every layer: class specificity is 0.200 or more on a scale from chance")
    assert "least in conv1. So the paper's advice, that a shallower network is enough, does not follow here." in owned
    assert "Depth" not in say(layers, SHARES)  # the number of classes is not known
    assert "Depth" not in say(layers[:1], shares)


def test_the_spread_inside_batches_is_stated_where_parts_are_known() -> None:
    layers = LAYERS.assign(member_spread=[0.8, np.nan, 0.4, np.nan], member_against=[0.3, np.nan, 0.1, np.nan])
    assert say(layers)["In a batch"] == [
        "The examples of a batch differ: an example's own part deviates from the equal part by 80.0 % of its size in "
        "conv1 (most) and by 40.0 % in conv3 (least). 20.0 % of the parts have the opposite sign of their batch's sum, "
        "mean over layers."
    ]
    assert "In a batch" not in say()
    assert "In a batch" not in say(LAYERS.assign(member_spread=np.nan, member_against=np.nan))


def test_nothing_known_nothing_said() -> None:
    assert tracing_findings(LAYERS[:0], SHARES[:0], EVALUATION[:0]) == []


@pytest.mark.parametrize(
    ("splits", "text"),
    [
        (["example", "example"], "batch by the gradient of each."),
        (["equal", "equal"], "batch equally, since no gradient of each"),
        (["equal", "example"], "by the gradient of each in b; elsewhere equally"),
    ],
)
def test_the_split_of_batches_is_stated(splits: list[str], text: str) -> None:
    layers = LAYERS[:2].assign(layer=["a", "b"], split=splits)
    (found,) = (f.text for f in tracing_findings(layers, SHARES[:0], EVALUATION[:0]) if f.about == "Split")
    assert text in found
