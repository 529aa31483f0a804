"""What an interpreter hands back for one class: arrays to store and numbers to log."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Features:
    """Relevant features of one class.

    Parameters
    ----------
    arrays : what must be stored, by name
    numbers : what a step should log, by name
    """

    arrays: Mapping[str, NDArray[np.float32]]
    numbers: Mapping[str, float]
