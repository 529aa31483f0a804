"""Other methods to pick k features per class."""

import numpy as np
import pytest

from tasks.decomposition import CONTROLS, Statistics, pick_sets


def statistics(seed: int = 0, n_classes: int = 4, d: int = 9) -> Statistics:
    """Random statistics with ties."""
    rng = np.random.default_rng(seed)
    shape = (n_classes, d)
    counts = rng.integers(0, 4, shape)
    return Statistics(
        class_means=rng.integers(-2, 3, shape).astype(np.float64),
        overall_mean=rng.integers(-2, 3, d).astype(np.float64),
        weight=rng.integers(-2, 3, shape).astype(np.float64),
        ranking=pick_sets(counts, np.zeros(shape), d)[0],
    )


HAND = Statistics(
    class_means=np.array([[1.0, 3.0, 2.0, -4.0]]),
    overall_mean=np.array([0.0, 3.0, 0.5, -9.0]),
    weight=np.array([[5.0, 0.5, 1.0, -6.0]]),
    ranking=np.array([[3, 1, 2, 0]]),
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("class-mean", [1, 2, 0, 3]),
        ("class-mean-minus-overall", [3, 2, 0, 1]),  # 1 0 1.5 5
        ("weight", [0, 2, 1, 3]),
        ("abs-weight", [3, 0, 2, 1]),
        ("mean-times-weight", [3, 0, 2, 1]),  # 5 1.5 2 24
        ("histogram-and-weight", [3, 0, 1, 2]),  # histogram 3, weight 0, histogram 1, weight 2
    ],
)
def test_worked_by_hand(name: str, expected: list[int]) -> None:
    for k in range(1, 5):
        found = CONTROLS[name](HAND, k)
        np.testing.assert_array_equal(found, [expected[:k]])
        assert found.dtype == np.int64


@pytest.mark.parametrize("name", CONTROLS)
def test_every_control_gives_distinct_features_and_nests(name: str) -> None:
    given = statistics()
    before = [array.copy() for array in (given.class_means, given.overall_mean, given.weight, given.ranking)]
    whole = CONTROLS[name](given, 9, seed=[1, 2])
    np.testing.assert_array_equal(np.sort(whole, axis=1), np.tile(np.arange(9), (4, 1)))
    for k in range(1, 9):
        np.testing.assert_array_equal(CONTROLS[name](given, k, seed=[1, 2]), whole[:, :k])
    for array, old in zip((given.class_means, given.overall_mean, given.weight, given.ranking), before, strict=True):
        np.testing.assert_array_equal(array, old)
    for k in (0, 10):
        with pytest.raises(ValueError, match=rf"k: expected 1\.\.9, found {k}"):
            CONTROLS[name](given, k)


@pytest.mark.parametrize("k", [1, 2, 5, 9])
def test_half_comes_from_the_histogram_and_the_rest_by_weight(k: int) -> None:
    given = statistics(3)
    for row, ranking, weight in zip(
        CONTROLS["histogram-and-weight"](given, k), given.ranking, given.weight, strict=True
    ):
        taken: list[int] = []
        for place in range(k):
            left = [j for j in (ranking if place % 2 == 0 else np.argsort(-weight, kind="stable")) if j not in taken]
            taken.append(int(left[0]))
        assert row.tolist() == taken


def test_equal_scores_go_to_the_lower_index() -> None:
    same = Statistics(np.zeros((2, 5)), np.zeros(5), np.zeros((2, 5)), np.tile(np.arange(5), (2, 1)))
    for name in set(CONTROLS) - {"random"}:
        np.testing.assert_array_equal(CONTROLS[name](same, 3), [[0, 1, 2]] * 2)


def test_random_sets_hang_on_the_seed_alone_and_are_uniform() -> None:
    given = statistics(n_classes=3, d=6)
    pick = CONTROLS["random"]
    np.testing.assert_array_equal(pick(given, 2, seed=5), pick(statistics(1, 3, 6), 2, seed=(5,)))
    assert not np.array_equal(pick(given, 3, seed=[5, 0]), pick(given, 3, seed=[5, 1]))
    counts = np.zeros((3, 6))
    for seed in range(2000):
        np.add.at(counts, (np.arange(3)[:, None], pick(given, 2, seed=seed)), 1)
    np.testing.assert_allclose(counts, 2000 / 3, atol=5 * np.sqrt(2000 * 2 / 9))  # five standard deviations


def test_shapes_that_do_not_fit_are_refused() -> None:
    good = {"class_means": np.zeros((2, 3)), "overall_mean": np.zeros(3), "weight": np.zeros((2, 3))}
    ranking = np.zeros((2, 3), dtype=np.int64)
    for name, bad in {
        "class_means": np.zeros((3, 3)),
        "overall_mean": np.zeros(2),
        "weight": np.full((2, 3), np.nan),
    }.items():
        with pytest.raises(ValueError, match=f"{name}: expected"):
            Statistics(**good | {name: bad}, ranking=ranking)
    with pytest.raises(ValueError, match=r"ranking: expected shape \(2, 3\), found \(2, 2\)"):
        Statistics(**good, ranking=ranking[:, :2])
