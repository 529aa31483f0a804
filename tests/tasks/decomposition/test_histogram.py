"""Algorithm 1 in one pass: counts, sums, cells, chunks."""

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.decomposition import Cell, FeatureHistogram
from tasks.decomposition.ranking import RankBy, count_covering, rank_features

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]


def tied(rng: np.random.Generator, n: int, d: int, dtype: str = "float32") -> Floats:
    """Features of few values, both signs, so that most images have ties."""
    return rng.integers(-3, 4, (n, d)).astype(dtype)


def ranked(scores: Floats) -> list[int]:
    """Features of one image, largest score first, equal ones by lower index."""
    return sorted(range(len(scores)), key=lambda j: (-float(scores[j]), j))


def picked(features: Floats, label: int, cell: Cell, rank_by: RankBy, weight: Floats | None) -> list[int]:
    """The features of one image that count, by the definition."""
    x = features.astype(np.float64)
    scores = {"abs": abs(x), "value": x, "contribution": x if weight is None else weight[label] * x}[rank_by]
    order = ranked(scores)
    if isinstance(cell.k1, int):
        return order[: cell.k1]
    found: list[int] = []
    while sum(abs(x[j]) for j in found) < cell.k1 * abs(x).sum() * (1 - 1e-12):
        found.append(order[len(found)])
    return found


def counted(
    features: Floats, labels: Integers, shape: tuple[int, int], cell: Cell, rank_by: RankBy, weight: Floats | None
) -> tuple[Integers, Integers]:
    """Counts (C, d) and images (C,) by loops."""
    counts, images = np.zeros(shape, dtype=np.int64), np.zeros(shape[0], dtype=np.int64)
    for row, label in zip(features, labels, strict=True):
        images[label] += 1
        for j in picked(row, int(label), cell, rank_by, weight):
            counts[label, j] += 1
    return counts, images


CELLS = [Cell(1), Cell(3), Cell(0.5), Cell(0.9), Cell(1.0)]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64"])
@pytest.mark.parametrize("rank_by", ["abs", "value", "contribution"])
@pytest.mark.parametrize("cells", [CELLS, CELLS[:3], [Cell(7), Cell(2)], []])
def test_it_counts_as_loops_do(cells: list[Cell], rank_by: RankBy, dtype: str) -> None:
    rng = np.random.default_rng(3)
    features, labels = tied(rng, 60, 30, dtype), rng.integers(0, 3, 60)  # class 3 has no images
    features[7] = 0
    weight = rng.integers(-2, 3, (4, 30)).astype(np.float32)
    histogram = FeatureHistogram(4, 30, cells, rank_by=rank_by, weight=weight)
    histogram.update(features, labels)
    for i, cell in enumerate(cells):
        counts, images = counted(features, labels, (4, 30), cell, rank_by, weight)
        np.testing.assert_array_equal(histogram.counts[i], counts, err_msg=str(cell))
        np.testing.assert_array_equal(histogram.images, images)
        if isinstance(cell.k1, int):
            np.testing.assert_array_equal(histogram.counts[i].sum(axis=1), cell.k1 * images)
    np.testing.assert_array_equal(histogram.images, np.bincount(labels, minlength=4))


def test_worked_by_hand() -> None:
    features = np.array([[3, -4, 0, 1], [0, 0, 0, 0], [-1, 1, 1, -1]], dtype=np.float32)
    labels = np.array([1, 1, 0])
    histogram = FeatureHistogram(2, 4, [Cell(2), Cell(0.5), Cell(1.0)])
    histogram.update(features, labels)
    np.testing.assert_array_equal(histogram.counts[0], [[1, 1, 0, 0], [2, 2, 0, 0]])
    np.testing.assert_array_equal(histogram.counts[1], [[1, 1, 0, 0], [0, 1, 0, 0]])  # 4 of 8; nothing of zeros
    np.testing.assert_array_equal(histogram.counts[2], [[1, 1, 1, 1], [1, 1, 0, 1]])
    np.testing.assert_array_equal(histogram.images, [1, 2])
    np.testing.assert_array_equal(histogram.absolute_sums(), [[1, 1, 1, 1], [3, 4, 0, 1]])
    np.testing.assert_array_equal(histogram.signed_sums(), [[-1, 1, 1, -1], [3, -4, 0, 1]])
    np.testing.assert_array_equal(histogram.class_means(), [[-1, 1, 1, -1], [1.5, -2, 0, 0.5]])
    np.testing.assert_allclose(histogram.moments().mean, [2 / 3, -1, 1 / 3, 0], rtol=1e-15)
    assert histogram.signed


@pytest.mark.parametrize("d", [1, 5, 40, 200])
@pytest.mark.parametrize("k", [1, 2, 10, 40])
def test_ranks_are_those_of_a_stable_sort_whatever_part_is_sorted(k: int, d: int) -> None:
    rng = np.random.default_rng(d)
    scores = rng.integers(-2, 3, (50, d)).astype(np.float32)
    scores[:10] = 0
    scores[:5, :: max(1, d // 3)] = -0.0  # equal to 0
    for row, found in zip(scores, rank_features(scores, min(k, d)), strict=True):
        assert found.tolist() == ranked(row)[: min(k, d)]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([9, 1, 0, 0], 0.9, 1),
        ([9, 1, 0, 0], 0.91, 2),
        ([9, 1, 0, 0], 1.0, 2),  # zeros hold nothing
        ([0, 0, 0, 0], 1.0, 0),
        ([11, 9, 0, 0], 0.55, 1),  # 0.55 * 20 is a bit above 11
        ([1, -1, 1, -1], 0.5, 2),
        ([1, 1, 1, 1], 1e-9, 1),
    ],
)
def test_the_fewest_features_that_hold_a_share(values: list[float], share: float, expected: int) -> None:
    features = np.array([values], dtype=np.float32)
    assert count_covering(features, rank_features(abs(features), 4), share).tolist() == [expected]


@pytest.mark.parametrize("span", [2, 60])
def test_chunks_and_the_order_of_merging_change_no_byte(span: int) -> None:
    rng = np.random.default_rng(span)
    features = np.ldexp(rng.normal(size=(200, 24)), rng.integers(-span, span, (200, 24))).astype(np.float32)
    labels = rng.integers(0, 3, 200)
    weight = rng.normal(size=(3, 24))

    def fresh() -> FeatureHistogram:
        return FeatureHistogram(3, 24, CELLS, rank_by="contribution", weight=weight)

    whole = fresh()
    whole.update(features, labels)
    for _ in range(5):
        cuts = np.sort(rng.integers(0, 200, rng.integers(1, 60)))
        parts = []
        for rows in np.split(rng.permutation(200), cuts):
            parts.append(fresh())
            for half in np.array_split(rows, 2):
                parts[-1].update(features[half], labels[half])
        joined = fresh()
        for i in rng.permutation(len(parts)):
            joined.merge(pickle.loads(pickle.dumps(parts[i])))  # noqa: S301  # as workers send it
        for key, array in whole.state().items():
            assert array.tobytes() == joined.state()[key].tobytes(), key
        for name in ("absolute_sums", "signed_sums", "class_means"):
            assert getattr(joined, name)().tobytes() == getattr(whole, name)().tobytes()
        assert joined.moments().std.tobytes() == whole.moments().std.tobytes()


def test_rows_in_blocks_and_in_other_memory_orders_count_alike() -> None:
    rng = np.random.default_rng(0)
    features, labels = tied(rng, 700, 1024), rng.integers(0, 5, 700)  # three blocks
    states = []
    for given in (features, np.asfortranarray(features), features[::-1].copy()[::-1]):
        histogram = FeatureHistogram(5, 1024, [Cell(20), Cell(0.7)])
        histogram.update(given, labels)
        states.append({key: array.tobytes() for key, array in histogram.state().items()})
    assert states[0] == states[1] == states[2]
    np.testing.assert_array_equal(
        np.frombuffer(states[0]["counts"], dtype=np.int64).reshape(2, 5, 1024)[0],
        counted(features, labels, (5, 1024), Cell(20), "abs", None)[0],
    )


def test_sums_and_moments_are_right_to_the_last_digit() -> None:
    rng = np.random.default_rng(5)
    features = (1000 + rng.normal(size=(4000, 6))).astype(np.float32)  # an offset that costs no digits
    features[:, 5] = 7.25
    labels = rng.integers(0, 2, 4000)
    histogram = FeatureHistogram(2, 6, [])
    histogram.update(features, labels)
    wide = features.astype(np.longdouble)
    for label in (0, 1):
        np.testing.assert_allclose(histogram.class_means()[label], wide[labels == label].mean(0), rtol=3e-16)
    mean, std = histogram.moments()
    np.testing.assert_allclose(mean, wide.mean(axis=0), rtol=3e-16)
    np.testing.assert_allclose(std, wide.std(axis=0), rtol=1e-12)
    assert std[5] == 0
    assert not histogram.signed


def test_a_state_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(6)
    features, labels = tied(rng, 40, 12), rng.integers(0, 3, 40)
    whole, first = FeatureHistogram(3, 12, CELLS), FeatureHistogram(3, 12, CELLS)
    whole.update(features, labels)
    first.update(features[:15], labels[:15])
    kept = {key: array.copy() for key, array in first.state().items()}
    again = FeatureHistogram.of_state(CELLS, first.state())
    again.update(features[15:], labels[15:])
    for key, array in whole.state().items():
        np.testing.assert_array_equal(again.state()[key], array)
        np.testing.assert_array_equal(first.state()[key], kept[key])
        assert array.dtype == np.int64
    with pytest.raises(ValueError, match="state: expected 1 cells, found 5"):
        FeatureHistogram.of_state([Cell(1)], first.state())


def test_inputs_are_not_changed_and_nothing_is_half_added() -> None:
    rng = np.random.default_rng(7)
    features, labels = tied(rng, 20, 6), rng.integers(0, 2, 20)
    before = features.copy()
    features.flags.writeable = labels.flags.writeable = False
    histogram = FeatureHistogram(2, 6, [Cell(2), Cell(0.5)])
    histogram.update(features, labels)
    np.testing.assert_array_equal(features, before)
    kept = {key: array.copy() for key, array in histogram.state().items()}
    with pytest.raises(ValueError, match=r"classes: expected 0\.\.1, found 2 at row 19"):
        histogram.update(features, np.r_[labels[:19], 2])
    for key, array in kept.items():
        np.testing.assert_array_equal(histogram.state()[key], array)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_values_that_are_not_finite_are_named(bad: float) -> None:
    features = np.zeros((5, 3))
    features[3, 1] = bad
    histogram = FeatureHistogram(2, 3, [Cell(1)])
    found = rf"features: expected finite values of at most 1e\+150, found {bad:g} at row 3, column 1 \(1 of 5".replace(
        "e+200", r"e\+200"
    )
    with pytest.raises(ValueError, match=found):
        histogram.update(features, np.zeros(5, dtype=np.int64))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": np.zeros((4, 2))}, r"features: expected shape \(m, 3\), found \(4, 2\)"),
        ({"features": np.zeros(3)}, r"features: expected shape \(m, 3\), found \(3,\)"),
        ({"features": [[0.0] * 3] * 4}, "features: expected a NumPy array of real numbers, found list"),
        ({"features": np.zeros((4, 3), dtype=complex)}, "features: .* found complex128"),
        ({"classes": np.zeros(3, dtype=np.int64)}, r"classes: expected shape \(4,\), one per image, found \(3,\)"),
        ({"classes": np.zeros(4)}, "classes: expected a NumPy array of integers, found float64"),
        ({"classes": np.array([0, 0, -1, 0])}, r"classes: expected 0\.\.1, found -1 at row 2"),
    ],
)
def test_bad_chunks_are_refused(changes: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "features": np.zeros((4, 3)),
        "classes": np.zeros(4, dtype=np.int64),
    }
    with pytest.raises((ValueError, TypeError), match=message):
        FeatureHistogram(2, 3, [Cell(1)]).update(**given | changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cell(0), "k1: expected at least 1, found 0"),
        (lambda: Cell(True), "k1: expected an integer, found True"),
        (lambda: Cell(0.0), "k1: expected a count, or a share with 0 < share <= 1, found 0.0"),
        (lambda: Cell(1.5), "k1: .* found 1.5"),
        (lambda: Cell(float("nan")), "k1: .* found nan"),
        (lambda: FeatureHistogram(2, 3, [Cell(4)]), r"k1: expected 1\.\.3, found 4"),
        (
            lambda: FeatureHistogram(2, 3, [], rank_by="size"),  # type: ignore[arg-type]  # the point of the test
            "rank_by: expected one of abs, value, contribution, found",
        ),
        (lambda: FeatureHistogram(2, 3, [], rank_by="contribution"), "weight: expected the head's"),
        (
            lambda: FeatureHistogram(2, 3, [], rank_by="contribution", weight=np.zeros((3, 2))),
            r"weight: expected shape \(2, 3\), found \(3, 2\)",
        ),
        (
            lambda: FeatureHistogram(2, 3, [], rank_by="contribution", weight=np.full((2, 3), np.nan)),
            "weight: expected finite values, found nan at class 0",
        ),
        (lambda: FeatureHistogram(2, 3, []).moments(), "moments: expected at least 1 image, found 0"),
        (
            lambda: FeatureHistogram(2, 3, [Cell(1)]).merge(FeatureHistogram(2, 3, [Cell(1.0)])),
            r"merge: expected the same .*Cell\(k1=1\).* found .*Cell\(k1=1.0",
        ),
        (
            lambda: FeatureHistogram(1, 2, [], rank_by="contribution", weight=np.zeros((1, 2))).merge(
                FeatureHistogram(1, 2, [], rank_by="contribution", weight=np.ones((1, 2)))
            ),
            "merge: expected the same weight in both",
        ),
    ],
)
def test_bad_parameters_are_refused(make: Any, message: str) -> None:  # Any: each calls something else
    with pytest.raises((ValueError, TypeError), match=message):
        make()
