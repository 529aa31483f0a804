"""Seeds of steps against NumPy's own object."""

import numpy as np
import pytest

from tasks.training.step_seeds import step_seed


@pytest.mark.parametrize("seed", [0, 1, 7, 123_456_789, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**70])
@pytest.mark.parametrize("step", [0, 1, 255, 256, 257, 99_999, 2**31, 2**32 - 1, 2**32, 2**33 + 5])
def test_they_are_those_of_seed_sequence(seed: int, step: int) -> None:
    expected = int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
    assert step_seed(seed, step) == expected
    assert type(step_seed(seed, step)) is int


def test_a_range_of_steps_in_any_order() -> None:
    steps = np.random.default_rng(0).permutation(3_000).tolist()
    expected = [int(np.random.SeedSequence([5, step]).generate_state(1, np.uint64)[0] >> 1) for step in steps]
    assert [step_seed(5, step) for step in steps] == expected
    assert len(set(expected)) == len(expected)


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="non-negative"):
        step_seed(-1, 0)
