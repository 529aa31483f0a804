"""Count the features that classes have in common."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Positions, check_indices


@dataclass(frozen=True, eq=False)
class Overlap:
    """The overlap of the classes' sets of k features.

    Attributes
    ----------
    matrix : (C, C) float64, |J_a and J_b| / k, 1 on the diagonal
    mean : of the matrix off the diagonal; NaN for a single class
    union : number of features that some class reads
    classes : (d,) int64, classes that read each feature
    """

    matrix: Doubles
    mean: float
    union: int
    classes: Positions


def membership(indices: NDArray[np.integer], n_features: int) -> NDArray[np.bool_]:
    """Return a mask (C, d) of the features in each class's set.

    Parameters
    ----------
    indices : (C, k) integer, distinct in each row
    n_features : d
    """
    checked = check_indices(indices, n_features)
    members = np.zeros((len(checked), n_features), dtype=np.bool_)
    np.put_along_axis(members, checked, True, axis=1)
    return members


def measure_overlap(indices: NDArray[np.integer], n_features: int) -> Overlap:
    """Measure the number of features that each pair of classes shares.

    Parameters
    ----------
    indices : (C, k) integer, distinct in each row
    n_features : d

    Returns
    -------
    Overlap
    """
    members = membership(indices, n_features)
    n_classes, k = indices.shape
    common = members.astype(np.float64)
    shared = common @ common.T  # integers: exact
    pairs = n_classes * (n_classes - 1)
    mean = (float(shared.sum()) - n_classes * k) / (pairs * k) if pairs else float("nan")
    classes = members.sum(axis=0, dtype=np.int64)
    return Overlap(shared / k, mean, int((classes > 0).sum()), classes)
