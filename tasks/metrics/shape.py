"""Shape distance between two sets of columns over the same rows (Williams et al. 2021, partial whitening)."""

from collections.abc import Iterator
from typing import Self

import numpy as np

from tasks.metrics.checks import Floats, check_alpha, check_matrix
from tasks.metrics.joint_shape import JointShape
from tasks.metrics.whitening import Doubles, Whitened, whiten_pair

CHUNK_ROWS = 2048
NEAR_ZERO = 0.01  # radians; below it the one-shot form reads the rows a second time


def shape_distance(x: Floats, y: Floats, alpha: float = 0.0, normalise: bool = False) -> float:
    """Measure the angle between two sets after centring, partial whitening and the best rotation.

    Parameters
    ----------
    x, y : (n, dx), (n, dy) float of any width, finite, n at least 2; widths may differ
    alpha : 0 full whitening (invariant to any invertible map), 1 none (invariant to rotation and scale); between them
        the result depends on scale and n unless `normalise`
    normalise : first divide each centred set by the root of its mean squared row norm

    Returns
    -------
    radians in [0, pi/2]; NaN if either set is constant, since then it does not have a direction

    Notes
    -----
    For alpha < 1, directions with an eigenvalue of X'X below 1e-9 of the largest are dropped. Sums are in float64 over
    chunks of 2,048 rows. Moments give a small angle only to the root of their rounding error. Where the angle is under
    0.01, a second pass measures the difference of the aligned rows instead. Its error is about 1e-15 times the ratio
    of the largest to the smallest kept eigenvalue. Each set is scaled by a power of two where its squares exceed
    float64. A ValueError is raised where even its differences exceed float64.
    """
    alpha = check_alpha(alpha)
    statistics = ShapeStatistics()
    _check_pair(x, y)
    for rows in _chunks(len(x)):
        statistics.update(x[rows], y[rows])
    angle = statistics.distance(alpha, normalise)
    if angle < NEAR_ZERO:
        return _angle_of_rows(x, y, statistics, alpha, normalise)
    return angle


class ShapeStatistics:
    """The statistics of rows that `shape_distance` needs, summed chunk by chunk.

    Picklable; it does not hold rows but ((dx + dy) squared) float64. It equals the one-shot form for every chunking
    and order of merging. Angles under 0.01 are an exception: their error is about sqrt(2e-16 lambda_max / lambda_min),
    at least 3e-8.
    """

    def __init__(self) -> None:
        self._joint: JointShape | None = None

    @property
    def n(self) -> int:
        """Return the number of rows so far."""
        return 0 if self._joint is None else self._joint.n

    @property
    def ranks(self) -> tuple[int, int]:
        """Return the numbers of directions of x and of y with an eigenvalue of at least 1e-9 of the largest."""
        joint = self.joint
        return joint.rank(0), joint.rank(1)

    @property
    def joint(self) -> JointShape:
        """Return the moments of x (set 0) and y (set 1); raise ValueError before the first row."""
        if self._joint is None:
            raise ValueError("shape distance: expected at least 2 rows, found 0")
        return self._joint

    def update(self, x: Floats, y: Floats) -> None:
        """Add the rows of one chunk to the statistics.

        Parameters
        ----------
        x, y : (m, dx), (m, dy) float of any width, finite, m at least 1
        """
        _check_pair(x, y)
        if self._joint is None:
            self._joint = JointShape((x.shape[1], y.shape[1]))
        self._joint.update((x, y))

    def merge(self, other: Self) -> Self:
        """Add the rows of another instance, which is not changed. Either may be empty.

        Parameters
        ----------
        other : of the same widths

        Returns
        -------
        this instance
        """
        if other._joint is not None:
            if self._joint is None:
                self._joint = JointShape(other._joint.widths)
            self._joint.merge(other._joint)
        return self

    def distance(self, alpha: float = 0.0, normalise: bool = False) -> float:
        """Measure the shape distance of the rows so far, at least 2.

        Parameters
        ----------
        alpha, normalise : as in `shape_distance`; the same statistics serve all values

        Returns
        -------
        radians in [0, pi/2]; NaN if either set is constant
        """
        return self.joint.distance(0, 1, alpha, normalise)


def _check_pair(x: Floats, y: Floats) -> None:
    """Check two matrices with the same number of rows."""
    check_matrix("x", x)
    check_matrix("y", y)
    if len(x) != len(y):
        raise ValueError(f"x, y: expected the same rows in both, found {len(x)} and {len(y)}")


def _chunks(n: int) -> Iterator[slice]:
    """Yield slices over n rows."""
    return (slice(start, start + CHUNK_ROWS) for start in range(0, n, CHUNK_ROWS))


def _angle_of_rows(x: Floats, y: Floats, statistics: ShapeStatistics, alpha: float, normalise: bool) -> float:
    """Return the angle of unit, aligned sets as 2 arcsin(|A - B| / 2), which keeps digits that arccos loses."""
    joint = statistics.joint
    x_map, y_map = _aligned(whiten_pair(joint.scatter(0, 1), alpha, normalise))
    squared = 0.0
    for rows in _chunks(len(x)):
        difference = np.ldexp(x[rows].astype(np.float64) - joint.mean(0), -joint.exponent(0)) @ x_map
        difference -= np.ldexp(y[rows].astype(np.float64) - joint.mean(1), -joint.exponent(1)) @ y_map
        squared += float(np.vdot(difference, difference))
    return float(2 * np.arcsin(min(np.sqrt(squared) / 2, 1.0)))


def _aligned(whitened: Whitened) -> tuple[Doubles, Doubles]:
    """Return maps (dx, r), (dy, r) from the columns of each set to unit norm in one common basis."""
    left, _, right = np.linalg.svd(whitened.product, full_matrices=True)
    x_map = whitened.x_map @ left / whitened.x_norm
    y_map = whitened.y_map @ right.T / whitened.y_norm
    width = max(x_map.shape[1], y_map.shape[1])
    return _padded(x_map, width), _padded(y_map, width)


def _padded(matrix: Doubles, width: int) -> Doubles:
    """Return a matrix with zero columns added up to a width."""
    return np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])))
