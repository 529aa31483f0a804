"""Checks of the input tensors and arrays of tracing."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.modules.rows import Inputs, Rows, values_of
from tasks.tracing.patches import Operation

Doubles = NDArray[np.float64]


class NotFiniteError(ValueError):
    """NaN or inf in a row of a tensor.

    Attributes
    ----------
    name, row : the tensor, and the first such row
    """

    name, row = "", 0


def check_tensors(**tensors: Inputs | None) -> None:
    """Check that all are floating-point tensors, or ragged rows, of one dtype on one device; None is skipped.

    Raises
    ------
    TypeError : not a tensor
    ValueError : not floating-point, or two dtypes or devices
    """
    first = None
    for name, given in tensors.items():
        if given is None:
            continue
        tensor = values_of(given)
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: expected a torch tensor, found {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: expected floating-point numbers, found {tensor.dtype}")
        first = first or (name, tensor.dtype, tensor.device)
        if (tensor.dtype, tensor.device) != first[1:]:
            raise ValueError(
                f"{name}: expected {first[1]} on {first[2]}, as {first[0]} is, found {tensor.dtype} on {tensor.device}"
            )


def check_finite(name: str, tensor: Tensor) -> None:
    """Check that all rows (first axis) are finite."""
    if torch.isfinite(tensor.sum()):  # then all are, and no array of booleans is made
        return
    if not torch.isfinite(tensor).all():
        rows = torch.nonzero(~torch.isfinite(tensor).reshape(len(tensor), -1).all(dim=1)).flatten()
        error = NotFiniteError(
            f"{name}: expected finite values, found NaN or inf in {len(rows)} of {len(tensor)} rows, "
            f"the first is row {int(rows[0])}"
        )
        error.name, error.row = name, int(rows[0])
        raise error


def check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    """Check the shape of a tensor; -1 allows any size."""
    fits = len(expected) == tensor.ndim and all(e in (-1, s) for e, s in zip(expected, tensor.shape, strict=True))
    if not fits:
        wanted = ", ".join("any" if size < 0 else str(size) for size in expected)
        raise ValueError(f"{name}: expected shape ({wanted}), found {tuple(tensor.shape)}")


def check_operation(operation: Operation, inputs: Inputs) -> None:
    """Check that the shapes of weight and inputs fit the module.

    Raises
    ------
    ValueError : wrong number of axes or of channels, groups that do not divide the channels, a unit out of range
    """
    shape, module = operation.shape, operation.module
    d = len(getattr(module, "kernel_size", ()))
    if d and isinstance(inputs, Rows):
        raise ValueError(f"inputs: expected a tensor for {type(module).__name__}, found ragged rows")
    if len(shape) != 2 + d or 0 in shape:
        raise ValueError(f"weight: expected {2 + d} axes for {type(module).__name__}, none empty, found shape {shape}")
    if shape[0] % operation.groups:
        raise ValueError(f"weight: expected a multiple of {operation.groups} groups as rows, found {shape[0]}")
    operation.kind.check(operation.use, inputs)
    unit = operation.unit
    if unit is not None and not 0 <= unit < operation.n_outputs:
        raise ValueError(f"unit: expected 0..{operation.n_outputs - 1}, found {unit}")


def check_values(name: str, values: NDArray[np.generic], axes: int) -> Doubles:
    """Check an array of real, finite numbers and return it in float64.

    Parameters
    ----------
    name : name of the array in the message
    values : array with `axes` axes

    Raises
    ------
    TypeError : not a NumPy array of real numbers
    ValueError : another number of axes, NaN or inf
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise TypeError(
            f"{name}: expected a NumPy array of real numbers, found {getattr(values, 'dtype', type(values))}"
        )
    if values.ndim != axes:
        raise ValueError(f"{name}: expected {axes} axes, found shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: expected finite values, found NaN or inf")
    return values.astype(np.float64)


def check_integers(name: str, values: NDArray[np.generic], length: int | None = None) -> NDArray[np.int64]:
    """Check a vector of integers and return it as int64.

    Parameters
    ----------
    name : name of the array in the message
    values : (length,) integer
    length : None for any
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a NumPy array of integers, found {getattr(values, 'dtype', type(values))}")
    if values.ndim != 1 or length not in (None, len(values)):
        wanted = "any" if length is None else length
        raise ValueError(f"{name}: expected shape ({wanted},), found {values.shape}")
    if values.dtype.kind == "u" and values.size and values.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name}: expected at most {np.iinfo(np.int64).max}, the largest int64, found {values.max()}")
    return values.astype(np.int64)
