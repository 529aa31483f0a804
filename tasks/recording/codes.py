"""Codes of an update: 16 or 8 bits a value with scales, or the numbers themselves.

An update of the code `float16` is kept as int16 with a scale per output row, or as float16 with one scale, whichever
rounds less.

The stated error is that of a whole update: the norm of the rounding relative to the norm of the update. The cosine of
an update and a query in general position, Eq. 7, changes by at most as much.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from storage.updates.tables import FACTORS, FLOAT16, INT8, INT16, PLAIN

EXACT = "exact"  # every update bit for bit, as in a dense archive
# Stated errors by code. float16 rounds by at most 2^-11 = 4.9e-4 of each value. An int8 update with a larger error is
# kept in 16 bits. Factors: rounding of the optimiser's arithmetic; the weights' own rounding may add to it.
ERRORS = {FACTORS: 1e-5, FLOAT16: 5e-4, INT8: 1e-2, EXACT: 0.0}
ROUNDED = ("float32", "float64")  # dtypes of weights that are rounded; narrower ones are kept bit for bit
INTEGERS = {INT8: torch.int8, INT16: torch.int16}
# Rows of an int8 update: among fewer outputs the rounding of a row does not average out in a cosine.
FEWEST_ROWS = 16
FINE = 2e-4  # error of an int16 update that float16 would hardly improve
HEAD = 16  # bytes before the values of a float16 record: its scale
TOP = 14  # the largest value of a float16 record is below 2^15


def code_bytes(code: str, shape: Sequence[int], itemsize: int) -> int:
    """Return the bytes of an update in a code of updates.

    Parameters
    ----------
    shape : of the weight
    itemsize : bytes of a weight
    """
    size = math.prod(shape)
    return {
        INT8: 4 * shape[0] + size,
        FLOAT16: 4 * shape[0] + 2 * size,
        PLAIN: itemsize * size,
        EXACT: itemsize * size,
    }[code]


def smallest_code(tolerance: float, shape: Sequence[int], itemsize: int, numbers: int) -> str:
    """Return the code of the fewest bytes among those with a stated error within the tolerance.

    Parameters
    ----------
    tolerance : largest cosine error
    shape, itemsize : of the weight
    numbers : numbers in the factors of a step; 0 where a layer does not have factors
    """
    codes = (EXACT, FLOAT16, INT8) if shape[0] >= FEWEST_ROWS else (EXACT, FLOAT16)
    sizes = {code: code_bytes(code, shape, itemsize) for code in codes}
    if 0 < numbers < math.prod(shape):
        sizes[FACTORS] = numbers * itemsize
    within = [code for code in sizes if ERRORS[code] <= tolerance]
    return min(within, key=sizes.__getitem__)


def encode(update: Tensor, code: str) -> tuple[str, list[Tensor]]:
    """Return the form of an update (*shape), and the parts of its record, one after the other.

    The form is that of `code`, or a better one where an update exceeds the stated error or is not finite.
    """
    largest = float(update.abs().max()) if update.numel() else 0.0
    if not math.isfinite(largest):
        return PLAIN, [update]
    size = float(torch.linalg.vector_norm(update, dtype=torch.float64))
    if code == INT8:
        parts, error = _integers(update, INT8)
        if error <= ERRORS[INT8] * size:
            return INT8, parts
    parts, error = _integers(update, INT16)
    if error <= FINE * size:
        return INT16, parts
    exponent = math.frexp(largest)[1] - TOP - 1 if largest else 0
    scale = math.ldexp(1.0, max(exponent, -126))  # a power of two: only the conversion rounds
    head = torch.zeros(HEAD // 8, dtype=torch.float64)
    head[0] = scale
    return FLOAT16, [head, (update / scale).half()]


def decode(form: str, data: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return the update (*shape) of a record.

    Parameters
    ----------
    data : (bytes,) uint8
    dtype : of the result; a plain record has its numbers in it
    """
    if form == PLAIN:
        return data.view(dtype).reshape(tuple(shape)).clone()
    if form in INTEGERS:
        head = 4 * shape[0]
        values = data[head:].view(INTEGERS[form]).reshape(tuple(shape))
        return _widened(data[:head].view(torch.float32), values, dtype)
    scale = float(data[:HEAD].view(torch.float64)[0])
    return (data[HEAD:].view(torch.float16).to(dtype) * scale).reshape(tuple(shape))


def _integers(update: Tensor, form: str) -> tuple[list[Tensor], float]:
    """Return scales of the rows (out,) float32 and integers (*shape), and the norm of the rounding."""
    most = torch.iinfo(INTEGERS[form]).max
    rows = update.reshape(len(update), -1)
    scales = (rows.abs().amax(dim=1).double() / most).float()
    safe = torch.where(scales > 0, scales, 1.0).to(update.dtype)
    values = (rows / safe[:, None]).round_().clamp_(-most, most).to(INTEGERS[form])
    error = torch.linalg.vector_norm(rows - _widened(scales, values, update.dtype), dtype=torch.float64)
    return [scales, values], float(error)


def _widened(scales: Tensor, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the update (*shape) of scales and integers."""
    return values.to(dtype) * scales.to(dtype).reshape(-1, *[1] * (values.ndim - 1))
