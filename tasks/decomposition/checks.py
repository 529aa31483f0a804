"""Checks of the input arrays of the decomposition."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
Positions = NDArray[np.int64]
Seed = int | Sequence[int]

LARGEST = 1e150  # its square, and sums of such squares over any number of images, are finite in float64


def check_features(features: Floats, n_features: int | None = None, *, name: str = "features") -> Floats:
    """Check the features (or logits) of some images.

    Parameters
    ----------
    features : (m, d) of any real dtype, finite, magnitudes up to 1e150; m may be 0
    n_features : d, None for any of at least 1
    name : name of the array in messages

    Returns
    -------
    (m, d) float32 for float16 and float32, else float64; the input itself where possible
    """
    values = check_real(name, features)
    width = "d" if n_features is None else n_features
    if values.ndim != 2 or values.shape[1] == 0 or n_features not in (None, values.shape[1]):
        raise ValueError(f"{name}: expected shape (m, {width}), found {features.shape}")
    if values.size and not (float(values.min()) >= -LARGEST and float(values.max()) <= LARGEST):  # NaN
        bad = ~(np.abs(values.astype(np.float64)) <= LARGEST)
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{name}: expected finite values of at most {LARGEST:g}, found {values[row, column]:g} at row {row}, "
            f"column {column} ({bad.any(axis=1).sum()} of {len(values)} rows)"
        )
    return values


def check_real(name: str, values: NDArray[np.generic]) -> Floats:
    """Check that `values` is a NumPy array of real numbers; return it as float32 (float16, float32) or float64."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        found = getattr(values, "dtype", type(values).__name__)
        raise TypeError(f"{name}: expected a NumPy array of real numbers, found {found}")
    narrow = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    return values.astype(np.float32 if narrow else np.float64, copy=False)


def check_classes(name: str, classes: NDArray[np.integer], n_rows: int, n_classes: int) -> Positions:
    """Check one class per row, 0..n_classes-1; return them as int64."""
    if not isinstance(classes, np.ndarray) or classes.dtype.kind not in "iu":
        found = getattr(classes, "dtype", type(classes).__name__)
        raise TypeError(f"{name}: expected a NumPy array of integers, found {found}")
    if classes.shape != (n_rows,):
        raise ValueError(f"{name}: expected shape ({n_rows},), one per image, found {classes.shape}")
    bad = np.flatnonzero((classes < 0) | (classes >= n_classes))
    if bad.size:
        raise ValueError(f"{name}: expected 0..{n_classes - 1}, found {classes[bad[0]]} at row {bad[0]}")
    return classes.astype(np.int64, copy=False)


def check_indices(indices: NDArray[np.integer], n_features: int, n_classes: int | None = None) -> Positions:
    """Check (C, k) feature indices, distinct within each class, with 1 <= k <= d; return them as int64."""
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        found = getattr(indices, "dtype", type(indices).__name__)
        raise TypeError(f"indices: expected a NumPy array of integers, found {found}")
    fits = indices.ndim == 2 and len(indices) > 0 and n_classes in (None, len(indices))
    if not fits or not 1 <= indices.shape[1] <= n_features:
        rows = "C" if n_classes is None else n_classes
        raise ValueError(f"indices: expected shape ({rows}, k) with 1 <= k <= {n_features}, found {indices.shape}")
    bad = np.argwhere((indices < 0) | (indices >= n_features))
    if len(bad):
        row, place = bad[0]
        raise ValueError(f"indices: expected 0..{n_features - 1}, found {indices[row, place]} at class {row}")
    ordered = np.sort(indices, axis=1)
    twice = np.argwhere(ordered[:, 1:] == ordered[:, :-1])
    if len(twice):
        row, place = twice[0]
        raise ValueError(f"indices: expected distinct features, found {ordered[row, place]} twice at class {row}")
    return indices.astype(np.int64, copy=False)


def check_matrix(name: str, matrix: NDArray[np.generic], shape: tuple[int, int]) -> Doubles:
    """Check that a matrix has a shape and is finite; return it in float64."""
    values = check_real(name, matrix)
    if values.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, found {values.shape}")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(f"{name}: expected finite values, found {values[tuple(bad[0])]} at class {bad[0][0]}")
    return values.astype(np.float64, copy=False)


def check_count(name: str, count: int, most: int | None = None) -> int:
    """Check a number of features, classes or images: an integer 1..most, or at least 1."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise TypeError(f"{name}: expected an integer, found {count!r}")
    if count < 1 or (most is not None and count > most):
        wanted = "at least 1" if most is None else f"1..{most}"
        raise ValueError(f"{name}: expected {wanted}, found {count}")
    return int(count)


def entropy(seed: Seed, *more: int) -> list[int]:
    """Join a seed (an integer or a sequence of them) and further integers into the seed of a generator."""
    return [*(seed if isinstance(seed, Sequence) else [seed]), *more]


def blocks(n_rows: int, n_features: int, elements: int = 1 << 18) -> list[slice]:
    """Cut rows into blocks of about `elements` values, which fit a core's cache."""
    size = max(1, elements // n_features)
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]
