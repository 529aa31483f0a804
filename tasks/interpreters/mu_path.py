"""The whole path of a non-negative lasso over its bound mu, from the Gram matrix (LARS homotopy).

For a penalty lam, w minimises `w'Gw / 2 - b'w + lam sum(w)` over w >= 0. As lam falls from max(b) to 0, w and sum(w)
are linear between breakpoints, where a unit enters or leaves the active set (Efron et al. 2004, section 3.4).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

Doubles = NDArray[np.float64]
Units = NDArray[np.int64]

TIE = 1e-12  # relative to the largest product: a unit within it of the penalty has reached it
ZERO = 1e-12  # relative to the largest weight: a smaller weight is 0
GAIN = 1e-10  # a unit at the penalty enters only if it would otherwise overtake it at a larger rate
DEPENDENT = 1e-13  # relative to a unit's own square: the part outside the active units below which it cannot enter
OPTIMAL = 1e-13  # relative to the largest product: by how much a slope may exceed the penalty at a breakpoint
CHORD = 1e-7  # relative to the loss: the largest error of weights between two breakpoints with events between them
HALVINGS = 500  # of steps of a path, at most: what rounding hides for good ends there
BEYOND = 1e-9  # relative: a path goes this far beyond the mu asked for, as sums in another order round differently
TINY = 1e-300  # keeps divisions defined
ROWS = 512  # rows of a matrix that are compared with its columns at once


@dataclass(frozen=True)
class MuPath:
    """The breakpoints of a path.

    Attributes
    ----------
    mu : (k,) float64, ascending, sums of the weights; the first is 0
    penalty : (k,) float64, descending
    units : (u,) int64, ascending, the units that are ever active
    weights : (k, u) float64 >= 0
    n_units : M
    whole : whether the path ends at penalty 0, so that a larger mu changes nothing
    """

    mu: Doubles
    penalty: Doubles
    units: NDArray[np.int64]
    weights: Doubles
    n_units: int
    whole: bool

    def at(self, mu: float) -> Doubles:
        """Return the weights (M,) for a bound mu >= 0, linear between breakpoints.

        Raises
        ------
        ValueError : the path was stopped before this mu
        """
        if not mu >= 0:
            raise ValueError(f"mu: expected at least 0, found {mu!r}")
        if mu > self.mu[-1] and not self.whole:
            raise ValueError(f"mu: expected at most {self.mu[-1]:g}, where this path stops, found {mu:g}")
        found = np.zeros(self.n_units)
        right = int(np.searchsorted(self.mu, mu))
        if right == len(self.mu):
            found[self.units] = self.weights[-1]
        elif right == 0:
            found[self.units] = self.weights[0]
        else:
            low, high = self.mu[right - 1], self.mu[right]
            share = (mu - low) / (high - low)
            found[self.units] = (1 - share) * self.weights[right - 1] + share * self.weights[right]
        return found


def mu_path(gram: Doubles, product: Doubles, *, until: float = np.inf) -> MuPath:
    """Return the path of one class.

    Parameters
    ----------
    gram : X'X (M, M), symmetric and positive semidefinite
    product : X'l (M,)
    until : mu beyond which the path may stop

    Returns
    -------
    MuPath, to the first breakpoint beyond `until`, or to the end

    Notes
    -----
    A step costs O(M a + a^3) for a active units. Weights at a breakpoint come from the equations themselves, so errors
    do not add up over the path. Where several units reach the penalty at once, a small non-negative least-squares
    problem decides which of them go on; ties go to the lower index. A unit in the span of the active units cannot
    lower the error: it stays out until one of them leaves. A breakpoint that does not meet the optimality conditions,
    because rounding of nearly dependent units hides events between it and the one before, is solved by an active set,
    and the step to it is halved while weights between the two could be wrong by more than a share CHORD of the loss.
    """
    penalty = start = max(0.0, float(product.max(initial=0.0)))
    active, weights = np.zeros(0, np.int64), np.zeros(0)
    points, slope, left = [(penalty, active, weights)], product, HALVINGS
    while penalty > 0 and weights.sum() <= until * (1 + BEYOND):
        earlier = dict(zip(active.tolist(), weights.tolist(), strict=True))
        active = _going_on(gram, penalty, active, slope, TIE * start)
        feasible = np.array([earlier.get(unit, 0.0) for unit in active.tolist()])
        lower = penalty - max(TIE * start, _step(gram, product, penalty, active, TIE * start))
        while True:
            lower = lower if lower > TIE * start else 0.0
            members, weights, slope, hidden = _breakpoint(gram, product, lower, active, feasible)
            error = (penalty - lower) * (weights.sum() - feasible.sum()) / 4  # of weights between two exact ones
            if not hidden or error <= CHORD * (product[members] @ weights) or left == 0:
                break
            lower, left = (penalty + lower) / 2, left - 1
        penalty, active = lower, members
        points.append((penalty, active, weights))
        if len(points) > 100 * (len(product) + 10):
            raise RuntimeError("the path did not end; the Gram matrix may not be positive semidefinite")
    return _tabled(points, len(product))


def _tabled(points: list[tuple[float, Units, Doubles]], n_units: int) -> MuPath:
    """Return the path of some (penalty, units, weights)."""
    units = np.unique(np.concatenate([active for _, active, _ in points]))
    table = np.zeros((len(points), len(units)))
    for row, (_, members, values) in enumerate(points):
        table[row, np.searchsorted(units, members)] = values
    sums = np.maximum.accumulate(table.sum(axis=1))  # rises in exact arithmetic
    penalties = np.array([point[0] for point in points])
    return MuPath(sums, penalties, units, table, n_units, points[-1][0] == 0)


def _going_on(gram: Doubles, penalty: float, active: Units, slope: Doubles, tie: float) -> Units:
    """Return the units whose weights are positive right below a penalty: those with a weight, and some at the penalty.

    The rates d of the weights minimise `d'Gd / 2 - sum(d)` with d >= 0 for units at the penalty (Lawson and Hanson).
    """
    waiting = np.setdiff1d(np.flatnonzero((penalty - slope <= tie) & (gram.diagonal() > 0)), active)
    chosen, feasible = np.zeros(0, np.int64), np.zeros(0)
    barred = np.zeros(len(waiting), dtype=bool)
    while True:
        members = np.concatenate([active, chosen])
        rates = _solve(gram, members, np.ones(len(members)))
        if (fresh := rates[len(active) :]).size and fresh.min() <= 0:
            below = fresh <= 0
            share = (feasible[below] / (feasible[below] - fresh[below])).min()
            feasible = feasible + share * (fresh - feasible)
            stay = ~(below & (feasible <= ZERO * max(1.0, float(feasible.max()))))
            stay[np.flatnonzero(below)[feasible[below].argmin()]] = False
            chosen, feasible = chosen[stay], feasible[stay]
            continue
        feasible = fresh
        gains = np.where(barred | np.isin(waiting, chosen), -np.inf, 1.0 - gram[np.ix_(waiting, members)] @ rates)
        if not gains.size or gains.max() <= GAIN:
            return members
        best = int(gains.argmax())
        if _independent(gram, members, int(waiting[best])):
            chosen, feasible = np.append(chosen, waiting[best]), np.append(feasible, 0.0)
        else:
            barred[best] = True


def _step(gram: Doubles, product: Doubles, penalty: float, active: Units, tie: float) -> float:
    """Return by how much the penalty can fall until another unit reaches it or an active weight reaches 0."""
    if not len(active):
        return penalty
    weights = _solve(gram, active, product[active] - penalty)
    rates = _solve(gram, active, np.ones(len(active)))
    gap = penalty - (product - gram[:, active] @ weights)
    closing = 1.0 - gram[:, active] @ rates
    reaches = (gap > tie) & (closing > 0)
    reaches[active] = False
    steps = [penalty, *(gap[reaches] / closing[reaches]).tolist()]
    falling = (rates < 0) & (weights > ZERO * float(weights.max(initial=0.0)))
    steps += (weights[falling] / -rates[falling]).tolist()
    return float(min(steps))


def _breakpoint(
    gram: Doubles, product: Doubles, penalty: float, active: Units, feasible: Doubles
) -> tuple[Units, Doubles, Doubles, bool]:
    """Return the units with a positive weight at a penalty, their weights, and the slopes (M,) of all units.

    `active` are the units expected to have a weight, and `feasible` >= 0 their weights at the breakpoint before. The
    last value is whether the expectation is wrong: events are hidden between the two breakpoints.
    """
    kept = active
    weights = _solve(gram, kept, product[kept] - penalty)
    positive = weights > ZERO * float(weights.max(initial=0.0))
    if not positive.all():
        kept = active[positive]
        weights = _solve(gram, kept, product[kept] - penalty)
    slope = product - gram[:, kept] @ weights
    allowed = OPTIMAL * float(product.max())
    outside = np.delete(slope, kept)
    if weights.min(initial=1.0) > 0 and outside.max(initial=-np.inf) <= penalty + allowed:
        return kept, weights, slope, False
    kept, weights = _active_set(gram, product - penalty, active, feasible, allowed)
    return kept, weights, product - gram[:, kept] @ weights, True


def _active_set(
    gram: Doubles, target: Doubles, active: Units, feasible: Doubles, allowed: float
) -> tuple[Units, Doubles]:
    """Minimise `w'Gw / 2 - target'w` over w >= 0 from a feasible start (Lawson and Hanson): units and weights > 0.

    Ends where no unit that is independent of the active ones has a slope above `allowed`.
    """
    barred: set[int] = set()
    for _ in range(10 * (len(target) + 10)):
        active, feasible = _inside(gram, target, active, feasible)
        slope = target - gram[:, active] @ feasible
        slope[active] = -np.inf
        slope[sorted(barred)] = -np.inf
        best = int(slope.argmax())
        if slope[best] <= allowed:
            break
        if not _independent(gram, active, best):
            barred.add(best)
            continue
        members, weights = _inside(gram, target, np.append(active, best), np.append(feasible, 0.0))
        if best in members:
            barred.clear()
        else:
            barred.add(best)
        active, feasible = members, weights
    return active, feasible


def _inside(gram: Doubles, target: Doubles, active: Units, feasible: Doubles) -> tuple[Units, Doubles]:
    """Move feasible weights towards the solution of their units; units whose weight reaches 0 on the way leave."""
    while len(active):
        goal = _solve(gram, active, target[active])
        below = goal <= ZERO * float(goal.max())
        if not below.any():
            return active, goal
        falls = np.maximum(feasible[below] - goal[below], TINY)
        feasible = feasible + min(1.0, float((feasible[below] / falls).min())) * (goal - feasible)
        leave = below & (feasible <= ZERO * float(feasible.max()))
        leave[np.flatnonzero(below)[feasible[below].argmin()]] = True
        active, feasible = active[~leave], np.maximum(feasible[~leave], 0.0)
    return active, feasible


def _independent(gram: Doubles, members: Units, unit: int) -> bool:
    """Say whether a unit has a part outside the span of other units."""
    solved = _solve(gram, members, gram[members, unit])
    return bool(gram[unit, unit] - gram[unit, members] @ solved > DEPENDENT * gram[unit, unit])


def _solve(gram: Doubles, members: Units, right: Doubles) -> Doubles:
    """Solve the Gram matrix of some units for a right side."""
    if not len(members):
        return np.zeros(0)
    found: Doubles = cho_solve(cho_factor(gram[np.ix_(members, members)], lower=True), right)
    return found


def check_system(gram: NDArray[np.floating], moment: NDArray[np.floating]) -> tuple[Doubles, Doubles]:
    """Return X'X (M, M) and X'L (M, C) in float64; raise an error for wrong kinds, shapes, NaN or asymmetry."""
    for name, given in (("gram", gram), ("moment", moment)):
        if not isinstance(given, np.ndarray):
            raise TypeError(f"{name}: expected a NumPy array, found {type(given).__name__}")
        if given.dtype.kind not in "fiu":
            raise TypeError(f"{name}: expected real numbers, found dtype {given.dtype}")
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not len(gram):
        raise ValueError(f"gram: expected (M, M) with M >= 1, found shape {gram.shape}")
    if moment.ndim != 2 or len(moment) != len(gram):
        raise ValueError(f"moment: expected ({len(gram)}, C) for gram of {len(gram)} units, found shape {moment.shape}")
    square, products = gram.astype(np.float64, copy=False), moment.astype(np.float64, copy=False)
    for name, values in (("gram", square), ("moment", products)):
        if not np.isfinite(values.sum(axis=0)).all():  # of finite sums of squares, none comes near the largest number
            raise ValueError(f"{name}: expected finite values, found NaN or infinity")
    largest = max(float(square.max()), -float(square.min()))
    for start in range(0, len(square), ROWS):  # a whole difference would be as large as the matrix
        rows = slice(start, start + ROWS)
        if float(np.abs(square[rows] - square[:, rows].T).max()) > 1e-6 * largest:
            raise ValueError("gram: expected a symmetric matrix, found another; give X'X")
    if float(square.diagonal().min()) < 0:
        raise ValueError("gram: expected a diagonal of at least 0, found a negative entry; give X'X")
    return square, products
