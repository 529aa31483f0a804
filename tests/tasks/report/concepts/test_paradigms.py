"""What the paper saw of other trainings, on tables worked by hand."""

from typing import Any

import pandas as pd
import pytest

from tasks.report.concepts.paradigms import Paradigm, paradigm_observations
from tasks.report.concepts.verdicts import Observation
from tasks.report.formats import NBSP

STANDARD = Paradigm("standard", "")


def monitored(network: str, snapshot: int, interpretable: int, **more: object) -> pd.DataFrame:
    """Return the monitor's row of a layer of 100 neurons."""
    row = {"network": network, "seed": 0, "snapshot": snapshot, "layer": "a", "detector": "cos", "neurons": 100}
    row |= {"interpretable": interpretable, "null_interpretable": 1, "label": f"step {10 * snapshot}"}
    return pd.DataFrame([row | {"mean_pairwise": 0.5, "accuracy": 0.9} | more])


def counted(network: str, snapshot: int, **categories: int) -> pd.DataFrame:
    """Return how many neurons hold a concept of each category."""
    rows = [{"category": name, "neurons": count} for name, count in categories.items()]
    where: dict[str, Any] = {  # Any: texts and numbers
        "network": network,
        "seed": 0,
        "snapshot": snapshot,
        "layer": "a",
        "detector": "cos",
    }
    return pd.DataFrame(rows, columns=["category", "neurons"]).assign(**where)


def observed(
    paradigm: Paradigm, monitor: list[pd.DataFrame], categories: list[pd.DataFrame] | None = None
) -> Observation:
    """Return the only observation of a network `other`."""
    counts = pd.concat(categories or [counted("other", 0, color=1)], ignore_index=True)
    paradigms = {"plain": STANDARD, "other": paradigm}
    (found,) = paradigm_observations(paradigms, pd.concat(monitor, ignore_index=True), counts)
    return found


def of_seeds(network: str, values: list[float], column: str, interpretable: int = 50) -> list[pd.DataFrame]:
    """Return rows of several seeds at snapshot 1, with a row at snapshot 0 that must not count."""
    rows = [monitored(network, 1, interpretable, seed=seed, **{column: v}) for seed, v in enumerate(values)]
    return [monitored(network, 0, 0, **{column: 9.0}), *rows]


@pytest.mark.parametrize(
    ("poor", "state"),
    [
        ([0.2, 0.3, 0.1], "held"),  # gaps .3, .2, .4: mean .3, twice the error .115
        ([0.8, 0.7, 0.9], "did not hold"),
        ([0.5, 0.1, 0.8], "cannot be said"),  # gaps 0, .4, -.3: mean .033
        ([0.2], "cannot be said"),  # one seed
    ],
)
def test_poor_training_is_clumped_where_neurons_are_nearer_over_seeds(poor: list[float], state: str) -> None:
    plain = of_seeds("plain", [0.5] * len(poor), "mean_pairwise")
    found = observed(Paradigm("poor", "plain"), [*plain, *of_seeds("other", poor, "mean_pairwise")])
    assert found.state == state
    assert found.name == "Poor training, cos"
    assert "0.500 for plain (step 10)" in found.text
    assert ("with one seed the noise is unknown" in found.text) == (len(poor) == 1)


def test_the_error_over_seeds_is_that_of_the_differences() -> None:
    plain = of_seeds("plain", [0.5, 0.5, 0.5], "mean_pairwise")
    found = observed(Paradigm("poor", "plain"), [*plain, *of_seeds("other", [0.2, 0.3, 0.1], "mean_pairwise")])
    # The deviation of .3, .2, .4 is .1; twice .1 / sqrt(3) is .11547.
    assert "over 3 seeds, twice the error of the difference is 0.115" in found.text


@pytest.mark.parametrize(
    ("accuracy", "interpretable", "state"),
    [
        ([0.95, 0.96], 90, "held"),
        ([0.95, 0.96], 20, "did not hold"),
        ([0.85, 0.86], 90, "did not hold"),
        ([0.95, 0.96], 51, "cannot be said"),
    ],
)
def test_diversity_has_to_raise_both(accuracy: list[float], interpretable: int, state: str) -> None:
    plain = of_seeds("plain", [0.9, 0.9], "accuracy")
    other = of_seeds("other", accuracy, "accuracy", interpretable)
    assert observed(Paradigm("diversity", "plain"), [*plain, *other]).state == state


def test_a_lotterys_last_masked_start_stands_next_to_the_unmasked_one() -> None:
    rows = [monitored("other", snapshot, count) for snapshot, count in enumerate((10, 20, 40, 90))]
    found = observed(Paradigm("lottery", ""), rows)  # the last is the end of the last training
    assert found.state == "held"
    assert f"10.0{NBSP}% (10 of 100) in other (step 0)" in found.text
    assert f"40.0{NBSP}% (40 of 100) in other (step 20)" in found.text
    # pooled share .25: twice sqrt(.25 x .75 x 2 / 100) is 12.2 points
    assert f"chance is 12.2{NBSP}points" in found.text


def test_concepts_that_come_by_chance_do_not_count() -> None:
    rows = [monitored("other", snapshot, count, null_interpretable=30) for snapshot, count in enumerate((10, 40, 90))]
    found = observed(Paradigm("lottery", ""), rows)
    assert found.state == "cannot be said"
    assert "half of the latter or more come by chance" in found.text


@pytest.mark.parametrize(
    ("color", "things", "state"),
    [(60, 10, "held"), (60, 40, "cannot be said"), (10, 60, "did not hold"), (60, 120, "did not hold")],
)
def test_robust_networks_prefer_colours_and_hold_fewer_classes(color: int, things: int, state: str) -> None:
    rows = [monitored("plain", 0, 80), monitored("other", 0, 80)]
    counts = [
        counted("plain", 0, color=20, object=20, part=15, texture=25),
        counted("other", 0, color=color, object=things, texture=20),
    ]
    assert observed(Paradigm("adversarial", "plain"), rows, counts).state == state


def test_fine_tuning_is_compared_with_its_own_start() -> None:
    rows = [monitored("other", 0, 50), monitored("other", 1, 50), monitored("other", 2, 50)]
    counts = [
        counted("other", 0, texture=5, material=5, object=40),
        counted("other", 1, object=50),
        counted("other", 2, texture=20, material=20, object=10),
    ]
    found = observed(Paradigm("fine-tuning", ""), rows, counts)
    assert found.state == "held"
    assert f"20.0{NBSP}% (10 of 50) in other (step 0), 80.0{NBSP}% (40 of 50) in other (step 20)" in found.text


def test_no_neuron_with_a_concept_leaves_nothing_to_say() -> None:
    rows = [monitored("plain", 0, 0), monitored("other", 0, 0)]
    found = observed(Paradigm("adversarial", "plain"), rows, [counted("plain", 0), counted("other", 0)])
    assert found.state == "cannot be said"


def test_standard_networks_have_no_observation_and_each_detector_has_one() -> None:
    rows = pd.concat([monitored("plain", 0, 5), monitored("other", 0, 5), monitored("other", 1, 6)])
    rows = pd.concat([rows, rows.assign(detector="dissection")], ignore_index=True)
    paradigms = {"plain": STANDARD, "other": Paradigm("fine-tuning", "")}
    found = list(paradigm_observations(paradigms, rows, counted("other", 1, texture=3)))
    assert [one.name for one in found] == ["Fine-tuning, cos", "Fine-tuning, dissection"]
