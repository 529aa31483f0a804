"""Image and text features from an npz file: those of an image-text model that ran elsewhere."""

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.io.files import local_path, look_up, reason, shown

MAX_NAMED = 3  # largest number of unknown words that a message names
Features = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureFile:
    """Unit rows of one space: of images by sample id, of texts by word."""

    name: str  # for messages
    image_rows: Features  # (n, e)
    text_rows: Features  # (S, e)
    ids: NDArray[np.int64] | None  # (n,) sample id of each image row; None: row i is sample i
    words: tuple[str, ...]  # (S,)

    def images(self, ids: NDArray[np.int64]) -> Features:
        """Return the features of samples (m,), (m, e); raise ValueError for a sample without features."""
        rows = np.array([self._row_of_id.get(sample, -1) for sample in ids.tolist()], dtype=np.int64)
        if (rows < 0).any():
            missing = ids[rows < 0]
            raise ValueError(
                f"{self.name}: expected features of each sample, found none of sample id {missing[0]} "
                f"({missing.size} of {ids.size} samples); compute them for this data set"
            )
        return self.image_rows[rows]

    def texts(self, words: Sequence[str]) -> Features:
        """Return the features of words (S,), (S, e), without regard to case; raise ValueError for unknown words."""
        unknown = [word for word in words if _key(word) not in self._row_of_word]
        if unknown:
            raise ValueError(f"{self.name}: expected features of each word, found none of {named(unknown)}")
        return self.text_rows[[self._row_of_word[_key(word)] for word in words]]

    def check_samples(self, n_samples: int) -> None:
        """Raise ValueError unless rows without sample ids are those of a whole data set of `n_samples`."""
        if self.ids is None and len(self.image_rows) != n_samples:
            raise ValueError(
                f"{self.name}: expected {n_samples:,} image rows, one for each sample of the data set, found "
                f"{len(self.image_rows):,}; add an array of sample ids, or compute the features for this data set"
            )

    @cached_property
    def _row_of_id(self) -> Mapping[int, int]:
        ids = range(len(self.image_rows)) if self.ids is None else self.ids.tolist()
        return {sample: row for row, sample in enumerate(ids)}

    @cached_property
    def _row_of_word(self) -> Mapping[str, int]:
        return {_key(word): row for row, word in reversed(list(enumerate(self.words)))}  # the first of equal words


def read_features(
    path: str,
    *,
    images: str = "images",
    texts: str = "texts",
    ids: str | None = None,
    words: str | Sequence[str],
) -> FeatureFile:
    """Read the features of images and words.

    Parameters
    ----------
    path : local .npz file; nothing is unpickled
    images : name of the array (n, e) of image features, any float type
    texts : name of the array (S, e) of text features
    ids : name of the array (n,) of integer sample ids; None: row i is the data set's sample i
    words : name of the array (S,) of words, or the words themselves in the order of the rows

    Returns
    -------
    FeatureFile, rows normalised to length 1
    """
    name = f"features {shown(path)}"
    arrays = _arrays(path, name, [images, texts, *([ids] if ids else []), *([words] if isinstance(words, str) else [])])
    image_rows, text_rows = (_unit(arrays[key], f"{name}: array {key!r}") for key in (images, texts))
    if image_rows.shape[1] != text_rows.shape[1]:
        raise ValueError(
            f"{name}: expected image and text features of one length, found {image_rows.shape[1]} and "
            f"{text_rows.shape[1]}; save features of one space"
        )
    found = arrays[words] if isinstance(words, str) else np.array(list(words), dtype=np.str_)
    what = f"{name}: array {words!r}" if isinstance(words, str) else f"{name}: words of the rows of {texts!r}"
    if found.dtype.kind != "U" or found.shape != (len(text_rows),):
        raise ValueError(f"{what}: expected {len(text_rows)} texts, found {found.dtype} {found.shape}; name each row")
    sample_ids = None if ids is None else _ids(arrays[ids], len(image_rows), f"{name}: array {ids!r}")
    return FeatureFile(name, image_rows, text_rows, sample_ids, tuple(found.tolist()))


def named(words: Sequence[str]) -> str:
    """Return the first words of a list for a message."""
    more = f" and {len(words) - MAX_NAMED} more" if len(words) > MAX_NAMED else ""
    return ", ".join(repr(word) for word in words[:MAX_NAMED]) + more


def _arrays(path: str, name: str, keys: Sequence[str]) -> dict[str, NDArray[Any]]:  # Any: checked by the caller
    """Return arrays of a file by name."""
    file = local_path(path)
    if file is None:
        raise ValueError(f"{name}: expected a local file, found a URL; copy it here")
    try:
        look_up(path)
        if not zipfile.is_zipfile(file):
            raise ValueError("it is not an archive")
        with np.load(file, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            if not missing:
                return {key: archive[key] for key in keys}
            there = ", ".join(archive.files)
    except OSError as error:
        raise ValueError(f"{name}: the file {reason(error)}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(
            f"{name}: expected an npz file of numbers and texts, found an error ({why}); save it again"
        ) from error
    raise ValueError(f"{name}: expected an array {missing[0]!r}, found {there}")


def _unit(rows: NDArray[Any], name: str) -> Features:  # Any: this function checks the type
    """Return checked features as unit rows."""
    if rows.ndim != 2 or rows.dtype.kind != "f" or 0 in rows.shape:
        raise ValueError(f"{name}: expected floats (rows, features), found {rows.dtype} {rows.shape}")
    wide = rows.astype(np.float64)
    odd = ~np.isfinite(wide).all(axis=1)
    if odd.any():
        raise ValueError(f"{name}: expected finite numbers, found others in row {int(odd.argmax())}")
    length = np.sqrt((wide**2).sum(axis=1, keepdims=True))
    if not length.all():
        raise ValueError(f"{name}: expected features that are not zero, found zeros in row {int(length.argmin())}")
    unit: Features = (wide / length).astype(np.float32)
    return unit


def _ids(ids: NDArray[Any], n: int, name: str) -> NDArray[np.int64]:  # Any: this function checks the type
    """Return checked sample ids."""
    if ids.dtype.kind not in "iu" or ids.shape != (n,):
        raise ValueError(f"{name}: expected {n} integers, one for each image row, found {ids.dtype} {ids.shape}")
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{name}: expected each sample id once, found {values[counts > 1][0]} twice; remove one")
    return ids.astype(np.int64)


def _key(word: str) -> str:
    """Return a word in the form that the look-up uses."""
    return " ".join(word.split()).casefold()
