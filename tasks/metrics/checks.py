"""Checks of the input arrays of the metrics."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]


def check_matrix(name: str, matrix: Floats) -> None:
    """Check a matrix of real, finite numbers.

    Parameters
    ----------
    name : name of the matrix in the message
    matrix : (n, k), n and k at least 1
    """
    if not isinstance(matrix, np.ndarray) or isinstance(matrix, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a NumPy array (n, columns), found {type(matrix).__name__}")
    if matrix.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected real numbers, found dtype {matrix.dtype}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name}: expected shape (n, columns), both at least 1, found {matrix.shape}")
    finite = np.isfinite(matrix)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))
        raise ValueError(
            f"{name}: expected finite values, found NaN or inf in {bad.size} of {len(matrix)} rows, "
            f"the first is row {bad[0]}"
        )


def check_alpha(alpha: float) -> float:
    """Check the weight of the identity against whitening, 0 <= alpha <= 1; return a Python float."""
    if isinstance(alpha, bool) or not isinstance(alpha, int | float | np.integer | np.floating):
        raise TypeError(f"alpha: expected a number, found {alpha!r}")
    weight = float(alpha)
    if not 0 <= weight <= 1 or math.isnan(weight):
        raise ValueError(f"alpha: expected 0 (full whitening) to 1 (none), found {alpha!r}")
    return weight


def check_labels(labels: Integers, n_rows: int, n_classes: int) -> None:
    """Check class labels.

    Parameters
    ----------
    labels : (n_rows,) integer, 0..n_classes-1
    """
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise TypeError(f"labels: expected a NumPy array of integers, found {getattr(labels, 'dtype', type(labels))}")
    if labels.shape != (n_rows,):
        raise ValueError(f"labels: expected shape ({n_rows},), one per row of the logits, found {labels.shape}")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise ValueError(f"labels: expected 0..{n_classes - 1}, found {labels.min()}..{labels.max()}")
