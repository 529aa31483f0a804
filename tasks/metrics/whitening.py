"""Partial whitening and the angle of the best rotation, from scatter matrices alone (Williams et al. 2021)."""

from collections.abc import Callable
from dataclasses import dataclass
from math import frexp, ldexp

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Eigen = tuple[Doubles, Doubles]  # ascending eigenvalues (d,), eigenvectors (d, d) as columns

RELATIVE_FLOOR = 1e-9  # eigenvalues below this share of the largest are rounding noise, which whitening would amplify


@dataclass(frozen=True, eq=False)
class Scatter:
    """Sums of centred products of two sets of columns over the same n rows.

    Attributes
    ----------
    xx, yy, xy : (dx, dx), (dy, dy), (dx, dy) float64, of the sets times 2^-exponent
    n : number of rows, at least 2
    x_eigen, y_eigen : give the eigenvalues and eigenvectors of xx and yy
    x_exponent, y_exponent : exponent of each set; 0 for usual magnitudes
    """

    xx: Doubles
    yy: Doubles
    xy: Doubles
    n: int
    x_eigen: Callable[[], Eigen]
    y_eigen: Callable[[], Eigen]
    x_exponent: int = 0
    y_exponent: int = 0


@dataclass(frozen=True, eq=False)
class Whitened:
    """Two sets after partial whitening, each in the basis of its kept directions.

    Attributes
    ----------
    x_map, y_map : (dx, rx), (dy, ry) float64, from columns times 2^-exponent to whitened columns
    x_norm, y_norm : Frobenius norms of the whitened sets, 0 for a constant set
    product : (rx, ry) float64, cross products of the whitened sets
    """

    x_map: Doubles
    y_map: Doubles
    x_norm: float
    y_norm: float
    product: Doubles


def whiten_pair(scatter: Scatter, alpha: float, normalise: bool) -> Whitened:
    """Whiten two sets partially.

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
    Three parts of the printed definition are left out: the zero padding of the narrower set, the second rotation of
    Z = V d V', and the rescaling of d. They change a set only by a rotation or a common factor. The angle does not
    depend on either.
    """
    x_exponent, y_exponent = (0, 0) if normalise else (scatter.x_exponent, scatter.y_exponent)
    n = scatter.n if normalise else None
    if alpha == 1:
        x_map, y_map = np.eye(len(scatter.xx)), np.eye(len(scatter.yy))
    else:
        x_map = partial_whitening(scatter.x_eigen(), float(np.trace(scatter.xx)), alpha, n=n, exponent=x_exponent)
        y_map = partial_whitening(scatter.y_eigen(), float(np.trace(scatter.yy)), alpha, n=n, exponent=y_exponent)
    # The norms come from the same products as the cross term, not from the eigenvalues. Rounding errors are large for
    # small eigenvalues; from equal products they cancel for two equal sets.
    x_norm = float(np.sqrt(np.trace(x_map.T @ (scatter.xx @ x_map))))
    y_norm = float(np.sqrt(np.trace(y_map.T @ (scatter.yy @ y_map))))
    return Whitened(x_map, y_map, x_norm, y_norm, x_map.T @ (scatter.xy @ y_map))


def partial_whitening(eigen: Eigen, trace: float, alpha: float, *, n: int | None = None, exponent: int = 0) -> Doubles:
    """Find the directions of a set and the whitening factor of each.

    Parameters
    ----------
    eigen, trace : of X'X, (d, d), of centred X
    alpha : 0 full whitening; below 1, where all directions are kept as they are
    n : number of rows, to scale X to unit mean squared row norm; None to leave X unscaled
    exponent : the set is X times 2^exponent

    Returns
    -------
    (d, r) float64, V d with d = 2^exponent alpha + (1 - alpha) / sqrt(lambda) on the r kept directions. It is divided
    by a power of two where d would exceed float64.
    """
    values, vectors = eigen
    kept = _above_floor(values)
    scale = n / trace if n is not None and kept.any() else 1.0
    bits = max(frexp(alpha)[1] + exponent, 0) if alpha > 0 else 0  # neither weight exceeds float64
    plain, whitened = ldexp(alpha, exponent - bits), ldexp(1 - alpha, -bits)
    factors: Doubles = plain + whitened / np.sqrt(values[kept] * scale)
    directions: Doubles = vectors[:, kept] * factors
    return directions


def eigen_of(scatter: Doubles) -> Eigen:
    """Return the eigenvalues and eigenvectors of a symmetric matrix (d, d)."""
    values, vectors = np.linalg.eigh(scatter)
    return values, vectors


def angle_between(whitened: Whitened) -> float:
    """Measure the angle between two sets after the best rotation.

    Parameters
    ----------
    whitened : the two sets

    Returns
    -------
    radians in [0, pi/2]; NaN if either set is constant, since then it does not have a direction
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
    """Return a mask of the ascending eigenvalues that exceed rounding noise."""
    kept: NDArray[np.bool_] = (values > 0) & (values >= RELATIVE_FLOOR * values[-1])
    return kept
