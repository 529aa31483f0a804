"""The margin that measures retrained networks."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from tasks.tracing.checks import Doubles, check_integers, check_values


def margins(logits: NDArray[np.floating], classes: NDArray[np.integer]) -> Doubles:
    """Return the margin log p / (1 - p) of each row's class.

    Parameters
    ----------
    logits : (n, C) float, C at least 2
    classes : (n,) integer, 0..C-1

    Returns
    -------
    (n,) float64, finite for any probability: the class's logit minus the log of the others' summed exponentials
    """
    values = check_values("logits", logits, 2)
    chosen = check_integers("classes", classes, len(values))
    n_classes = values.shape[1]
    if n_classes < 2:
        raise ValueError(f"logits: expected at least 2 classes, found shape {values.shape}")
    if len(chosen) and (chosen.min() < 0 or chosen.max() >= n_classes):
        raise ValueError(f"classes: expected 0..{n_classes - 1}, found {chosen.min()}..{chosen.max()}")
    own = chosen[:, None] == np.arange(n_classes)
    others = logsumexp(np.where(own, -np.inf, values), axis=1)
    found: Doubles = values[own] - others
    return found
