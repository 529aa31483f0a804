"""Whether two stages hold the same probing images in the same order."""

import numpy as np

from storage.stages import FinishedStage


def check_same_ids(one: FinishedStage, other: FinishedStage) -> None:
    """Raise ValueError unless two stages hold the same samples in the same order; names the first difference."""
    left, right = one.read("sample_id"), other.read("sample_id")
    if len(left) != len(right):
        raise ValueError(f"{other.path}: expected the {len(left)} samples of {one.path}, found {len(right)}")
    differs = np.flatnonzero(left != right)
    if differs.size:
        at = int(differs[0])
        raise ValueError(
            f"{other.path}: expected sample {left[at]} of {one.path} at position {at}, found sample {right[at]}"
        )
