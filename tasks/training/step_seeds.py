"""Seeds of steps: NumPy's `SeedSequence([seed, step])`, many steps at a time.

Its own object costs about as much as the forward pass of a small network, and every step needs one.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BLOCK_BITS = 8  # log2 of the steps at a time
WORD = 1 << 32
SHIFT = np.uint32(16)
POOL = 4
FIRST, AFTER = (0x43B0D7E5, 0x931E8875), (0x8B51F9DD, 0x58F38DED)  # numpy/random/bit_generator.pyx: A, B
LEFT, RIGHT = np.uint32(0xCA01F9DD), np.uint32(0x4973F715)

Words = NDArray[np.uint32]


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's random numbers, 63 bits: half of `SeedSequence([seed, step])`'s first number."""
    if not (0 <= seed < WORD and 0 <= step < WORD):  # more words than one: NumPy says what it means, or refuses it
        return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
    return _block(seed, step >> BLOCK_BITS)[step & (1 << BLOCK_BITS) - 1]


@lru_cache(maxsize=4)
def _block(seed: int, block: int) -> list[int]:
    """Return the seeds of a block of steps."""
    steps = np.arange(block << BLOCK_BITS, (block + 1) << BLOCK_BITS).astype(np.uint32)
    hashed, zero = _Hash(*FIRST), np.zeros_like(steps)
    pool = [hashed(words) for words in (zero + np.uint32(seed), steps, zero, zero)]
    for source in range(POOL):
        for target in range(POOL):
            if source != target:
                mixed = LEFT * pool[target] - RIGHT * hashed(pool[source])
                pool[target] = mixed ^ (mixed >> SHIFT)
    after = _Hash(*AFTER)
    low, high = after(pool[0]).astype(np.uint64), after(pool[1]).astype(np.uint64)
    seeds: list[int] = ((high << np.uint64(32) | low) >> np.uint64(1)).tolist()
    return seeds


class _Hash:
    """NumPy's hash of words; its constant changes with every call."""

    def __init__(self, constant: int, factor: int) -> None:
        self.constant, self.factor = constant, factor

    def __call__(self, words: Words) -> Words:
        words = words ^ np.uint32(self.constant)
        self.constant = self.constant * self.factor % WORD
        words = words * np.uint32(self.constant)
        return words ^ (words >> SHIFT)
