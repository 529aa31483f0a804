"""The result of an interpreter for one class: arrays to store and metrics to log."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Features:
    """Relevant features of one class.

    Parameters
    ----------
    arrays : arrays to store, by name
    numbers : metrics that a step should log, by name
    """

    arrays: Mapping[str, NDArray[np.float32]]
    numbers: Mapping[str, float]
