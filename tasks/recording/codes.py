"""Codes of an update: 16 or about 7 bits a value with scales, or the numbers themselves.

An update of the code `int8` is kept in multiples of a step per output row, in proportion to the row's norm, compressed.

An update of the code `float16` is kept as int16 with a scale per output row, or as float16 with one scale, whichever
rounds less.

The stated error is that of a whole update: the norm of the rounding relative to the norm of the update. The cosine of
an update and a query in general position, Eq. 7, changes by at most as much.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from storage.updates.planes import folded, pack_planes, unfolded, unpack_planes
from storage.updates.tables import FACTORS, FLOAT16, INT8, INT16, LEVELS, PLAIN
from tasks.recording.halves import HALVED, halves_bytes

EXACT = "exact"  # every update bit for bit, as in a dense archive
# Stated errors by code. float16 rounds by at most 2^-11 = 4.9e-4 of each value. An int8 update with a larger error is
# kept in 16 bits. Factors: rounding of the optimiser's arithmetic; the weights' own rounding may add to it.
ERRORS = {FACTORS: 1e-5, FLOAT16: 5e-4, INT8: 1e-2, EXACT: 0.0}
ROUNDED = ("float32", "float64")  # dtypes of weights that are rounded; narrower ones are kept bit for bit
INTEGERS = {INT8: torch.int8, INT16: torch.int16}
# Rows of an int8 update: among fewer outputs the rounding of a row does not average out in a cosine.
FEWEST_ROWS = 16
RANGE = 1e-30, 1e30  # largest values of an update that is rounded
LEAST_SCALE = 1e-36
SQUARES = 1e-15, 1e15  # range of norms with squares well inside float32
FINE = 2e-4  # largest possible error of an int16 update that float16 would hardly improve
AIM = 0.97e-2  # error of an update in levels
LEVEL_BITS = 7  # of a value in levels, next to the scales; normal values take log2(sqrt(2 pi e / 12) / AIM) = 6.94
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
        INT8: 4 * shape[0] + math.ceil(size * LEVEL_BITS / 8),
        FLOAT16: 4 * shape[0] + 2 * size,
        PLAIN: itemsize * size,
        EXACT: itemsize * size,
    }[code]


def factor_bytes(numbers: int, itemsize: int, tolerance: float) -> int:
    """Return the bytes of the factors of a step, about where they are compressed."""
    return halves_bytes(numbers) if tolerance >= HALVED else numbers * itemsize


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
        sizes[FACTORS] = factor_bytes(numbers, itemsize, tolerance)
    within = [code for code in sizes if ERRORS[code] <= tolerance]
    return min(within, key=sizes.__getitem__)


@dataclass(frozen=True)
class Encoded:
    """An update in its form.

    Attributes
    ----------
    parts : values of the record, one after the other, and the types that it has them in
    norm : of the update before rounding
    """

    form: str
    parts: list[tuple[Tensor, torch.dtype]]
    norm: float

    @property
    def nbytes(self) -> int:
        """The bytes of the record."""
        return sum(values.numel() * dtype.itemsize for values, dtype in self.parts)

    def fill(self, room: Tensor) -> None:
        """Write the record into memory (nbytes,) uint8."""
        start = 0
        for values, dtype in self.parts:
            stop = start + values.numel() * dtype.itemsize
            room[start:stop].view(dtype).view(values.shape).copy_(values)
            start = stop


def encode(update: Tensor, code: str) -> Encoded:
    """Return an update (*shape), the memory of which the record may take, in the form of a code.

    A better form is taken where an update exceeds the stated error, or is out of range or not finite.
    """
    rows = update.reshape(len(update), -1)
    largest = torch.maximum(rows.amax(dim=1), -rows.amin(dim=1)).double()  # vector_norm takes 20 times as long
    most = float(largest.max())
    size = _norm(rows)
    if code == EXACT or (most and not RANGE[0] <= most <= RANGE[1]):
        return Encoded(PLAIN, [(update, update.dtype)], size)
    if code == INT8 and size and (levels := _levels(rows, size)) is not None:
        return Encoded(LEVELS, levels, size)
    scales = (largest / torch.iinfo(torch.int16).max).float()
    scales.masked_fill_(scales < LEAST_SCALE, 0)  # a row of nothing, next to the largest
    if math.sqrt(rows.shape[1]) / 2 * float(torch.linalg.vector_norm(scales.double())) <= FINE * size:
        values = rows.mul_(_inverse(scales, rows.dtype)).round_()
        return Encoded(INT16, [(scales, scales.dtype), (values, torch.int16)], size)
    exponent = math.frexp(most)[1] - TOP - 1 if most else 0
    scale = math.ldexp(1.0, max(exponent, -126))  # a power of two: only the conversion rounds
    head = torch.zeros(HEAD // 8, dtype=torch.float64)
    head[0] = scale
    return Encoded(FLOAT16, [(head, head.dtype), (update.div_(scale), torch.float16)], size)


def decode(form: str, data: Tensor, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return the update (*shape) of a record.

    Parameters
    ----------
    data : (bytes,) uint8
    dtype : of the result; a plain record has its numbers in it
    """
    if form == PLAIN:
        return data.view(dtype).reshape(tuple(shape)).clone()
    if form == LEVELS:
        head, count = 4 * shape[0], math.prod(shape)
        levels = unfolded(unpack_planes(data[head:].numpy(), count)).reshape(shape[0], -1)
        return _widened(data[:head].view(torch.float32), torch.from_numpy(levels), dtype).reshape(tuple(shape))
    if form in INTEGERS:
        head = 4 * shape[0]
        values = data[head:].view(INTEGERS[form]).reshape(shape[0], -1)
        return _widened(data[:head].view(torch.float32), values, dtype).reshape(tuple(shape))
    scale = float(data[:HEAD].view(torch.float64)[0])
    return (data[HEAD:].view(torch.float16).to(dtype) * scale).reshape(tuple(shape))


def _levels(rows: Tensor, size: float) -> list[tuple[Tensor, torch.dtype]] | None:
    """Return steps (out,) float32 and packed multiples of them, None where the error would be larger than stated.

    Parameters
    ----------
    size : norm of all rows
    """
    norms = torch.linalg.vector_norm(rows.double(), dim=1)
    steps = (norms * (AIM * math.sqrt(12 / rows.shape[1]))).float()
    for _ in range(2):
        steps.masked_fill_(steps < LEAST_SCALE, 0)
        found = (rows * _inverse(steps, rows.dtype)).round_()
        if float(found.abs().max()) > torch.iinfo(torch.int16).max:
            return None
        values = found.to(torch.int16)
        error = _norm(rows - _widened(steps, values, rows.dtype)) / size
        if error <= ERRORS[INT8]:
            packed = torch.from_numpy(pack_planes(folded(values.reshape(-1).numpy())))
            return [(steps, steps.dtype), (packed, packed.dtype)]
        steps = steps * (AIM / error)
    return None


def _inverse(scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the inverse (out, 1) of scales (out,) in a type, 0 for a scale of 0."""
    return scales.double().reciprocal_().masked_fill_(scales <= 0, 0).to(dtype)[:, None]


def _norm(values: Tensor) -> float:
    """Return the Euclidean norm; in float64 where squares would leave the range of the dtype."""
    found = float(torch.linalg.vector_norm(values))
    inside = SQUARES[0] < found < SQUARES[1]
    return found if inside else float(torch.linalg.vector_norm(values, dtype=torch.float64))


def _widened(scales: Tensor, values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the rows (out, n) of scales and integers."""
    return values.to(dtype) * scales.to(dtype)[:, None]
