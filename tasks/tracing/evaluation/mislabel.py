"""Detection of flipped labels by low self-attributions, or by high losses."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from tasks.tracing.checks import check_values


def mislabel_auc(
    scores: NDArray[np.floating], flipped: NDArray[np.bool_], marks: Literal["low", "high"] = "low"
) -> float:
    """Measure by the area under the ROC curve how well a score ranks the flipped examples before the others.

    Parameters
    ----------
    scores : (N,) float, e.g. each example's attribution to itself
    flipped : (N,) bool, both values present
    marks : the end that marks a flipped label: "low" for self-attribution by gamma, "high" for the summed training
        loss

    Returns
    -------
    0 to 1; 0.5 is chance; pairs of equal scores count one half

    Raises
    ------
    ValueError : shapes that differ, NaN, only one value in `flipped`, unknown `marks`
    """
    values = check_values("scores", scores, 1)
    if not isinstance(flipped, np.ndarray) or flipped.dtype != bool or flipped.shape != values.shape:
        raise ValueError(f"flipped: expected {len(values)} booleans, one per score, found shape {np.shape(flipped)}")
    if marks not in ("low", "high"):
        raise ValueError(f"marks: expected low or high, found {marks!r}")
    n_marked, n_rest = int(flipped.sum()), int((~flipped).sum())
    if not n_marked or not n_rest:
        raise ValueError(f"flipped: expected flipped and unflipped examples, found {n_marked} and {n_rest}")
    ranks = rankdata(values if marks == "high" else -values)
    wins = ranks[flipped].sum() - n_marked * (n_marked + 1) / 2  # Mann-Whitney U
    return float(wins / (n_marked * n_rest))
