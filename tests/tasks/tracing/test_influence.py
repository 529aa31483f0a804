"""Influential examples: by hand, against a loop with a dictionary, and the sums over blocks and chunks."""

from collections import defaultdict

import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.tracing import InfluenceSums, Influential, first_of, influential_examples
from tasks.tracing import influence as influence_file

Ids = NDArray[np.int64]


def arrays(*members: list[int]) -> list[Ids]:
    return [np.array(step, dtype=np.int64) for step in members]


def slow(gamma: NDArray[np.float64], members: list[Ids], k: int, sign: int = 1) -> Influential:
    """Alg. 1 as it is read: every step's share to each of its members, then all sorted."""
    ids, sums = [], []
    for row in gamma:
        found: dict[int, float] = defaultdict(float)
        for value, step in zip(row, members, strict=True):
            for member in step.tolist():
                found[member] += value / len(step)
        first = sorted(found, key=lambda member, found=found: (-sign * found[member], member))[:k]  # type: ignore[misc]  # bound early
        ids.append(first)
        sums.append([found[member] for member in first])
    return Influential(np.array(ids, dtype=np.int64), np.array(sums))


def planted(seed: int = 0, steps: int = 60) -> tuple[NDArray[np.float64], list[Ids]]:
    rng = np.random.default_rng(seed)
    gamma = rng.normal(size=(4, steps)).round(1)  # rounded: equal sums occur
    names = rng.integers(-(2**62), 2**62, size=25)
    members = [rng.choice(names, size=rng.integers(0, 6), replace=False) for _ in range(steps)]
    return gamma, members


def test_by_hand() -> None:
    gamma = np.array([[6.0, -4.0, 1.0, 5.0], [0.0, 8.0, 0.0, -2.0]])
    members = arrays([7, 3, -2], [3, 9], [7], [])
    found = influential_examples(gamma, members, 10)
    np.testing.assert_array_equal(found.ids, [[7, -2, 3, 9], [3, 9, -2, 7]])  # 3 and 9, -2 and 7 tie: smaller id
    np.testing.assert_array_equal(found.sums, [[3, 2, 0, -2], [4, 4, 0, 0]])
    assert found.ids.dtype == np.int64
    np.testing.assert_array_equal(influential_examples(gamma, members, 2).ids, [[7, -2], [3, 9]])


@pytest.mark.parametrize("k", [1, 3, 24, 25, 100])
@pytest.mark.parametrize("block", [4, 4096])
def test_against_a_loop(k: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(influence_file, "BLOCK", block)
    gamma, members = planted()
    found, expected = influential_examples(gamma, members, k), slow(gamma, members, k)
    np.testing.assert_array_equal(found.ids, expected.ids)
    np.testing.assert_array_equal(found.sums, expected.sums)


def test_narrow_gammas_are_summed_in_float64() -> None:
    gamma, members = planted(1)
    narrow = gamma.astype(np.float32)
    found, expected = (influential_examples(values, members, 5) for values in (narrow, narrow.astype(np.float64)))
    np.testing.assert_array_equal(found.sums, expected.sums)
    assert found.sums.dtype == np.float64


def test_an_id_that_stands_twice_gets_two_shares() -> None:
    found = influential_examples(np.array([[9.0]]), arrays([5, 5, 1]), 2)
    np.testing.assert_array_equal(found.ids, [[5, 1]])
    np.testing.assert_array_equal(found.sums, [[6, 3]])


@pytest.mark.parametrize("cuts", [[20], [1, 2, 59], [0, 30, 30]])
def test_chunks_of_steps_and_blocks_of_ids_give_the_same_bytes(cuts: list[int]) -> None:
    gamma, members = planted(2)
    ids = np.unique(np.concatenate(members))
    parts, lows = [], []
    for block in (ids[:9], ids[9:10], ids[10:]):
        sums = InfluenceSums(block, 4)
        for start, stop in zip([0, *cuts], [*cuts, 60], strict=True):
            sums.update(gamma[:, start:stop], members[start:stop])
        parts.append(sums.top(6))
        lows.append(sums.bottom(6))
    for joined, expected in (
        (first_of(parts, 6), slow(gamma, members, 6)),
        (first_of(lows, 6, lowest=True), slow(gamma, members, 6, sign=-1)),
    ):
        np.testing.assert_array_equal(joined.ids, expected.ids)
        np.testing.assert_array_equal(joined.sums, expected.sums)


def test_merged_sums_are_those_of_all_steps() -> None:
    gamma, members = planted(3)
    ids = np.unique(np.concatenate(members))
    early, late, whole = (InfluenceSums(ids, 4) for _ in range(3))
    early.update(gamma[:, :25], members[:25])
    late.update(gamma[:, 25:], members[25:])
    before = late.sums.copy()
    whole.update(gamma, members)
    np.testing.assert_allclose(early.merge(late).sums, whole.sums, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(late.sums, before)


def test_examples_never_seen_are_not_named() -> None:
    sums = InfluenceSums(np.array([4, 1, 9]), 1)
    sums.update(np.array([[-1.0]]), arrays([4, 100]))
    np.testing.assert_array_equal(sums.top(3).ids, [[4]])
    np.testing.assert_array_equal(sums.top(3).sums, [[-0.5]])


def test_nothing_at_all() -> None:
    assert influential_examples(np.zeros((2, 0)), [], 3).ids.shape == (2, 0)
    assert influential_examples(np.zeros((0, 1)), arrays([4]), 3).ids.shape == (0, 1)
    assert influential_examples(np.zeros((2, 1)), [np.array([])], 3).sums.shape == (2, 0)


def test_what_is_refused() -> None:
    gamma, members = np.zeros((2, 2)), arrays([1], [2])
    with pytest.raises(ValueError, match="members: expected an array per step, 2, found 1"):
        influential_examples(gamma, members[:1], 3)
    with pytest.raises(ValueError, match="k: expected an integer of at least 1, found 0"):
        influential_examples(gamma, members, 0)
    with pytest.raises(ValueError, match="gamma: expected finite values, found NaN or inf"):
        influential_examples(gamma * np.nan, members, 1)
    with pytest.raises(ValueError, match=r"gamma: expected 2 axes, found shape \(2,\)"):
        influential_examples(gamma[0], members, 1)
    with pytest.raises(TypeError, match=r"members\[1\]: expected a NumPy array of integers, found float64"):
        influential_examples(gamma, [members[0], np.array([0.5])], 1)
    huge = np.array([1, 2**63], np.uint64)
    with pytest.raises(
        ValueError, match=r"members\[1\]: expected at most 9223372036854775807, .* found 9223372036854775808"
    ):
        influential_examples(gamma, [members[0], huge], 1)
    with pytest.raises(ValueError, match="ids: expected distinct ids"):
        InfluenceSums(np.array([1, 1]), 2)
    with pytest.raises(ValueError, match="merge: expected the same ids"):
        InfluenceSums(np.array([1]), 2).merge(InfluenceSums(np.array([2]), 2))
