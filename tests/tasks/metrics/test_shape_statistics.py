"""The streaming form of the shape distance, for a pair and for many sets at once."""

import pickle
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.metrics.joint_shape import JointShape
from tasks.metrics.shape import ShapeStatistics, shape_distance

Doubles = NDArray[np.float64]
SETTINGS = [(0.0, False), (0.5, False), (0.5, True), (1.0, False)]
N = 240


def planted(offset: float = 0.0, scale: float = 1.0) -> tuple[Doubles, Doubles]:
    """Two related sets of 5 and 3 columns."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(N, 5))
    return scale * x + offset, scale * (x[:, :3] + rng.normal(size=(N, 3))) - offset


def collected(x: Doubles, y: Doubles, sizes: Sequence[int]) -> ShapeStatistics:
    """Statistics of all rows, in chunks of these sizes over and over."""
    statistics, start = ShapeStatistics(), 0
    while start < len(x):
        stop = start + sizes[start % len(sizes)]
        statistics.update(x[start:stop], y[start:stop])
        start = stop
    return statistics


@pytest.mark.parametrize("sizes", [[1], [2], [7, 1, 30], [N], [1, 239]])
@pytest.mark.parametrize(("alpha", "normalise"), SETTINGS)
def test_every_chunking_equals_one_shot(sizes: list[int], alpha: float, normalise: bool) -> None:
    x, y = planted()
    statistics = collected(x, y, sizes)
    assert statistics.n == N
    assert statistics.ranks == (5, 3)
    np.testing.assert_allclose(
        statistics.distance(alpha, normalise), shape_distance(x, y, alpha, normalise), rtol=1e-12
    )


@pytest.mark.parametrize("sizes", [[1], [13], [N]])
def test_a_huge_offset_costs_no_digits(sizes: list[int]) -> None:
    x, y = planted(offset=1e6, scale=1e-3)
    expected = shape_distance(*planted())
    # the input itself holds the signal to 1e-10 / 1e-3 only
    np.testing.assert_allclose(collected(x, y, sizes).distance(), expected, rtol=1e-6)


def test_an_outlier_as_first_row_costs_no_digits() -> None:
    x, y = planted()
    x[0] += 1e7
    np.testing.assert_allclose(collected(x, y, [1]).distance(1.0), shape_distance(x, y, 1.0), rtol=1e-12)


@pytest.mark.parametrize(("alpha", "normalise"), SETTINGS)
def test_merging_in_any_order_equals_one_shot(alpha: float, normalise: bool) -> None:
    x, y = planted(offset=30)
    expected = shape_distance(x, y, alpha, normalise)
    bounds = [0, 1, 2, 50, 51, 200, N]
    for order in ([0, 1, 2, 3, 4, 5], [5, 3, 1, 0, 4, 2], [2, 5, 4, 0, 1, 3]):
        total = ShapeStatistics()
        for part in order:
            rows = slice(bounds[part], bounds[part + 1])
            assert total.merge(collected(x[rows], y[rows], [20])) is total
        np.testing.assert_allclose(total.distance(alpha, normalise), expected, rtol=1e-12)


def test_merging_as_a_tree_equals_a_chain() -> None:
    x, y = planted()
    quarters = [collected(x[start : start + 60], y[start : start + 60], [60]) for start in range(0, N, 60)]
    tree = quarters[0].merge(quarters[1]).merge(quarters[2].merge(quarters[3]))
    np.testing.assert_allclose(tree.distance(0.5), collected(x, y, [60]).distance(0.5), rtol=1e-13)


def test_an_empty_one_merges_both_ways_without_sharing() -> None:
    x, y = planted()
    full = collected(x[:100], y[:100], [100])
    before = full.distance()
    assert full.merge(ShapeStatistics()).distance() == before
    copied = ShapeStatistics().merge(full)
    assert copied.distance() == before
    copied.update(x[100:], y[100:])
    assert (full.n, full.distance()) == (100, before)
    assert ShapeStatistics().merge(ShapeStatistics()).n == 0


def test_a_pickled_one_goes_on_to_the_same_bits() -> None:
    x, y = planted()
    statistics = collected(x[:100], y[:100], [10])
    frozen = pickle.dumps(statistics)
    assert len(frozen) < 2 * 8 * 8 * 8 + 1000  # (dx + dy)^2 float64 and little more: no rows
    thawed = pickle.loads(frozen)  # noqa: S301  # our own bytes
    for one in (statistics, thawed):
        one.update(x[100:], y[100:])
    assert thawed.distance(0.5) == statistics.distance(0.5)


@pytest.mark.parametrize(("alpha", "normalise"), SETTINGS)
def test_small_angles_are_known_to_the_stated_tolerance(alpha: float, normalise: bool) -> None:
    x, _ = planted(offset=10)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]
    assert collected(x, x.copy(), [50]).distance(alpha, normalise) < 1e-7
    assert collected(x, x @ rotation, [50]).distance(alpha, normalise) < 1e-7


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-160, 1e39, 1e160, 1e306])
@pytest.mark.parametrize(("alpha", "normalise"), SETTINGS)
def test_extreme_magnitudes_merge_to_one_shot(scale: float, alpha: float, normalise: bool) -> None:
    x, y = planted()
    x *= scale
    expected = shape_distance(x, y, alpha, normalise)
    for sizes in ([1], [7, 1, 30]):
        np.testing.assert_allclose(collected(x, y, sizes).distance(alpha, normalise), expected, rtol=1e-12)
    parts = [collected(x[start : start + 80], y[start : start + 80], [20]) for start in (160, 0, 80)]
    total = parts[0].merge(parts[1]).merge(parts[2])
    np.testing.assert_allclose(total.distance(alpha, normalise), expected, rtol=1e-12)
    assert total.ranks == (5, 3)


@pytest.mark.parametrize("order", [1, -1])
def test_magnitudes_may_differ_between_chunks(order: int) -> None:
    x, y = planted()
    x[:100] *= 1e-200  # almost constant in comparison with the rest
    flat = x.copy()
    flat[:100] = 0
    statistics = ShapeStatistics()
    for start in range(0, N, 20)[::order]:
        statistics.update(1e150 * x[start : start + 20], y[start : start + 20])
    np.testing.assert_allclose(statistics.distance(), shape_distance(flat, y), rtol=1e-12)


def test_a_failed_update_changes_nothing() -> None:
    x, y = planted()
    statistics = collected(x, y, [N])
    before = statistics.distance()
    with pytest.raises(
        ValueError, match="x: expected finite values, found NaN or inf in 1 of 2 rows, the first is row 1"
    ):
        statistics.update(np.array([[0.0] * 5, [np.nan] * 5]), y[:2])
    with pytest.raises(ValueError, match=r"widths \(5, 3\), found shapes \[\(2, 5\), \(2, 2\)\]"):
        statistics.update(x[:2], y[:2, :2])
    with pytest.raises(ValueError, match="the same rows in both, found 2 and 3"):
        statistics.update(x[:2], y[:3])
    with pytest.raises(ValueError, match="x: expected shape"):
        statistics.update(x[:0], y[:0])
    with pytest.raises(ValueError, match=r"expected differences up to 1\.8e\+308"):
        statistics.update(np.array([[1.7e308] * 5, [-1.7e308] * 5]), y[:2])
    with pytest.raises(ValueError, match=r"merge: expected sets of widths \(5, 3\), found \(5, 2\)"):
        statistics.merge(collected(x, y[:, :2], [N]))
    assert (statistics.n, statistics.distance()) == (N, before)


def test_too_few_rows_are_refused() -> None:
    x, y = planted()
    with pytest.raises(ValueError, match="at least 2 rows, found 0"):
        ShapeStatistics().distance()
    with pytest.raises(ValueError, match="at least 2 rows, found 1"):
        collected(x[:1], y[:1], [1]).distance()
    with pytest.raises(ValueError, match="alpha: expected 0"):
        collected(x, y, [N]).distance(2.0)


def test_constant_columns_have_rank_zero_in_every_chunking() -> None:
    for sizes in ([1], [7], [N]):
        statistics = collected(np.full((N, 2), 0.1), planted()[1], sizes)
        assert statistics.ranks == (0, 3)
        assert np.isnan(statistics.distance(1.0))


def joint_sets() -> list[Doubles]:
    """Three sets of 5, 3 and 2 columns, the last of rank 1."""
    x, y = planted()
    return [x, y, x[:, :1] @ np.array([[1.0, -2.0]])]


@pytest.mark.parametrize(("alpha", "normalise"), SETTINGS)
def test_joint_equals_each_pair(alpha: float, normalise: bool) -> None:
    sets = joint_sets()
    joint = JointShape([5, 3, 2])
    for start in range(0, N, 70):
        joint.update([one[start : start + 70].astype(np.float32) for one in sets])
    for i in range(3):
        for j in range(3):
            expected = shape_distance(sets[i].astype(np.float32), sets[j].astype(np.float32), alpha, normalise)
            np.testing.assert_allclose(joint.distance(i, j, alpha, normalise), expected, rtol=1e-10, atol=1e-7)
    assert [joint.rank(i) for i in range(3)] == [5, 3, 1]
    assert joint.n == N


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_the_null_distance_is_that_of_permuted_rows(alpha: float) -> None:
    sets, rng = joint_sets(), np.random.default_rng(8)
    orders = [start + rng.permutation(60) for start in range(0, N, 60)]
    halves = [JointShape([5, 3, 2]), JointShape([5, 3, 2])]
    for index, order in enumerate(orders):
        rows = slice(60 * index, 60 * index + 60)
        halves[index % 2].update([one[rows] for one in sets], order - 60 * index)
    joint = JointShape([5, 3, 2]).merge(halves[1]).merge(JointShape([5, 3, 2])).merge(halves[0])
    shuffled = np.concatenate(orders)
    for i, j in ((0, 1), (1, 0), (0, 2), (0, 0)):
        expected = shape_distance(sets[i], sets[j][shuffled], alpha)
        np.testing.assert_allclose(joint.null_distance(i, j, alpha), expected, rtol=1e-12)
        np.testing.assert_allclose(
            joint.distance(i, j, alpha), shape_distance(sets[i], sets[j], alpha), rtol=1e-12, atol=1e-7
        )
    assert joint.null_distance(0, 1, alpha) > joint.distance(0, 1, alpha) + 0.2


def test_joint_refuses_what_does_not_fit() -> None:
    sets = joint_sets()
    joint = JointShape([5, 3, 2])
    with pytest.raises(ValueError, match=r"blocks\[1\]: expected finite values, found NaN or inf in 240 of 240 rows"):
        joint.update([sets[0], sets[1] * np.nan, sets[2]])
    with pytest.raises(ValueError, match=r"blocks: expected equal numbers of rows and widths \(5, 3, 2\)"):
        joint.update(sets[:2])
    with pytest.raises(ValueError, match=r"permuted_order: expected a permutation of 0\.\.239"):
        joint.update(sets, np.zeros(N, dtype=np.int64))
    joint.update(sets)
    with pytest.raises(ValueError, match="permuted_order: expected an order with every update, found none"):
        joint.null_distance(0, 1)
    with pytest.raises(
        ValueError, match="order: expected a permutation for every chunk or for none, found it for some"
    ):
        joint.update(sets, np.arange(N))
    assert joint.n == N
    with pytest.raises(ValueError, match="widths: expected at least one set"):
        JointShape([])
    with pytest.raises(ValueError, match=r"each of at least one column, found \[2, 0\]"):
        JointShape([2, 0])
