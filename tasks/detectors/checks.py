"""Checks of the inputs of detectors, and the kind of array that a result has."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = Tensor | NDArray[Any]  # Any: real numbers of any width; results are of the kind that came in

BLOCK = 1 << 20  # values at a time of a check: its temporaries stay small


def check_matrix(name: str, values: Array, shape: tuple[int | None, int | None] = (None, None)) -> Tensor:
    """Check a matrix of real, finite numbers and return it as a tensor of its dtype.

    Parameters
    ----------
    name : name of the matrix in messages
    values : (n, columns) real, NumPy or torch
    shape : expected sizes, None for any of at least 1

    Raises
    ------
    TypeError : neither NumPy nor torch, or not real numbers
    ValueError : another shape, NaN or inf
    """
    tensor = as_tensor(name, values)
    wanted = zip(shape, tensor.shape, strict=False)
    if tensor.ndim != 2 or 0 in tensor.shape or any(size not in (None, found) for size, found in wanted):
        text = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name}: expected shape ({text}), none of them 0, found {tuple(tensor.shape)}")
    step = max(1, BLOCK // tensor.shape[1])
    rows = [torch.isfinite(tensor[start : start + step]).all(dim=1) for start in range(0, len(tensor), step)]
    bad = torch.nonzero(~torch.cat(rows)).flatten()
    if len(bad):
        raise ValueError(
            f"{name}: expected finite values, found NaN or inf in {len(bad)} of {len(tensor)} rows, "
            f"the first is row {int(bad[0])}"
        )
    return tensor


def as_tensor(name: str, values: Array) -> Tensor:
    """Return an array of real numbers as a tensor, without a copy where possible."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        wide = values.dtype.kind != "f" or values.dtype.itemsize > 8
        native = values.astype(np.float64 if wide else values.dtype.newbyteorder("="), copy=False)
        # torch takes neither negative strides nor arrays that must not be written, without a warning
        return torch.from_numpy(
            native if native.flags.writeable and min(native.strides, default=0) >= 0 else native.copy()
        )
    if isinstance(values, Tensor) and not values.is_complex() and values.dtype != torch.bool:
        return values
    found = getattr(values, "dtype", type(values).__name__)
    raise TypeError(f"{name}: expected a NumPy array or a torch tensor of real numbers, found {found}")


def column_blocks(n_columns: int, size: int) -> list[slice]:
    """Cut columns into blocks of `size`, the last may be smaller."""
    return [slice(start, min(start + size, n_columns)) for start in range(0, n_columns, size)]


def as_kind_of(values: Array, result: Tensor) -> Array:
    """Return a result as NumPy array where `values` is one."""
    return result.detach().cpu().numpy() if isinstance(values, np.ndarray) else result


def result_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float32 if all inputs are floats of at most 32 bits, else float64."""
    narrow = all(tensor.is_floating_point() and tensor.dtype.itemsize <= 4 for tensor in tensors)
    return torch.float32 if narrow else torch.float64


def check_number(name: str, value: float, least: float, most: float = math.inf, *, open_below: bool = False) -> float:
    """Check a parameter in least <= value <= most, or above `least`; return it as a Python float."""
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not real or not math.isfinite(value) or not least <= value <= most or (open_below and value == least):
        wanted = f"a number {'above' if open_below else 'of at least'} {least:g}"
        wanted += f" and at most {most:g}" if most < math.inf else ""
        raise ValueError(f"{name}: expected {wanted}, found {value!r}")
    return float(value)


def check_count(name: str, value: int, most: int | None = None) -> int:
    """Check a count of at least 1; return it as a Python int."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        wanted = "an integer of at least 1" if most is None else f"an integer 1..{most}"
        raise ValueError(f"{name}: expected {wanted}, found {value!r}")
    return int(value)
