"""Checks of what a loop gives about a step, before the ledger has it."""

import contextlib
import math
import operator
from collections.abc import Sequence
from typing import SupportsFloat, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tasks.recording.programs import Row

Ids: TypeAlias = "NDArray[np.int64] | Sequence[int] | Tensor"

MOST = 2**63 - 1  # the largest int64


def given_row(step: int, examples: Ids, ghosts: Ids, *, label: int, epoch: int) -> Row:
    """Return the row of a step that is about to begin.

    Raises
    ------
    TypeError : ids that are not integers
    ValueError : no example; ids that are not in one dimension; a label or epoch that is not an integer
        within its range
    """
    batch, others = ids_of("examples", examples, least=1), ids_of("ghosts", ghosts)
    return Row(step, _integer("epoch", epoch, 0), _integer("label", label, -1), batch, others)


def ids_of(name: str, values: Ids, *, least: int = 0) -> NDArray[np.int64]:
    """Return ids as a new int64 array.

    Parameters
    ----------
    least : number of ids that there are at least, 0 or 1
    """
    try:
        found = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected integer ids in one dimension, found others: {error}") from error
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integer ids, found {found.dtype}")
    if found.ndim != 1:
        raise ValueError(f"{name}: expected ids in one dimension, found shape {found.shape}")
    if len(found) < least:
        raise ValueError(f"{name}: expected at least one id, found none")
    if found.dtype.kind == "u" and found.size and found.max() > MOST:
        raise ValueError(f"{name}: expected ids up to {MOST}, the largest int64, found {found.max()}")
    return np.array(found, np.int64)


def number_of(name: str, value: object) -> float:
    """Return a number, or a tensor or array of one number, as a float.

    Raises
    ------
    ValueError : it is neither
    """
    found = _one(value)
    if not isinstance(found, SupportsFloat) or (isinstance(found, Tensor | np.ndarray) and found.ndim):
        raise ValueError(f"{name}: expected a number or a tensor of one number, found {_shown(value)}")
    return float(found)


def _integer(name: str, value: object, least: int) -> int:
    """Return an integer, or a tensor or array of one, as an int."""
    found = _one(value)
    if isinstance(found, SupportsIndex) and not isinstance(found, bool):
        with contextlib.suppress(TypeError):
            if least <= (number := operator.index(found)) <= MOST:
                return number
    raise ValueError(f"{name}: expected an integer from {least} to {MOST}, found {_shown(value)}")


def _one(value: object) -> object:
    """Return the number of a tensor or array that has one, anything else as it is."""
    return value.item() if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1 else value


def _shown(value: object) -> str:
    """Return a value for a message, of a larger tensor or array its shape."""
    if isinstance(value, Tensor | np.ndarray) and value.ndim:
        return f"shape {tuple(value.shape)}"
    return repr(value.item() if isinstance(value, Tensor | np.ndarray | np.generic) else value)
