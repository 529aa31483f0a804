"""Shape distance between two sets of columns over the same rows (Williams et al. 2021, partial whitening)."""

from collections.abc import Iterator
from typing import Self

import numpy as np

from tasks.metrics.checks import Floats, check_alpha, check_matrix
from tasks.metrics.joint_shape import JointShape
from tasks.metrics.whitening import Doubles, Whitened, whiten_pair

CHUNK_ROWS = 2048
NEAR_ZERO = 0.01  # radians; below it the one-shot form looks at the rows again


def shape_distance(x: Floats, y: Floats, alpha: float = 0.0, normalise: bool = False) -> float:
    """Measure the angle between two sets after centring, partial whitening and the best rotation.

    Parameters
    ----------
    x, y : (n, dx), (n, dy) float of any width, finite, n at least 2; widths may differ
    alpha : 0 full whitening (free of any invertible map), 1 none (free of rotation and scale); between, the result
        depends on scale and n unless `normalise`
    normalise : first divide each centred set by the root of its mean squared row norm

    Returns
    -------
    radians in [0, pi/2]; NaN if either set is constant, as it has no direction

    Notes
    -----
    Directions with an eigenvalue of X'X below 1e-9 of the largest are dropped, for alpha < 1. Sums in float64 over
    chunks of 2,048 rows. The moments know a small angle only to the root of their rounding error; where it comes out
    under 0.01 a second pass measures the aligned rows' difference instead, which is good to about 1e-15 times the
    ratio of the largest to the smallest kept eigenvalue. Each set is scaled by a power of two where its squares would
    leave float64; a ValueError says so where even its differences do.
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
    """What `shape_distance` needs to know of its rows, added up chunk by chunk.

    Picklable, holds no rows: ((dx + dy) squared) float64. Equal to the one-shot form for every chunking and order of
    merging, but for angles under 0.01, which are known to about sqrt(2e-16 lambda_max / lambda_min), 3e-8 at best.
    """

    def __init__(self) -> None:
        self._joint: JointShape | None = None

    @property
    def n(self) -> int:
        """Rows seen."""
        return 0 if self._joint is None else self._joint.n

    @property
    def ranks(self) -> tuple[int, int]:
        """Directions of x and of y whose eigenvalue is at least 1e-9 of the largest."""
        joint = self.joint
        return joint.rank(0), joint.rank(1)

    @property
    def joint(self) -> JointShape:
        """The moments of x (set 0) and y (set 1); an error before the first row."""
        if self._joint is None:
            raise ValueError("a shape distance needs at least 2 rows, got 0")
        return self._joint

    def update(self, x: Floats, y: Floats) -> None:
        """Add the rows of one chunk.

        Parameters
        ----------
        x, y : (m, dx), (m, dy) float of any width, finite, m at least 1
        """
        _check_pair(x, y)
        if self._joint is None:
            self._joint = JointShape((x.shape[1], y.shape[1]))
        self._joint.update((x, y))

    def merge(self, other: Self) -> Self:
        """Add the rows that another instance has seen; that one is not changed. Either may be empty.

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
        """Measure the shape distance of the rows seen, at least 2.

        Parameters
        ----------
        alpha, normalise : as in `shape_distance`; several may be asked of the same statistics

        Returns
        -------
        radians in [0, pi/2]; NaN if either set is constant
        """
        return self.joint.distance(0, 1, alpha, normalise)


def _check_pair(x: Floats, y: Floats) -> None:
    """Check two matrices of equally many rows."""
    check_matrix("x", x)
    check_matrix("y", y)
    if len(x) != len(y):
        raise ValueError(f"x and y: expected the same rows in both, got {len(x)} and {len(y)}")


def _chunks(n: int) -> Iterator[slice]:
    """Slices over n rows."""
    return (slice(start, start + CHUNK_ROWS) for start in range(0, n, CHUNK_ROWS))


def _angle_of_rows(x: Floats, y: Floats, statistics: ShapeStatistics, alpha: float, normalise: bool) -> float:
    """Angle from the distance between the unit, aligned sets: 2 arcsin(|A - B| / 2) keeps the digits arccos loses."""
    joint = statistics.joint
    x_map, y_map = _aligned(whiten_pair(joint.scatter(0, 1), alpha, normalise))
    squared = 0.0
    for rows in _chunks(len(x)):
        difference = np.ldexp(x[rows].astype(np.float64) - joint.mean(0), -joint.exponent(0)) @ x_map
        difference -= np.ldexp(y[rows].astype(np.float64) - joint.mean(1), -joint.exponent(1)) @ y_map
        squared += float(np.vdot(difference, difference))
    return float(2 * np.arcsin(min(np.sqrt(squared) / 2, 1.0)))


def _aligned(whitened: Whitened) -> tuple[Doubles, Doubles]:
    """Maps (dx, r), (dy, r) from the columns of each set to unit norm in one common basis."""
    left, _, right = np.linalg.svd(whitened.product, full_matrices=True)
    x_map = whitened.x_map @ left / whitened.x_norm
    y_map = whitened.y_map @ right.T / whitened.y_norm
    width = max(x_map.shape[1], y_map.shape[1])
    return _padded(x_map, width), _padded(y_map, width)


def _padded(matrix: Doubles, width: int) -> Doubles:
    """Zero columns added up to a width."""
    return np.pad(matrix, ((0, 0), (0, width - matrix.shape[1])))
