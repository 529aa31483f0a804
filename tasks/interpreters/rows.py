"""A checked (n, d) matrix that is read in chunks of rows and never copied whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Matrix: TypeAlias = NDArray[Any] | Tensor  # Any: floats of every width

CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}  # about a core's share of the cache; large enough to fill a GPU
LEAST_BYTES = 64 << 10  # smaller chunks cost more time than their memory is worth
SHARE = 16  # a chunk is at most 1 / SHARE of the matrix: several copies of a chunk exist at a time


@dataclass(frozen=True)
class Rows:
    """A finite matrix that is read as `scale * max(a, 0)`, or as `scale * a` where negatives stay.

    Parameters
    ----------
    data : (n, d) numpy or torch, never changed
    dtype : of the chunks: float64 for float64 and wide integers, else float32
    clamp : negatives are read as 0
    clamped : number of negative entries, 0 where they stay
    scale : power of two that brings extreme magnitudes near 1, so that squares stay in range
    mean : of the entries as read
    norm : Frobenius norm of the matrix as read
    """

    data: Matrix
    dtype: torch.dtype
    clamp: bool = False
    clamped: int = 0
    scale: float = 1.0
    mean: float = 0.0
    norm: float = 0.0

    @property
    def n(self) -> int:
        """Return the number of rows."""
        return int(self.data.shape[0])

    @property
    def d(self) -> int:
        """Return the number of columns."""
        return int(self.data.shape[1])

    @property
    def device(self) -> torch.device:
        """Return the device of the chunks."""
        return self.data.device if isinstance(self.data, Tensor) else torch.device("cpu")

    def chunks(self, *, whole: bool = False, dtype: torch.dtype | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, (c, d) chunk) in order; `whole` allows one large chunk where chunks are views."""
        limit = CHUNK_BYTES.get(self.device.type, CHUNK_BYTES["cpu"])
        if not (whole and self._direct()):
            limit = min(limit, max(LEAST_BYTES, self.n * self.d * self._itemsize() // SHARE))
        size = max(1, limit // (self.d * self.dtype.itemsize))
        for start in range(0, self.n, size):
            part = slice(start, min(start + size, self.n))
            yield part, self.read(part, dtype)

    def read(self, index: slice | NDArray[np.int64], dtype: torch.dtype | None = None) -> Tensor:
        """Return the rows at `index` as they are read; a view where no conversion is needed."""
        if isinstance(self.data, Tensor) and not isinstance(index, slice):
            part: Matrix = self.data[torch.from_numpy(index).to(self.device)]
        else:
            part = self.data[index]
        block = _tensor(part, dtype or self.dtype)
        if self.clamp:
            block = block.clamp(min=0)
        return block * self.scale if self.scale != 1.0 else block

    def sample(self, rng: np.random.Generator, m: int) -> "Rows":
        """Return `m` random rows as a new matrix in memory."""
        chosen = np.sort(rng.choice(self.n, m, replace=False))
        sample = torch.empty(m, self.d, dtype=self.dtype, device=self.device)
        step = max(1, LEAST_BYTES // (self.d * self.dtype.itemsize))
        for start in range(0, m, step):
            sample[start : start + step] = self.read(chosen[start : start + step])
        return open_rows(sample, clamp=False)

    def restore(self, result: Tensor) -> Matrix:
        """Return `result` as the same kind of array as the data."""
        return result if isinstance(self.data, Tensor) else result.numpy()

    def _itemsize(self) -> int:
        return int(self.data.element_size() if isinstance(self.data, Tensor) else self.data.dtype.itemsize)

    def _direct(self) -> bool:
        """Return whether chunks are views of the data."""
        plain = self.data.is_contiguous() if isinstance(self.data, Tensor) else self.data.flags.c_contiguous
        return bool(plain) and self._itemsize() == self.dtype.itemsize and not self.clamp and self.scale == 1.0


def open_rows(a: Matrix, *, clamp: bool, name: str = "a") -> Rows:
    """Check a matrix in one pass over its chunks, and measure its scale, mean and norm.

    Parameters
    ----------
    a : (n, d) numpy or torch, any float or integer width
    clamp : count negatives and read them as 0
    name : name of the matrix in the messages

    Returns
    -------
    Rows; raises TypeError for other kinds of array, ValueError for a wrong shape, NaN or infinity
    """
    rows = Rows(a.detach() if isinstance(a, Tensor) else a, _work_dtype(a, name))
    if a.ndim != 2 or a.shape[1] == 0:
        raise ValueError(f"{name}: expected a matrix (n, d) with d >= 1, found shape {tuple(a.shape)}")
    low, high, total, squares, negative = 0.0, 0.0, 0.0, 0.0, 0
    for part, block in rows.chunks():
        smallest, largest = (float(x) for x in block.aminmax())
        if not (np.isfinite(smallest) and np.isfinite(largest)):
            raise ValueError(f"{name}: {_not_finite(block, part.start)}")
        low, high = min(low, smallest), max(high, largest)
    scale = _scale(max(high, 0.0 if clamp else -low), rows.dtype)
    rows = Rows(rows.data, rows.dtype, clamp and low < 0, scale=scale)
    for part, block in rows.chunks():
        if rows.clamp:
            negative += int((_tensor(rows.data[part], rows.dtype) < 0).sum())
        total += float(block.sum(dim=1).double().sum())
        squares += sum_of_squares(block)
    mean = total / max(1, rows.n * rows.d)
    return Rows(rows.data, rows.dtype, rows.clamp, negative, scale, mean, squares**0.5)


def sum_of_squares(block: Tensor) -> float:
    """Return the sum of squares of a chunk, in float64 over its rows, without a float64 copy of the chunk."""
    return float(torch.linalg.vector_norm(block, dim=1).double().square().sum())


def check_range(codes: Tensor) -> None:
    """Raise ValueError for codes (n, r) beyond the range of their dtype."""
    if not bool(torch.isfinite(codes).all()):
        raise ValueError(
            f"codes: expected values up to {torch.finfo(codes.dtype).max:.2g}, the largest {codes.dtype}, found larger "
            "ones; divide the matrix by a power of two, or give float64"
        )


def _work_dtype(a: object, name: str) -> torch.dtype:
    """Return float64 for data that float32 cannot hold exactly, else float32."""
    if isinstance(a, np.ndarray) and a.dtype.kind in "fiub" and not isinstance(a, np.ma.MaskedArray):
        return torch.float64 if a.dtype.itemsize >= (8 if a.dtype.kind == "f" else 4) else torch.float32
    if isinstance(a, Tensor) and not a.is_complex():
        wide = a.element_size() >= (8 if a.is_floating_point() else 4)
        return torch.float64 if wide else torch.float32
    kind = f"{type(a).__name__} of {a.dtype}" if isinstance(a, np.ndarray | Tensor) else type(a).__name__
    raise TypeError(f"{name}: expected a real numpy array or torch tensor, found {kind}")


def _tensor(part: Matrix, dtype: torch.dtype) -> Tensor:
    """Return a chunk as a tensor of `dtype`, a view if possible."""
    if isinstance(part, Tensor):
        return part.to(dtype)
    width = np.float64 if dtype == torch.float64 else np.float32
    # torch warns about read-only memory, so read-only chunks are copied
    return torch.from_numpy(np.require(part, width, ["C", "W"]))


def _scale(largest: float, dtype: torch.dtype) -> float:
    """Return 1 for ordinary magnitudes, else the power of two of `dtype` that brings the largest entry near 1."""
    if largest == 0.0 or 2.0**-20 < largest < 2.0**20:
        return 1.0
    most = 126 if dtype == torch.float32 else 1022  # beyond it the factor, or 1 / factor, is not a normal number
    return float(2.0 ** min(max(-round(np.log2(largest)), -most), most))


def _not_finite(block: Tensor, first_row: int) -> str:
    """Return a message with the position of the first NaN or infinity."""
    row, column = (int(i) for i in (~torch.isfinite(block)).nonzero()[0])
    value = float(block[row, column])
    return f"expected finite values, found {value} at row {first_row + row}, column {column}; remove or repair that row"
