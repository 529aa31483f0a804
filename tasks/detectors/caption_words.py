"""Captions as tokens: the words of a caption in lower case, and the vocabulary of a captioner."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tasks.detectors.captioner import SPECIALS

WORD = re.compile(r"\w+(?:['’-]\w+)*")


def words_of(caption: str) -> list[str]:
    """Return the words of a caption in lower case, without punctuation."""
    return WORD.findall(caption.casefold())


@dataclass(frozen=True)
class CaptionWords:
    """The vocabulary of a captioner; the special tokens follow its words."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, captions: Iterable[str]) -> "CaptionWords":
        """Return the words of captions, the most frequent first, equally frequent ones by name."""
        counts = Counter(word for caption in captions for word in words_of(caption))
        return cls(tuple(sorted(counts, key=lambda word: (-counts[word], word))))

    def __len__(self) -> int:
        """Return the number of tokens with the special ones."""
        return len(self.words) + len(SPECIALS)

    def special(self, name: str) -> int:
        """Return the number of a special token."""
        return len(self.words) + SPECIALS.index(name)

    def encode(self, captions: Sequence[str], length: int) -> NDArray[np.int64]:
        """Return tokens (n, length + 2): start, the first `length` words, stop, and padding."""
        start, stop, pad, unknown = (self.special(name) for name in SPECIALS)
        tokens = np.full((len(captions), length + 2), pad, np.int64)
        for row, caption in zip(tokens, captions, strict=True):
            found = [self._index.get(word, unknown) for word in words_of(caption)[:length]]
            row[: len(found) + 2] = [start, *found, stop]
        return tokens

    def text(self, tokens: Sequence[int]) -> str:
        """Return a caption: the words up to the first special token."""
        ended = next((i for i, token in enumerate(tokens) if token >= len(self.words)), len(tokens))
        return " ".join(self.words[token] for token in tokens[:ended])

    @cached_property
    def _index(self) -> dict[str, int]:
        """Return the number of each word."""
        return {word: number for number, word in enumerate(self.words)}
