"""The result of a selector, and the checks of its inputs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Positions = NDArray[np.int64]
Seed = int | Sequence[int]

BLOCK_VALUES = 1 << 16  # of rows taken at a time: what is computed from them stays in the processor's cache
BLOCK_ROWS = 16  # at least


@dataclass(frozen=True, eq=False)
class Selection:
    """The samples of one class that a selector keeps.

    Attributes
    ----------
    kept : (m,) int64, positions 0..n-1, ascending, unique
    order : (m,) int64, the same positions in the order of choice
    info : metrics that a step should log, by name
    """

    kept: Positions
    order: Positions
    info: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, order: NDArray[np.integer], info: Mapping[str, float] | None = None) -> Self:
        """Build a selection from positions in the order of choice.

        Parameters
        ----------
        order : (m,) integer, unique positions
        info : metrics that a step should log, by name

        Returns
        -------
        Selection; its arrays do not share memory with `order`
        """
        chosen = np.array(order, dtype=np.int64)
        return cls(kept=np.sort(chosen), order=chosen, info=dict(info or {}))


def check_features(features: Floats) -> NDArray[np.float64]:
    """Check one class's features and return them in float64.

    Parameters
    ----------
    features : (n, d) of any real dtype, n and d at least 1, finite

    Returns
    -------
    (n, d) float64; the input itself if it is float64, so callers must not change it
    """
    return check_rows(features).astype(np.float64, copy=False)


def check_rows(features: Floats) -> Floats:
    """Check one class's features as `check_features` does; return them as they are, without a copy."""
    if not isinstance(features, np.ndarray) or isinstance(features, np.ma.MaskedArray):
        raise TypeError(f"features: expected a NumPy array (n, d), found {type(features).__name__}")
    if features.dtype.kind not in "fiu":
        raise TypeError(f"features: expected real numbers, found dtype {features.dtype}")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"features: expected shape (n, d) with n, d >= 1, found {features.shape}")
    bad = np.flatnonzero(np.concatenate([~np.isfinite(block).all(axis=1) for block in row_blocks(features)]))
    if bad.size:
        raise ValueError(
            f"features: expected finite values, found NaN or inf in {bad.size} of {len(features)} rows, "
            f"the first is row {bad[0]}"
        )
    return features


def row_blocks(values: Floats) -> Iterator[Floats]:
    """Yield the rows of a matrix in blocks of nearly equal height, each small enough for the processor's cache."""
    yield from np.array_split(values, -(-len(values) // max(BLOCK_ROWS, BLOCK_VALUES // values.shape[1])))


def check_budget(rho: float) -> float:
    """Check the share to keep, 0 < rho <= 1; return a Python float, which rounds half to even."""
    if isinstance(rho, str | bool | np.bool_):
        raise TypeError(f"rho: expected a number, found {rho!r}")
    try:
        share = float(rho)
    except (TypeError, ValueError):
        raise TypeError(f"rho: expected a number, found {rho!r}") from None
    if not 0 < share <= 1 or math.isnan(share):
        raise ValueError(f"rho: expected a share with 0 < rho <= 1, found {rho!r}")
    return share


def check_seed(seed: Seed) -> np.random.SeedSequence:
    """Check the seed of a draw, a non-negative integer or a sequence of them; return its sequence."""
    for part in np.ravel(np.asarray(seed, dtype=object)).tolist():  # as objects: 10^30 is an integer too
        if isinstance(part, bool) or not isinstance(part, int | np.integer):
            raise TypeError(f"seed: expected an integer or a sequence of integers, found {seed!r}")
        if part < 0:
            raise ValueError(f"seed: expected non-negative integers, found {seed!r}")
    return np.random.SeedSequence(seed)


def check_count(name: str, count: int) -> int:
    """Check a parameter that counts samples: an integer of at least 1; return it."""
    if isinstance(count, bool) or not isinstance(count, int | np.integer):
        raise TypeError(f"{name}: expected an integer, found {count!r}")
    if count < 1:
        raise ValueError(f"{name}: expected at least 1, found {count}")
    return int(count)
