"""Rank correlation of attributions, query by query: with those of another run, or with retrained networks."""

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
    n_constant : number of queries that count as 0, because one side is equal for all examples (or subsets)
    """

    mean: float
    per_query: Doubles
    n_constant: int


@dataclass(frozen=True)
class NoiseCeiling:
    """The best correlation that a perfect attribution could reach with noisy margins.

    Attributes
    ----------
    single : mean Spearman correlation of the margins of two retrainings on the same subsets, over all pairs and queries
    reliability : `single` for means of R retrainings by Spearman-Brown, R r / (1 + (R - 1) r)
    ceiling : sqrt(reliability), the expected correlation of the noise-free margins with means of R retrainings
    n_constant : number of (pair, query) combinations that count as 0, because a side is constant
    """

    single: float
    reliability: float
    ceiling: float
    n_constant: int


def rank_correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> RankCorrelation:
    """Correlate the ranks of two tables, row by row.

    Parameters
    ----------
    first, second : (Q, N) float, Q at least 1, N at least 2; for example attributions of N examples under two runs.
        Against a run on permuted labels the correlation should be near 0 (randomisation check).

    Returns
    -------
    RankCorrelation; ties have their mean rank
    """
    x, y = check_values("first", first, 2), check_values("second", second, 2)
    if x.shape != y.shape or not len(x) or x.shape[1] < 2:
        raise ValueError(f"first, second: expected one shape (Q, N), Q >= 1 and N >= 2, found {x.shape} and {y.shape}")
    left, right = (rankdata(side, axis=1) - (side.shape[1] + 1) / 2 for side in (x, y))
    scale = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    found = np.divide((left * right).sum(axis=1), scale, out=np.zeros(len(x)), where=scale > 0)
    return RankCorrelation(float(found.mean()), found, int((scale == 0).sum()))


def linear_datamodelling_score(
    subsets: NDArray[np.bool_], attributions: NDArray[np.floating], margins: NDArray[np.floating]
) -> RankCorrelation:
    """Return the linear datamodelling score (LDS; Park et al. 2023).

    Parameters
    ----------
    subsets : (m, N) bool, the examples in each of m subsets
    attributions : (Q, N) float
    margins : (m, Q) or (m, R, Q) float, log p / (1 - p) of each query by networks trained on each subset; R
        retrainings are averaged

    Returns
    -------
    RankCorrelation, over the m subsets, of attributions summed over a subset with its margins; constant margins or
    predictions count as 0
    """
    values = check_values("attributions", attributions, 2)
    if not isinstance(subsets, np.ndarray) or subsets.dtype != bool or subsets.shape[1:] != values.shape[1:]:
        raise ValueError(f"subsets: expected booleans of shape (m, {values.shape[1]}), found {np.shape(subsets)}")
    measured = check_values("margins", margins, 3 if np.ndim(margins) == 3 else 2)
    measured = measured.mean(axis=1) if measured.ndim == 3 else measured
    if measured.shape != (len(subsets), len(values)):
        raise ValueError(f"margins: expected (m, [R,] Q) = ({len(subsets)}, [R,] {len(values)}), found {margins.shape}")
    predicted = values @ subsets.T.astype(np.float64)
    return rank_correlation(_snapped(predicted), measured.T)


def noise_ceiling(margins: NDArray[np.floating]) -> NoiseCeiling:
    """Estimate the ceiling of the linear datamodelling score from retrainings with different seeds.

    Parameters
    ----------
    margins : (m, R, Q) float, R at least 2

    Returns
    -------
    NoiseCeiling; a negative `single` gives a reliability of 0

    Notes
    -----
    Spearman-Brown and the root are exact for Pearson's correlation with independent noise of one distribution. For
    ranks they are close.
    """
    measured = check_values("margins", margins, 3)
    count = measured.shape[1]
    if count < 2:
        raise ValueError(f"margins: expected at least 2 retrainings per subset, found {count}")
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
    """Set rows with a spread of rounding only to one value: sums of equal numbers depend on their order."""
    size = np.abs(predicted).max(axis=1, keepdims=True)
    flat = np.ptp(predicted, axis=1, keepdims=True) <= 1e-12 * size
    return np.where(flat, 0.0, predicted)
