"""The size of an archive of every update, before the first step."""

import math
from collections.abc import Iterable, Sequence


def dense_bytes(shapes: Iterable[Sequence[int]], steps: int, *, itemsize: int = 4) -> int:
    """Return the bytes of the updates of `steps` steps, without ledger and checkpoints.

    Parameters
    ----------
    shapes : shapes of the recorded parameters
    itemsize : bytes of a value
    """
    return sum(math.prod(shape) for shape in shapes) * steps * itemsize


def check_budget(needed: int, budget: float) -> None:
    """Raise ValueError unless an archive fits its budget.

    Parameters
    ----------
    needed : bytes, from `dense_bytes`
    budget : largest number of bytes

    Raises
    ------
    ValueError : the archive does not fit; the message names remedies
    """
    if needed > budget:
        raise ValueError(
            f"archive_budget: expected at least {needed / 1e9:.3g} GB for every update, found {budget / 1e9:.3g} GB; "
            "raise it, or narrow record.layers or record.steps"
        )
