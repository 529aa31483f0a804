"""Lists of concept words with their categories, from a probing set, from class names, or from a text file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tasks.io.annotations import Vocabulary
from tasks.io.files import read_bytes, reason, shown

OTHER = "other"  # category of a word without one
SUFFIXES = {"color": "-c", "scene": "-s"}  # Broden's marks of colours and scenes; a text model must not see them


@dataclass(frozen=True)
class WordList:
    """Different words in a fixed order, each with its categories; the first category is the primary one."""

    words: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, entries: Iterable[tuple[str, Sequence[str]]]) -> "WordList":
        """Return the list of (word, categories), without blank words and duplicates.

        Blanks around and between the parts of a word are single spaces. Upper and lower case do not make two words
        different: the first spelling stays, with the categories of all.
        """
        words: dict[str, str] = {}
        categories: dict[str, dict[str, None]] = {}
        for text, names in entries:
            word = " ".join(text.split())
            if word:
                words.setdefault(word.casefold(), word)
                categories.setdefault(word.casefold(), {}).update(dict.fromkeys(names))
        kept = (tuple(categories[key]) for key in words)
        return cls(tuple(words.values()), tuple(names or (OTHER,) for names in kept))

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary) -> "WordList":
        """Return the words of a probing set's labels, without Broden's suffixes -c and -s."""
        names = [vocabulary.categories[i] for i in vocabulary.category_of[1:]]
        return cls.of((_bare(word, name), (name,)) for word, name in zip(vocabulary.names[1:], names, strict=True))

    @classmethod
    def of_classes(cls, names: Mapping[int, str]) -> "WordList":
        """Return class names as words, in the order of their labels."""
        return cls.of((names[label].replace("_", " "), ()) for label in sorted(names))

    def positions(self, words: Iterable[str]) -> NDArray[np.int64]:
        """Return the index in this list of each given word, -1 for a word that is not in it."""
        return np.array([self._index.get(" ".join(word.split()).casefold(), -1) for word in words], dtype=np.int64)

    def label_positions(self, vocabulary: Vocabulary) -> NDArray[np.int64]:
        """Return the index of the word of each label number (L,), -1 for number 0 and labels without a word here."""
        names = [vocabulary.categories[i] for i in vocabulary.category_of[1:]]
        bare = (_bare(word, name) for word, name in zip(vocabulary.names[1:], names, strict=True))
        return np.concatenate([[-1], self.positions(bare)]).astype(np.int64)

    @cached_property
    def _index(self) -> dict[str, int]:
        """Return the index by word in lower case."""
        return {word.casefold(): i for i, word in enumerate(self.words)}


def label_words(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the word of each label of a probing set, once for a label of two categories, without Broden's suffixes."""
    names = [vocabulary.categories[i] for i in vocabulary.category_of[1:]]
    bare = {word: _bare(word, name) for word, name in zip(vocabulary.names[1:], names, strict=True)}
    return tuple(bare.values())


def read_words(path: str) -> WordList:
    """Read a text file with a word on each line; after a tab may follow its categories, separated by `;`.

    Parameters
    ----------
    path : local path or URL of UTF-8 text

    Returns
    -------
    WordList, in the order of the file
    """
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"words: file {shown(path)} {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"words: {shown(path)}: expected UTF-8 text, found other bytes; save it as UTF-8") from error
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.partition("\t")
        if odd := next((letter for letter in line if ord(letter) < 32 and letter != "\t"), None):
            raise ValueError(f"words: {shown(path)}, line {number}: expected text, found character {odd!r}; remove it")
        entries.append((word, [name.strip() for name in rest.split(";") if name.strip()]))
    words = WordList.of(entries)
    if not words.words:
        raise ValueError(f"words: {shown(path)}: expected a word on each line, found none; add words")
    return words


def _bare(word: str, category: str) -> str:
    """Return a label's name without Broden's suffix of its category."""
    return word.removesuffix(SUFFIXES.get(category, "\n"))
