"""Checks of the NumPy inputs of Network Dissection."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]  # Any: float32 or float64
Integers = NDArray[np.integer[Any]]  # Any: of any width


def check_values(name: str, values: NDArray[Any], axes: int | None = None) -> Floats:  # Any: real numbers
    """Check an array of real, finite numbers; return it as float32 (floats of at most 32 bits) or float64.

    Parameters
    ----------
    name : name of the array in messages
    values : (n, K, ...) real, none of the sizes 0
    axes : number of axes, None for two or more
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        found = getattr(values, "dtype", type(values).__name__)
        raise TypeError(f"{name}: expected a NumPy array of real numbers, found {found}")
    if values.ndim < 2 or 0 in values.shape or axes not in (None, values.ndim):
        wanted = "two or more axes" if axes is None else f"{axes} axes"
        raise ValueError(f"{name}: expected {wanted}, none of size 0, found shape {values.shape}")
    narrow = values.dtype.kind == "f" and values.dtype.itemsize <= 4
    result: Floats = values.astype(np.float32 if narrow else np.float64, copy=False)
    if not np.isfinite(result).all():
        bad = np.flatnonzero(~np.isfinite(result).reshape(len(result), -1).all(axis=1))
        raise ValueError(
            f"{name}: expected finite values, found NaN or inf in {len(bad)} of {len(result)} images, "
            f"the first is image {bad[0]}"
        )
    return result


def check_labels(labels: Integers) -> Longs:
    """Check the category of each label number: -1 for number 0, which means nothing, and at least 0 for the others."""
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        found = getattr(labels, "dtype", type(labels).__name__)
        raise TypeError(f"labels: expected a NumPy array of integers, found {found}")
    if labels.ndim != 1 or not len(labels) or labels[0] != -1 or (labels[1:] < 0).any():
        raise ValueError(
            "labels: expected the category index of each label number, -1 for number 0 alone, "
            f"found shape {labels.shape} and {labels[:5].tolist()}..."
        )
    return labels.astype(np.int64)


def check_masks(masks: Integers, n_images: int, n_labels: int, size: tuple[int, int] | None) -> Integers:
    """Check label numbers (n, P, H, W) of n images, and their size where it is known."""
    if not isinstance(masks, np.ndarray) or masks.dtype.kind not in "iu":
        found = getattr(masks, "dtype", type(masks).__name__)
        raise TypeError(f"masks: expected a NumPy array of integers, found {found}")
    if masks.ndim != 4 or len(masks) != n_images or 0 in masks.shape[2:]:
        raise ValueError(f"masks: expected shape ({n_images}, planes, H, W), found {masks.shape}")
    if size not in (None, masks.shape[2:]):
        raise ValueError(f"masks: expected {size} pixels, as in the images before, found {masks.shape[2:]}")
    if masks.size and (masks.min() < 0 or masks.max() >= n_labels):
        image, plane, y, x = np.argwhere((masks < 0) | (masks >= n_labels))[0]
        raise ValueError(
            f"masks: expected label numbers 0..{n_labels - 1}, found {masks[image, plane, y, x]} in image {image} "
            f"of this chunk, plane {plane}; add the number to the labels"
        )
    return masks
