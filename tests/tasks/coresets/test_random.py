"""The random coreset."""

import numpy as np
import pytest

from tasks.coresets.random import select_random


@pytest.mark.parametrize(
    ("n", "rho", "size"),
    [
        (5, 0.5, 2),  # 2.5 to the even 2
        (7, 0.5, 4),  # 3.5 to the even 4
        (10, 0.25, 2),
        (30, 0.25, 8),  # 7.5 to 8
        (3, 0.1, 1),  # 0.3: at least one
        (1000, 0.3, 300),
        (1, 1.0, 1),
    ],
)
def test_the_count_is_exact(n: int, rho: float, size: int) -> None:
    assert len(select_random(np.zeros((n, 2)), rho).kept) == size


def test_the_order_is_a_prefix_of_one_permutation() -> None:
    features = np.zeros((50, 1))
    whole = select_random(features, 1.0, seed=[4, 9]).order
    for rho in (0.1, 0.37, 0.9):
        order = select_random(features, rho, seed=(4, 9)).order
        np.testing.assert_array_equal(order, whole[: len(order)])


def test_seeds_matter_and_features_do_not() -> None:
    zeros, noise = np.zeros((200, 1)), np.random.default_rng(0).normal(size=(200, 3))
    assert not np.array_equal(select_random(zeros, 0.5, seed=0).kept, select_random(zeros, 0.5, seed=1).kept)
    assert not np.array_equal(select_random(zeros, 0.5, seed=[0, 1]).kept, select_random(zeros, 0.5, seed=[1, 0]).kept)
    np.testing.assert_array_equal(select_random(zeros, 0.5, seed=1).kept, select_random(noise, 0.5, seed=1).kept)


def test_every_sample_is_as_likely() -> None:
    counts = np.zeros(8)
    for seed in range(2000):
        counts[select_random(np.zeros((8, 1)), 0.25, seed=seed).kept] += 1
    np.testing.assert_allclose(counts, 500, atol=5 * np.sqrt(2000 * 0.25 * 0.75))  # five standard deviations


@pytest.mark.parametrize(("seed", "error"), [(None, TypeError), (0.5, TypeError), ("a", TypeError), (-1, ValueError)])
def test_seeds_that_cannot_be_repeated_are_refused(seed: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="seed: expected"):
        select_random(np.zeros((4, 1)), 0.5, seed=seed)
