"""Rank correlation of attributions, query by query: with another run's, or with what retraining shows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tasks.tracing.checks import Doubles, check_values


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation per query.

    Attributes
    ----------
    mean : over all queries
    per_query : (Q,) float64
    n_constant : queries that count as 0 because one side is the same for all examples (or subsets)
    """

    mean: float
    per_query: Doubles
    n_constant: int


@dataclass(frozen=True)
class NoiseCeiling:
    """How well even a perfect attribution could predict margins that are measured with noise.

    Attributes
    ----------
    single : mean Spearman correlation of the margins of two retrainings on the same subsets, over all pairs and queries
    reliability : the same for means of R retrainings, `single` stepped up by Spearman-Brown, R r / (1 + (R - 1) r)
    ceiling : sqrt(reliability), the expected correlation of the noise-free margins with means of R retrainings
    n_constant : (pair, query) combinations that count as 0 because a side is constant
    """

    single: float
    reliability: float
    ceiling: float
    n_constant: int


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> RankCorrelation:
    """Correlate the ranks of two tables row by row.

    Parameters
    ----------
    first, second : (Q, N) float, Q at least 1, N at least 2; e.g. attributions of N examples under two runs: near 0
        against a run on permuted labels (randomisation check)

    Returns
    -------
    RankCorrelation; ties take their mean rank
    """
    x, y = check_values("first", first, 2), check_values("second", second, 2)
    if x.shape != y.shape or not len(x) or x.shape[1] < 2:
        raise ValueError(f"expected two tables of one shape (Q, N), Q >= 1 and N >= 2, got {x.shape} and {y.shape}")
    left, right = (rankdata(side, axis=1) - (side.shape[1] + 1) / 2 for side in (x, y))
    scale = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found = np.divide((left * right).sum(axis=1), scale, out=np.zeros(len(x)), where=scale > 0)
    return RankCorrelation(float(found.mean()), found, int((scale == 0).sum()))


def linear_datamodelling_score(
    subsets: NDArray[np.bool_], attributions: NDArray[np.floating], margins: NDArray[np.floating]
) -> RankCorrelation:
    """Measure how well attributions, summed over subsets, predict networks trained on them (LDS; Park et al. 2023).

    Parameters
    ----------
    subsets : (m, N) bool, which examples each of m subsets holds
    attributions : (Q, N) float
    margins : (m, Q) or (m, R, Q) float, log p / (1 - p) of each query under networks trained on each subset; the mean
        over R retrainings is taken

    Returns
    -------
    RankCorrelation over the m subsets; constant margins or predictions count as 0
    """
    values = check_values("attributions", attributions, 2)
    if not isinstance(subsets, np.ndarray) or subsets.dtype != bool or subsets.shape[1:] != values.shape[1:]:
        raise ValueError(f"subsets: expected booleans of shape (m, {values.shape[1]}), got {np.shape(subsets)}")
    measured = check_values("margins", margins, 3 if np.ndim(margins) == 3 else 2)
    measured = measured.mean(axis=1) if measured.ndim == 3 else measured
    if measured.shape != (len(subsets), len(values)):
        raise ValueError(f"margins: expected (m, [R,] Q) = ({len(subsets)}, [R,] {len(values)}), got {margins.shape}")
    predicted = values @ subsets.T.astype(np.float64)
    return rank_correlation(_snapped(predicted), measured.T)


def noise_ceiling(margins: NDArray[np.floating]) -> NoiseCeiling:
    """Estimate the ceiling of the linear datamodelling score from retrainings that differ only by their seed.

    Parameters
    ----------
    margins : (m, R, Q) float, R at least 2

    Returns
    -------
    NoiseCeiling; a negative `single` gives a reliability of 0

    Notes
    -----
    Spearman-Brown and the root are exact for Pearson's correlation with noise that is independent and alike in all
    retrainings; for ranks they are close.
    """
    measured = check_values("margins", margins, 3)
    count = measured.shape[1]
    if count < 2:
        raise ValueError(f"margins: expected at least 2 retrainings per subset, got {count}")
    pairs = [
        rank_correlation(measured[:, first].T, measured[:, second].T)
        for first in range(count)
        for second in range(first + 1, count)
    ]
    single = float(np.mean([pair.mean for pair in pairs]))
    positive = max(single, 0.0)
    reliability = count * positive / (1 + (count - 1) * positive)
    return NoiseCeiling(single, reliability, float(np.sqrt(reliability)), sum(pair.n_constant for pair in pairs))


def _snapped(predicted: Doubles) -> Doubles:
    """Set rows whose spread is rounding alone (sums of equal numbers in another order) to one value."""
    size = np.abs(predicted).max(axis=1, keepdims=True)
    flat = np.ptp(predicted, axis=1, keepdims=True) <= 1e-12 * size
    return np.where(flat, 0.0, predicted)
