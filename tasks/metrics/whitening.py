"""Partial whitening and the angle of the best rotation, from scatter matrices alone (Williams et al. 2021)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

RELATIVE_FLOOR = 1e-9  # eigenvalues below this share of the largest are rounding noise: whitening would blow them up


@dataclass(frozen=True, eq=False)
class Scatter:
    """Sums of centred products of two sets of columns over the same n rows.

    Attributes
    ----------
    xx, yy, xy : (dx, dx), (dy, dy), (dx, dy) float64
    n : rows summed over, at least 2
    """

    xx: Doubles
    yy: Doubles
    xy: Doubles
    n: int


@dataclass(frozen=True, eq=False)
class Whitened:
    """Two sets after partial whitening, each in the basis of its own kept directions.

    Attributes
    ----------
    x_map, y_map : (dx, rx), (dy, ry) float64, columns to whitened columns
    x_norm, y_norm : Frobenius norms of the whitened sets, 0 for a constant set
    product : (rx, ry) float64, cross products of the whitened sets
    """

    x_map: Doubles
    y_map: Doubles
    x_norm: float
    y_norm: float
    product: Doubles


def whiten_pair(scatter: Scatter, alpha: float, normalise: bool) -> Whitened:
    """Whiten both sets partially.

    Parameters
    ----------
    scatter : sums of centred products
    alpha : 0 full whitening, 1 none
    normalise : first divide each set by the root of its mean squared row norm

    Returns
    -------
    Whitened

    Notes
    -----
    Three parts of the printed definition change the sets by a rotation or a common factor, of which the angle is free,
    and are left out: the padding of the narrower set with zeros, the second rotation of Z = V d V', the rescaling of d
    that keeps the trace.
    """
    x_map = partial_whitening(scatter.xx, scatter.n, alpha, normalise)
    y_map = partial_whitening(scatter.yy, scatter.n, alpha, normalise)
    # The norms come from the same products as the cross term, not from the eigenvalues: rounding errors, large for
    # small eigenvalues, then cancel for two equal sets.
    x_norm = float(np.sqrt(np.trace(x_map.T @ (scatter.xx @ x_map))))
    y_norm = float(np.sqrt(np.trace(y_map.T @ (scatter.yy @ y_map))))
    return Whitened(x_map, y_map, x_norm, y_norm, x_map.T @ (scatter.xy @ y_map))


def partial_whitening(scatter: Doubles, n: int, alpha: float, normalise: bool) -> Doubles:
    """Find the directions of a set and the factor of each.

    Parameters
    ----------
    scatter : (d, d) float64, X'X of centred X
    n : rows, used by `normalise` only
    alpha : 0 full whitening, 1 none
    normalise : take X at unit mean squared row norm

    Returns
    -------
    (d, r) float64, V d with d = alpha + (1 - alpha) / sqrt(lambda) on the r kept directions; the identity at alpha = 1,
    where nothing is whitened and nothing need be dropped
    """
    if alpha == 1:
        return np.eye(len(scatter))
    values, vectors = np.linalg.eigh(scatter)
    kept = _above_floor(values)
    scale = n / np.trace(scatter) if normalise and kept.any() else 1.0
    factors: Doubles = alpha + (1 - alpha) / np.sqrt(values[kept] * scale)
    directions: Doubles = vectors[:, kept] * factors
    return directions


def angle_between(whitened: Whitened) -> float:
    """Measure the angle that the best rotation leaves.

    Parameters
    ----------
    whitened : two sets

    Returns
    -------
    radians in [0, pi/2]; NaN if either set is constant, as it has no direction
    """
    if whitened.x_norm == 0 or whitened.y_norm == 0:
        return float("nan")
    singular = np.linalg.svd(whitened.product, compute_uv=False)
    return float(np.arccos(min(singular.sum() / (whitened.x_norm * whitened.y_norm), 1.0)))


def numerical_rank(scatter: Doubles) -> int:
    """Count the directions that whitening keeps.

    Parameters
    ----------
    scatter : (d, d) float64, X'X of centred X

    Returns
    -------
    0..d, 0 for a constant set
    """
    return int(_above_floor(np.linalg.eigvalsh(scatter)).sum())


def _above_floor(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which ascending eigenvalues are more than rounding noise."""
    kept: NDArray[np.bool_] = (values > 0) & (values >= RELATIVE_FLOOR * values[-1])
    return kept
