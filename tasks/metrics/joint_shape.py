"""Shape distances between many sets of columns over the same rows, from one pass."""

from collections.abc import Sequence
from functools import partial
from typing import Self

import numpy as np

from tasks.metrics.checks import Floats, Integers, check_alpha, check_matrix
from tasks.metrics.moments import Moments
from tasks.metrics.whitening import Doubles, Eigen, Scatter, angle_between, eigen_of, numerical_rank, whiten_pair


class JointShape:
    """The statistics of K sets of columns: (k, k) float64 for k columns in all, twice that with permuted rows.

    Picklable; it does not hold rows. It equals `ShapeStatistics` of each pair on the same rows.

    Parameters
    ----------
    widths : number of columns of each set, at least 1
    """

    def __init__(self, widths: Sequence[int]) -> None:
        if not widths or min(widths) < 1:
            raise ValueError(f"widths: expected at least one set, each of at least one column, found {list(widths)}")
        self.widths = tuple(int(width) for width in widths)
        ends = np.cumsum(self.widths).tolist()
        self._columns = [slice(end - width, end) for end, width in zip(ends, self.widths, strict=True)]
        self._moments = Moments(self.widths)
        self._eigen: dict[int, Eigen] = {}  # of the sets whose distances were asked for since the last rows

    @property
    def n(self) -> int:
        """Return the number of rows so far."""
        return self._moments.n

    def update(self, blocks: Sequence[Floats], permuted_order: Integers | None = None) -> None:
        """Add the rows of one chunk to the statistics.

        Parameters
        ----------
        blocks : K arrays (m, width) float, the same m rows (at least 1) of each set
        permuted_order : (m,) integer permutation of the rows, for `null_distance`; for every chunk or for none. Where
            rows are positions of images, it must move whole images.
        """
        for index, block in enumerate(blocks):
            check_matrix(f"blocks[{index}]", block)
        shapes = [block.shape for block in blocks]
        if tuple(width for _, width in shapes) != self.widths or len({m for m, _ in shapes}) != 1:
            raise ValueError(f"blocks: expected equal numbers of rows and widths {self.widths}, found shapes {shapes}")
        if permuted_order is not None and not np.array_equal(np.sort(permuted_order), np.arange(shapes[0][0])):
            raise ValueError(f"permuted_order: expected a permutation of 0..{shapes[0][0] - 1}")
        self._moments.update(blocks, permuted_order)
        self._eigen.clear()

    def merge(self, other: Self) -> Self:
        """Add the rows of another instance, which is not changed.

        Parameters
        ----------
        other : of the same widths

        Returns
        -------
        this instance
        """
        if other.widths != self.widths:
            raise ValueError(f"merge: expected sets of widths {self.widths}, found {other.widths}")
        self._moments.merge(other._moments)
        self._eigen.clear()
        return self

    def distance(self, i: int, j: int, alpha: float = 0.0, normalise: bool = False) -> float:
        """Measure the shape distance between two sets.

        Parameters
        ----------
        i, j : indices of the sets
        alpha : 0 full whitening, 1 none
        normalise : first divide each set by the root of its mean squared row norm

        Returns
        -------
        radians in [0, pi/2]; NaN if either set is constant. Below 0.01 its error is about
        sqrt(2e-16 lambda_max / lambda_min) of the whitened directions, at least 3e-8.
        """
        return self._angle(self._moments.scatter, i, j, alpha, normalise)

    def null_distance(self, i: int, j: int, alpha: float = 0.0, normalise: bool = False) -> float:
        """Measure the shape distance between set i and the permuted rows of set j.

        Parameters
        ----------
        i, j : indices of the sets; the rows of j are permuted
        alpha, normalise : as in `distance`

        Returns
        -------
        radians in [0, pi/2]; NaN if either set is constant
        """
        if self._moments.permuted is None:
            raise ValueError(
                "permuted_order: expected an order with every update, found none; null_distance needs permuted rows"
            )
        return self._angle(self._moments.permuted, i, j, alpha, normalise)

    def rank(self, i: int) -> int:
        """Count the directions of set i with an eigenvalue of at least 1e-9 of the largest."""
        return numerical_rank(self._moments.scatter[self._columns[i], self._columns[i]])

    def mean(self, i: int) -> Doubles:
        """Return the mean of the columns of set i, (width,) float64."""
        return self._moments.mean[self._columns[i]].copy()

    def exponent(self, i: int) -> int:
        """Return e for a set i that is divided by 2^e before its products are summed; 0 for usual magnitudes."""
        return int(self._moments.exponent[self._columns[i].start])

    def scatter(self, i: int, j: int) -> Scatter:
        """Return sums of centred products of sets i and j, as views that later updates change."""
        return self._scatter(self._moments.scatter, i, j)

    def _angle(self, crossed: Doubles, i: int, j: int, alpha: float, normalise: bool) -> float:
        """Return the angle between two sets with the cross products `crossed`."""
        return angle_between(whiten_pair(self._scatter(crossed, i, j), check_alpha(alpha), normalise))

    def _scatter(self, crossed: Doubles, i: int, j: int) -> Scatter:
        """Return the products of sets i and j, with the cross products from `crossed`."""
        if self.n < 2:
            raise ValueError(f"shape distance: expected at least 2 rows, found {self.n}")
        rows, columns, own = self._columns[i], self._columns[j], self._moments.scatter
        return Scatter(
            xx=own[rows, rows],
            yy=own[columns, columns],
            xy=crossed[rows, columns],
            n=self.n,
            x_eigen=partial(self._eigen_of, i),
            y_eigen=partial(self._eigen_of, j),
            x_exponent=self.exponent(i),
            y_exponent=self.exponent(j),
        )

    def _eigen_of(self, i: int) -> Eigen:
        """Return the eigenvalues and eigenvectors of a set's products: computed once for all pairs and alphas."""
        if i not in self._eigen:
            self._eigen[i] = eigen_of(self._moments.scatter[self._columns[i], self._columns[i]])
        return self._eigen[i]
