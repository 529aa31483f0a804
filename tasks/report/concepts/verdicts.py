"""How the concepts page words what held, and what counts as chance."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tasks.figures.views import fixed
from tasks.report.findings import Finding
from tasks.report.formats import NBSP

State = Literal["held", "did not hold", "cannot be said"]


@dataclass(frozen=True)
class Observation:
    """An observation of the paper: its name, whether it held here, and the numbers."""

    name: str
    state: State
    text: str

    @property
    def finding(self) -> Finding:
        """The observation as a finding: the verdict first."""
        return Finding(self.name, f"{self.state[0].upper()}{self.state[1:]}. {self.text}")


def difference(before: tuple[float, float], after: tuple[float, float]) -> tuple[State, str]:
    """Say whether the second of two shares is larger than chance allows.

    Parameters
    ----------
    before, after : part and whole, whole > 0

    Returns
    -------
    state, and the chance in words: two standard errors of the difference of two independent shares
    """
    (a, n), (b, m) = before, after
    pooled = (a + b) / (n + m)
    limit = 2 * float(np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)))
    gap = b / m - a / n
    words = f"; chance is {fixed(100 * limit, 1)}{NBSP}points"
    if abs(gap) <= limit:
        return "cannot be said", words
    return ("held" if gap > 0 else "did not hold"), words
