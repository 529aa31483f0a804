"""Random numbers that are the same on every machine and with every version of NumPy."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

BLOCK = 128  # words that one call of NumPy draws
T = TypeVar("T")


class Dice:
    """Integers from the words of PCG64, whose stream NumPy keeps; the methods of its Generator may change."""

    def __init__(self, seed: int, index: int) -> None:
        self._bits = np.random.PCG64([seed, index])
        self._words = self._draw()

    def below(self, n: int) -> int:
        """Return an integer from 0 to n - 1."""
        return (next(self._words) >> 32) * n >> 32

    def between(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def percent(self, share: int) -> bool:
        """Return True in `share` of 100 cases."""
        return self.below(100) < share

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options."""
        return options[self.below(len(options))]

    def noise(self, *shape: int) -> NDArray[np.int32]:
        """Return integers 0..255 in the given shape."""
        n = int(np.prod(shape))
        words = np.asarray(self._bits.random_raw(-(-n // 8))).astype("<u8")
        return words.view(np.uint8)[:n].reshape(shape).astype(np.int32)

    def _draw(self) -> Iterator[int]:
        """Yield words of 64 bits."""
        while True:
            yield from np.asarray(self._bits.random_raw(BLOCK)).tolist()
