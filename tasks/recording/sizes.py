"""What an archive of every update takes, told before the first step."""

import math
from collections.abc import Iterable, Sequence


def dense_bytes(shapes: Iterable[Sequence[int]], steps: int, *, itemsize: int = 4) -> int:
    """Return the bytes that the updates of `steps` steps take, without ledger and checkpoints.

    Parameters
    ----------
    shapes : of the recorded parameters
    itemsize : bytes of a value
    """
    return sum(math.prod(shape) for shape in shapes) * steps * itemsize


def check_budget(needed: int, budget: float) -> None:
    """Raise unless an archive fits.

    Parameters
    ----------
    needed : bytes, from `dense_bytes`
    budget : bytes

    Raises
    ------
    ValueError : it does not; says what would help
    """
    if needed > budget:
        raise ValueError(
            f"archive_budget: {needed / 1e9:.3g} GB needed for every update, {budget / 1e9:.3g} GB allowed; "
            "raise it, or narrow record.layers or record.steps"
        )
