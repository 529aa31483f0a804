"""Measures of how far attributions can be trusted: by hand, against scikit-learn and scipy, and on planted data."""

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from tasks.tracing.evaluation import (
    cardinality,
    class_agreement,
    linear_datamodelling_score,
    margins,
    mislabel_auc,
    noise_ceiling,
    rank_correlation,
)

RNG = np.random.default_rng(0)


def test_mislabel_auc_by_hand() -> None:
    flipped = np.array([True, False, True, False])
    assert mislabel_auc(np.array([-5.0, 1.0, -1.0, 3.0]), flipped) == 1
    assert mislabel_auc(np.array([0.0, 1.0, 1.0, 3.0]), flipped) == 0.875  # one tie of four pairs
    assert mislabel_auc(np.array([9.0, 1.0, 8.0, 3.0]), flipped, marks="high") == 1
    assert mislabel_auc(np.zeros(4), flipped) == 0.5


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_mislabel_auc_is_scikit_learns(decimals: int) -> None:
    scores, flipped = RNG.normal(size=200).round(decimals), RNG.random(200) < 0.1
    assert mislabel_auc(scores, flipped) == pytest.approx(roc_auc_score(flipped, -scores), abs=1e-12)
    assert mislabel_auc(scores, flipped, marks="high") == pytest.approx(roc_auc_score(flipped, scores), abs=1e-12)


def test_mislabel_auc_refuses() -> None:
    with pytest.raises(ValueError, match="expected flipped and unflipped examples, found 0 and 3"):
        mislabel_auc(np.zeros(3), np.zeros(3, bool))
    with pytest.raises(ValueError, match="flipped: expected 3 booleans, one per score"):
        mislabel_auc(np.zeros(3), np.zeros(3))  # type: ignore[arg-type]  # what is tested
    with pytest.raises(ValueError, match="marks: expected low or high, found 'top'"):
        mislabel_auc(np.zeros(2), np.array([True, False]), marks="top")  # type: ignore[arg-type]  # what is tested


def test_agreement_and_cardinality_by_hand() -> None:
    assert class_agreement(np.array([[1, 1, 2], [0, 0, 0]]), np.array([1, 2])) == pytest.approx(1 / 3)
    assert cardinality(np.array([[7, 8], [8, 9]])) == 0.75
    assert cardinality(np.array([[4, 4], [4, 4]])) == 0.25
    with pytest.raises(ValueError, match=r"ids: expected integers of shape \(Q, k\), both at least 1, found \(2, 0\)"):
        cardinality(np.zeros((2, 0), np.int64))
    with pytest.raises(ValueError, match=r"query_classes: expected shape \(2,\), one per query"):
        class_agreement(np.zeros((2, 3), np.int64), np.zeros(3, np.int64))


def test_rank_correlation_is_scipys_and_counts_constants() -> None:
    first, second = RNG.normal(size=(5, 40)).round(1), RNG.normal(size=(5, 40)).round(1)
    second[3], first[4] = 2.5, 0
    found = rank_correlation(first, second)
    expected = [spearmanr(a, b).statistic for a, b in zip(first[:3], second[:3], strict=True)]
    np.testing.assert_allclose(found.per_query, [*expected, 0, 0], atol=1e-12)
    assert found.n_constant == 2
    assert found.mean == pytest.approx(sum(expected) / 5, abs=1e-12)
    assert rank_correlation(first[:3], -(first[:3] ** 3)).mean == pytest.approx(-1)
    with pytest.raises(ValueError, match="first, second: expected one shape"):
        rank_correlation(first, second[:, :3])


def test_lds_against_loops() -> None:
    subsets, attributions = RNG.random((12, 30)) < 0.5, RNG.normal(size=(4, 30))
    attributions[1] = 0
    measured = RNG.normal(size=(12, 3, 4))
    measured[:, :, 2] = 7
    found = linear_datamodelling_score(subsets, attributions, measured)
    for query in (0, 3):
        predicted = [sum(attributions[query, i] for i in range(30) if subset[i]) for subset in subsets]
        means = [sum(measured[m, r, query] for r in range(3)) / 3 for m in range(12)]
        assert found.per_query[query] == pytest.approx(spearmanr(predicted, means).statistic, abs=1e-12)
    np.testing.assert_array_equal(found.per_query[1:3], 0)
    assert found.n_constant == 2
    flat = linear_datamodelling_score(subsets, attributions, measured.mean(axis=1))
    np.testing.assert_allclose(flat.per_query, found.per_query)


def test_attributions_that_are_all_equal_on_subsets_of_one_size_are_constant() -> None:
    subsets = np.stack([RNG.permutation(30) < 15 for _ in range(10)])
    found = linear_datamodelling_score(subsets, np.full((1, 30), 0.1), RNG.normal(size=(10, 1)))
    assert (found.mean, found.n_constant) == (0, 1)


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_ceiling_is_what_the_truth_itself_scores(noise: float) -> None:
    rng = np.random.default_rng(1)
    subsets, attributions = rng.random((300, 80)) < 0.5, rng.normal(size=(40, 80))
    truth = subsets @ attributions.T
    measured = truth[:, None] + noise * truth.std() * rng.normal(size=(300, 4, 40))
    score = linear_datamodelling_score(subsets, attributions, measured)
    assert noise_ceiling(measured).ceiling == pytest.approx(score.mean, abs=0.02)


def test_the_ceiling_by_hand() -> None:
    one = np.array([1.0, 2.0, 3.0, 4.0])
    other = np.array([1.0, 2.0, 4.0, 3.0])  # Spearman 1 - 6 * 2 / (4 * 15) = 0.8
    found = noise_ceiling(np.stack([one, other], axis=1)[:, :, None])
    assert found.single == pytest.approx(0.8)
    assert found.reliability == pytest.approx(1.6 / 1.8)
    assert found.ceiling == pytest.approx((1.6 / 1.8) ** 0.5)
    assert noise_ceiling(np.stack([one, -one], axis=1)[:, :, None]).ceiling == 0
    with pytest.raises(ValueError, match="expected at least 2 retrainings per subset, found 1"):
        noise_ceiling(one[:, None, None])


def test_lds_refuses() -> None:
    subsets, attributions = np.ones((3, 5), bool), np.ones((2, 5))
    with pytest.raises(ValueError, match=r"margins: expected \(m, \[R,\] Q\) = \(3, \[R,\] 2\), found \(3, 4\)"):
        linear_datamodelling_score(subsets, attributions, np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"subsets: expected booleans of shape \(m, 5\), found \(3, 4\)"):
        linear_datamodelling_score(subsets[:, :4], attributions, np.ones((3, 2)))


def test_margins_are_log_odds_and_never_overflow() -> None:
    logits, classes = RNG.normal(size=(6, 4)), np.array([0, 1, 2, 3, 0, 1])
    chance = np.exp(log_softmax(logits, axis=1)[np.arange(6), classes])
    np.testing.assert_allclose(margins(logits, classes), np.log(chance / (1 - chance)), rtol=1e-12)
    np.testing.assert_allclose(margins(np.array([[900.0, 0.0], [0.0, 900.0]]), np.array([0, 0])), [900, -900])
    with pytest.raises(ValueError, match=r"classes: expected 0\.\.3, found 0\.\.4"):
        margins(logits, np.array([0, 1, 2, 3, 4, 1]))
    with pytest.raises(ValueError, match="expected at least 2 classes"):
        margins(logits[:, :1], np.zeros(6, np.int64))
