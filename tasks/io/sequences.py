"""Sources of sequences: NumPy archives of tokens or features, and tables of texts with a vocabulary.

A sample is an array (steps, numbers), as long as the longest sequence of the data set. Tokens are one number a step,
and 0 is padding. Features have one more number at their end: 1 for a step, 0 for padding.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.datasets import SequenceFile, Texts
from tasks.io.files import look_up, reason, shown
from tasks.io.npz import read_member
from tasks.io.samples import MAX_LABEL, Row, Sample, Vector, array_digest
from tasks.io.tokenizer import Packaged, Words, read_tokenizer

MOST = 2**24  # the largest token that float32 knows
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """The sequences of a split, (steps, numbers) each without padding, and the label of each."""

    sequences: tuple[Floats, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class SequenceSource:
    """Sequences by split, with keys `<split>/<index in the split>`."""

    parts: dict[str, Part]
    classes: dict[int, str]

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all sequences, splits in alphabetical order."""
        for split in sorted(self.parts):
            for i, label in enumerate(self.parts[split].labels):
                yield Row(f"{split}/{i}", label, split, 4 * self._longest, "")

    def class_names(self) -> dict[int, str]:
        """Return the names of the labels that have one."""
        return self.classes

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return the sequences of `keys` with padding."""
        found = []
        for key in keys:
            split, _, number = key.rpartition("/")
            sequences = self.parts[split].sequences if split in self.parts else ()
            if not number.isdecimal() or int(number) >= len(sequences):
                raise ValueError(f"sample {key}: expected it in the data set, found none; check whether it changed")
            one = sequences[int(number)]
            values = np.zeros((self._longest, one.shape[1]), np.float32)
            values[: len(one)] = one
            found.append(Sample(Vector(values), array_digest(values)))
        return found

    @cached_property
    def _longest(self) -> int:
        """Steps of the longest sequence."""
        return max(len(one) for part in self.parts.values() for one in part.sequences)


def open_sequence_file(data: SequenceFile) -> SequenceSource:
    """Return the sequences of a config's archives; each process reads an archive once.

    Raises
    ------
    ValueError : an archive that cannot be read, or does not hold sequences; the message names the sequence
    """
    files = tuple((split, *_file("sequence-npz", path)) for split, path in data.paths.items())
    return _read_archives(files, data.vocabulary)


@lru_cache(maxsize=4)
def _read_archives(files: tuple[tuple[str, str, str], ...], vocabulary: int | None) -> SequenceSource:
    """Return the sequences of archives by (split, path, etag), which this process caches."""
    parts = {split: _part(path, vocabulary) for split, path, _ in files}
    widths = {part.sequences[0].shape[1] for part in parts.values()}
    if len(widths) > 1:
        raise ValueError(f"sequence-npz: expected as many features in every split, found {sorted(widths)}")
    return SequenceSource(parts, {})


def _part(path: str, vocabulary: int | None) -> Part:
    """Return the sequences of an archive."""
    where = f"sequence-npz {path}"
    values, offsets, labels = (read_member(path, name) for name in ("values", "offsets", "labels"))
    wide = values.ndim == 2 and values.shape[1] > 0
    if not (wide or values.ndim == 1) or values.dtype.kind not in ("iuf" if wide else "iu"):
        raise ValueError(
            f"{where}: array 'values': expected tokens (n,) of integers or features (n, d), found {values.dtype} "
            f"{values.shape}"
        )
    _check_integers(where, "offsets", offsets, None)
    _check_integers(where, "labels", labels, max(0, len(offsets) - 1))
    if (
        len(offsets) < 2
        or offsets[0] != 0
        or offsets[-1] != len(values)
        or (np.diff(offsets.astype(np.int64)) < 0).any()
    ):
        raise ValueError(
            f"{where}: array 'offsets': expected at least two numbers that rise from 0 to {len(values)}, the length of "
            "values, found others"
        )
    if values.ndim == 2:
        if vocabulary is not None:
            raise ValueError(f"{where}: expected tokens (n,), as `vocabulary` says, found features {values.shape}")
        with np.errstate(over="ignore"):
            steps = np.concatenate([values, np.ones((len(values), 1))], axis=1).astype(np.float32)
        if bad := np.flatnonzero(~np.isfinite(steps).all(axis=1)).tolist():
            raise ValueError(f"{where}: step {bad[0]}: expected finite float32 features, found NaN, inf or more")
    else:
        _check_tokens(where, values, vocabulary)
        steps = values.astype(np.float32)[:, None]
    found = [_sequence(f"{where}: sequence {i}", steps[a:b]) for i, (a, b) in enumerate(pairwise(offsets.tolist()))]
    return Part(tuple(found), tuple(int(label) for label in labels))


def _sequence(where: str, steps: Floats) -> Floats:
    """Return a sequence; raise ValueError for an empty one."""
    if not len(steps):
        raise ValueError(f"{where}: expected at least one step, found none; leave the sequence out")
    return steps


def _check_tokens(where: str, tokens: NDArray[Any], vocabulary: int | None) -> None:  # Any: integers of any width
    """Raise ValueError for a token that is padding, or beyond the vocabulary."""
    most = MOST if vocabulary is None else vocabulary
    outside = np.flatnonzero((tokens < 1) | (tokens >= most))
    if outside.size:
        limit = "" if vocabulary is None else f" to {vocabulary - 1}, as vocabulary says,"
        raise ValueError(
            f"{where}: step {outside[0]}: expected a token from 1{limit or f' to {MOST - 1:,},'} found "
            f"{tokens[outside[0]]}; 0 is padding"
        )


def _check_integers(where: str, name: str, array: NDArray[Any], count: int | None) -> None:  # Any: checked here
    """Raise ValueError unless an array holds `count` integers of at least 0."""
    if array.ndim != 1 or array.dtype.kind not in "iu" or (count is not None and len(array) != count):
        wanted = "integers (n,)" if count is None else f"{count} integers, one a sequence"
        raise ValueError(f"{where}: array {name!r}: expected {wanted}, found {array.dtype} {array.shape}")
    if len(array) and (int(array.min()) < 0 or int(array.max()) > MAX_LABEL):
        worst = int(array.min()) if int(array.min()) < 0 else int(array.max())
        raise ValueError(f"{where}: array {name!r}: expected numbers from 0 to {MAX_LABEL:,}, found {worst}")


def open_texts(data: Texts) -> SequenceSource:
    """Return the texts of a config's tables as tokens of its vocabulary; each process reads a table once.

    Raises
    ------
    ValueError : a table or a vocabulary that cannot be read, or a text without tokens; the message names the line
    """
    files = tuple((split, *_file("texts", path)) for split, path in data.paths.items())
    names = tuple((data.classes or {}).items())
    return _read_tables(
        files, _file("texts", data.tokenizer), (data.text_column, data.label_column), names, data.longest
    )


@lru_cache(maxsize=4)
def _read_tables(
    files: tuple[tuple[str, str, str], ...],
    tokenizer: tuple[str, str],
    columns: tuple[str, str],
    names: tuple[tuple[str, int], ...],
    longest: int | None,
) -> SequenceSource:
    """Return the texts of tables by (split, path, etag), which this process caches."""
    words, classes = read_tokenizer(tokenizer[0]), dict(names)
    parts = {split: _texts(path, words, columns, classes, longest) for split, path, _ in files}
    return SequenceSource(parts, {index: name for name, index in classes.items()})


def _texts(
    path: str, words: Words | Packaged, columns: tuple[str, str], classes: dict[str, int], longest: int | None
) -> Part:
    """Return the texts of a table."""
    try:
        table = csv.DictReader(io.StringIO(Path(path).read_text("utf-8-sig"), newline=""))
        header, rows = [column for column in table.fieldnames or () if column in columns], list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"texts {path}: expected a table in UTF-8, found another file ({error})") from error
    if not rows or any(column not in rows[0] for column in columns):
        found = ", ".join(str(name) for name in rows[0]) if rows else "no rows"
        raise ValueError(f"texts {path}: expected rows with the columns {' and '.join(columns)}, found {found}")
    if len(set(header)) < len(header) or len(set(columns)) < len(columns):
        raise ValueError(f"texts {path}: expected one column of texts and another of labels, found {', '.join(header)}")
    sequences, labels = [], []
    for line, row in enumerate(rows, 2):
        text, label = (row[column] or "" for column in columns)
        where = f"texts {path}, row {line}"
        try:
            tokens = words.tokens(text)[:longest]
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        sequences.append(_sequence(where, np.array(tokens, np.float32).reshape(-1, 1)))
        labels.append(_label(where, label, classes))
    return Part(tuple(sequences), tuple(labels))


def _label(where: str, label: str, classes: dict[str, int]) -> int:
    """Return the network output index of a label."""
    if classes:
        if label not in classes:
            raise ValueError(f"{where}: expected a label of `classes`, found {label!r}; add it there")
        return classes[label]
    if not re.fullmatch(r"[0-9]{1,18}", label):
        raise ValueError(f"{where}: expected an integer as label, found {label!r}; map names by `classes`")
    return int(label)


def _file(source: str, path: str) -> tuple[str, str]:
    """Return the path and etag of a local file."""
    try:
        return str(Path(path).expanduser().resolve()), look_up(str(Path(path).expanduser())).etag
    except OSError as error:
        raise ValueError(f"{source}: file {shown(path)} {reason(error)}") from error
