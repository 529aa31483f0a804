"""Tokens of texts by a local file: a list of words, or a tokenizer of the package tokenizers."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "[UNK]"  # in a list of words: the token of every other word
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Words:
    """A list of words: the first is token 1, since 0 is padding."""

    numbers: Mapping[str, int]

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text in lower case, words and marks.

        Raises
        ------
        ValueError : a word that is not in the list, where the list does not have [UNK]
        """
        found = []
        for word in _WORD.findall(text.lower()):
            number = self.numbers.get(word, self.numbers.get(UNKNOWN))
            if number is None:
                raise ValueError(f"expected words of the vocabulary, found {word!r}; add it, or a line {UNKNOWN}")
            found.append(number)
        return found


@dataclass(frozen=True)
class Packaged:
    """A tokenizer of the package tokenizers: its token n is n + 1 here, since 0 is padding."""

    encode: Callable[[str], list[int]]

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text."""
        return [number + 1 for number in self.encode(text)]


def read_tokenizer(path: str) -> Words | Packaged:
    """Return the tokenizer of a file: .json of the package tokenizers, else a text file with a word a line.

    Raises
    ------
    ValueError : the file cannot be read, has a word twice, or needs a package that is missing
    """
    if path.endswith(".json"):
        return Packaged(_packaged(path))
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"tokenizer {path}: expected a text file in UTF-8 with a word a line, found {error}"
        ) from error
    words = [word if word == UNKNOWN else word.lower() for word in lines if word]
    if not words:
        raise ValueError(f"tokenizer {path}: expected a word a line, found none")
    if len(set(words)) < len(words):
        twice = next(word for word in words if words.count(word) > 1)
        raise ValueError(f"tokenizer {path}: expected different words, found {twice!r} twice")
    return Words({word: number for number, word in enumerate(words, 1)})


def _packaged(path: str) -> Callable[[str], list[int]]:
    """Return the function of a tokenizer of the package."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError(
            f"tokenizer {path}: expected the package tokenizers for a .json file, found none; pip install tokenizers"
        ) from error
    try:
        tokenizer = Tokenizer.from_file(path)
    except Exception as error:  # the package raises plain exceptions
        raise ValueError(
            f"tokenizer {path}: expected a file of the package tokenizers, found another: {error}"
        ) from error
    return lambda text: list(tokenizer.encode(text).ids)
