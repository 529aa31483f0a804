"""What a scorer is: a function that scores every training example for every query of a trained network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.digits import Subject

Doubles = NDArray[np.float64]
Scorer = Callable[[], Doubles]  # gives (Q, N), larger for examples that help the query


@dataclass(frozen=True)
class Method:
    """A peer's method.

    Attributes
    ----------
    scores : of a subject, (Q, N), larger for helpful examples; None for methods that do not see queries one by one
    suspicion : of a subject, (N,), larger for labels that are probably wrong; None takes minus the mean score
    """

    peer: str
    name: str
    scores: Callable[[Subject], Doubles] | None
    suspicion: Callable[[Subject], Doubles] | None = None

    @property
    def title(self) -> str:
        """Return the name of the row."""
        return f"{self.peer}: {self.name}"
