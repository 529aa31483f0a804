"""Ridge plots: densities of step cosines by class, with weights ||D_t f|| (Pfahler & Morik 2022, Alg. 3)."""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.tracing.checks import Doubles, check_integers, check_values

Kind = Literal["absolute", "scott-factor"]

CHUNK = 2**20  # kernel values computed at a time
# Weighted squares below this share of the largest square are rounding: the class lies at one point.
POINT = 1e-28


def ridge_densities(
    cosine: NDArray[np.floating],
    weight: NDArray[np.floating],
    classes: NDArray[np.integer],
    grid: NDArray[np.floating],
    bandwidth: float = 0.1,
    kind: Kind = "absolute",
) -> Doubles:
    """Estimate each class's density of one query's step cosines, exactly.

    Parameters
    ----------
    cosine : (T,) float, T at least 1
    weight : (T,) float, ||D_t f||, at least 0
    classes : (T,) integer at least 0
    grid : (G,) float, points of the densities
    bandwidth : above 0
    kind : under `absolute` the kernel's deviation is `bandwidth`, in cosine units. Under `scott-factor` it is
        `bandwidth` times the class's weighted deviation. This variance is divided by 1 - sum of squared normalised
        weights: as in scipy's gaussian_kde with that factor, and in the authors' code.

    Returns
    -------
    (C, G) float64, C = classes.max() + 1, row c is class c; not renormalised on the grid. Zeros for a class of total
    weight 0. Under `scott-factor` also zeros for a class of one step, or where all steps share one cosine.

    Raises
    ------
    ValueError : wrong shapes, NaN, T of 0, a negative weight or class, a bandwidth not above 0, an unknown kind
    """
    x, w = check_values("cosine", cosine, 1), check_values("weight", weight, 1)
    points = check_values("grid", grid, 1)
    check_smoothing(bandwidth, kind)
    labels = check_integers("classes", classes, len(x))
    if len(w) != len(x) or not len(x):
        raise ValueError(f"cosine, weight: expected shape (T,), T at least 1, in both, found {x.shape} and {w.shape}")
    if (w < 0).any() or (labels < 0).any():
        raise ValueError("weight, classes: expected numbers of at least 0, found a negative number")
    found = np.zeros((int(labels.max()) + 1, len(points)))
    for label in np.unique(labels):
        chosen = labels == label
        found[label] = _density(x[chosen], w[chosen], points, bandwidth, kind)
    return found


def check_smoothing(bandwidth: float, kind: str) -> None:
    """Check a bandwidth and its kind."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind: expected one of {', '.join(get_args(Kind))}, found {kind!r}")
    if not 0 < bandwidth < np.inf:
        raise ValueError(f"bandwidth: expected a number above 0, found {bandwidth!r}")


def kernel_sum(x: Doubles, w: Doubles, points: Doubles, width: float) -> Doubles:
    """Return (G,), the sum over i of w_i times the Gaussian density of deviation `width` at points - x_i."""
    total = np.zeros(len(points))
    step = max(1, CHUNK // max(len(points), 1))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        total += w[part] @ kernel_values(x[part], points, width)
    found: Doubles = total / kernel_area(width)
    return found


def kernel_values(x: Doubles, points: Doubles, width: float) -> Doubles:
    """Return (n, G), a Gaussian of height 1 and deviation `width` around each x at the points."""
    values: Doubles = np.exp(-0.5 * ((points - x[:, None]) / width) ** 2)
    return values


def kernel_area(width: float) -> float:
    """Return the integral of a Gaussian of height 1."""
    return float(width * np.sqrt(2 * np.pi))


def _density(x: Doubles, w: Doubles, points: Doubles, bandwidth: float, kind: Kind) -> Doubles:
    """Return one class's density, zeros where it does not have one."""
    kept = w > 0
    if not kept.any():
        return np.zeros(len(points))
    x, w = x[kept], w[kept] / w[kept].max()  # squares of tiny weights must not underflow
    w = w / w.sum()
    if kind == "scott-factor":
        variance = _variance(x, w)
        if variance <= 0:
            return np.zeros(len(points))
        bandwidth = bandwidth * np.sqrt(variance)
    return kernel_sum(x, w, points, bandwidth)


def _variance(x: Doubles, p: Doubles) -> float:
    """Return the unbiased variance for normalised weights p > 0; 0 for a single step or one common value."""
    rest = 1 - np.square(p).sum()
    if len(x) == 1 or np.ptp(x) == 0 or rest <= 0:
        return 0.0
    square = p @ np.square(x - p @ x)
    return float(square / rest) if square > POINT * np.square(x).max() else 0.0
