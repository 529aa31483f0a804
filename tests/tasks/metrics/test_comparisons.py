"""Comparisons of coresets class by class, by hand: with random, between budgets, and of transferred coresets."""

import numpy as np
import pandas as pd
import pytest

from tasks.metrics.comparisons import against_random, with_budget
from tasks.metrics.paired import gap
from tasks.metrics.transfer import transfer_summary, transfer_table


def rows(selector: str, values: dict[float, list[float]], *, repeat: int = 0, sender: str = "net") -> pd.DataFrame:
    """Return the rows of one selector: a list of distances, one per class, by budget; accuracy is 1 - distance."""
    return pd.DataFrame(
        {
            "network": "net", "seed": 0, "interpreter": "ice", "selector": selector, "coreset_from": sender,
            "repeat": repeat, "budget": budget, "label": label, "distance_0": distance, "distance_05": distance,
            "distance_1": 2 * distance, "accuracy": 1 - distance, "agreement": 0.5,
        }
        for budget, column in values.items()
        for label, distance in enumerate(column)
    )  # fmt: skip


def test_a_gap_is_paired_by_class_and_leaves_out_classes_without_a_value() -> None:
    first = pd.concat([rows("a", {0.1: [0.1, 0.2, np.nan]}), rows("a", {0.1: [0.3, 0.4, 0.5]}, repeat=1)])
    second = rows("b", {0.1: [0.5, 0.6, 0.7], 0.2: [9.0, 9.0, 9.0]})  # no partner at 20 %
    found = gap(first, second, "distance_0")
    # draws average to 0.2, 0.3 and 0.5: differences 0.3, 0.3, 0.2
    np.testing.assert_allclose(found.mean, 0.8 / 3)
    np.testing.assert_allclose(found.error, np.std([0.3, 0.3, 0.2], ddof=1) / 3**0.5)
    assert found.n_classes == 3
    alone = gap(first[first["label"] == 0], second, "distance_0")
    assert (alone.n_classes, np.isnan(alone.error)) == (1, True)
    nothing = gap(first, second.assign(distance_0=np.nan), "distance_0")
    assert (nothing.n_classes, np.isnan(nothing.mean)) == (0, True)


def test_selectors_are_compared_with_random_from_10_to_50_percent() -> None:
    classes = pd.concat(
        [
            rows("random", {0.05: [9.0, 9.0], 0.1: [0.4, 0.6], 0.5: [0.2, 0.2]}),
            rows("random", {0.1: [0.6, 0.6], 0.5: [0.2, 0.4]}, repeat=1),
            rows("moderate", {0.05: [0.0, 0.0], 0.1: [0.5, 0.5], 0.5: [0.1, 0.1], 0.95: [0.0, 0.0]}),
        ]
    )
    (found,) = against_random(classes).to_dict("records")
    # random by class: (0.5 + 0.2) / 2 = 0.35 and (0.6 + 0.3) / 2 = 0.45; moderate 0.3 and 0.3
    np.testing.assert_allclose(found["difference"], -0.1)
    np.testing.assert_allclose(found["error"], np.std([0.05, 0.15], ddof=1) / 2**0.5)
    assert (found["network"], found["interpreter"], found["selector"]) == ("net", "ice", "moderate")
    assert not len(against_random(classes[classes["selector"] != "moderate"]))


def test_the_largest_coreset_is_compared_with_the_smallest() -> None:
    classes = rows("random", {0.1: [0.5, 0.9], 0.3: [7.0, 7.0], 0.5: [0.1, 0.3], 1.0: [0.0, 0.0]})
    found = with_budget(classes).set_index("measure")
    assert list(found.index) == ["distance_0", "accuracy"]  # no units here
    assert set(zip(found["least"], found["most"], strict=True)) == {(0.1, 0.5)}
    np.testing.assert_allclose(found["difference"], [-0.5, 0.5])
    np.testing.assert_allclose(found["error"], np.std([0.4, 0.6], ddof=1) / 2**0.5)
    assert not len(with_budget(rows("random", {0.1: [0.5, 0.9], 1.0: [0.0, 0.0]})))  # a single coreset


@pytest.fixture
def exchanged() -> pd.DataFrame:
    """Two networks' coresets for `net`: random is not transferred, moderate and dgpruning are."""
    return pd.concat(
        [
            *(rows("random", {0.1: [0.5, 0.5]}, repeat=r) for r in (0, 1)),
            *(rows("dgpruning", {0.1: [0.5, 0.5]}, repeat=r) for r in (0, 1)),
            *(rows("dgpruning from other", {0.1: [0.5, 0.5]}, repeat=r, sender="other") for r in (0, 1)),
            rows("moderate", {0.1: [0.4, 0.2], 0.5: [0.2, 0.2], 1.0: [0.0, 0.0]}),
            rows("moderate from other", {0.1: [0.5, 0.5], 0.5: [0.2, 0.4]}, sender="other"),
        ]
    )


def test_transferred_coresets_are_next_to_the_own(exchanged: pd.DataFrame) -> None:
    table = transfer_table(exchanged)
    assert list(zip(table["selector"], table["budget"], strict=True)) == [
        *(("dgpruning", 0.1), ("moderate", 0.1), ("moderate", 0.5)),
    ]
    same, first = table.iloc[0], table.iloc[1]
    np.testing.assert_allclose(
        first[["phi_0_own", "phi_0_transferred", "phi_0_difference", "phi_1_difference"]].astype(float),
        [0.3, 0.5, 0.2, 0.4],
    )
    np.testing.assert_allclose(first["phi_0_error"], np.std([0.1, 0.3], ddof=1) / 2**0.5)
    np.testing.assert_allclose(first["accuracy_difference"], -0.2)
    assert (first["coreset_from"], first["n_draws"], first["n_classes"]) == ("other", 1, 2)
    assert (same["phi_0_difference"], same["n_draws"]) == (0.0, 2)


def test_means_of_own_and_transferred_coresets_are_of_the_classes_with_both() -> None:
    own = rows("moderate", {0.1: [0.9, 0.9, 0.1, np.nan]})
    (row,) = transfer_table(
        pd.concat([own, rows("moderate from other", {0.1: [np.nan, np.nan, 0.2, 0.9]}, sender="other")])
    ).to_dict("records")
    found = [row[f"phi_0_{part}"] for part in ("own", "transferred", "difference")]
    np.testing.assert_allclose(found, [0.1, 0.2, 0.1])  # over all classes: 0.63, 0.55
    assert row["n_classes"] == 1


def test_the_summary_of_transfer_is_the_mean_over_budgets_and_selectors(exchanged: pd.DataFrame) -> None:
    (row,) = transfer_summary(exchanged).to_dict("records")
    # class 0: (0.1 + 0.0 + 0.0) / 3, class 1: (0.3 + 0.2 + 0.0) / 3; the third is dgpruning
    np.testing.assert_allclose(row["phi_0_difference"], (0.1 / 3 + 0.5 / 3) / 2)
    np.testing.assert_allclose(row["phi_0_error"], np.std([0.1 / 3, 0.5 / 3], ddof=1) / 2**0.5)
    assert row["selectors"] == ["dgpruning", "moderate"]  # in the order of the table


def test_without_transfer_there_are_no_rows(exchanged: pd.DataFrame) -> None:
    own = exchanged[exchanged["coreset_from"] == "net"]
    assert not len(transfer_table(own))
    assert "phi_0_difference" in transfer_table(own)
    assert not len(transfer_summary(own))
