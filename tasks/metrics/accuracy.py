"""The accuracy of logits, and the agreement of two sets of logits."""

import numpy as np

from tasks.metrics.checks import Floats, Integers, check_labels, check_matrix


def top_k_accuracy(logits: Floats, labels: Integers, k: int = 1) -> float:
    """Measure the share of rows with their label among the k largest logits.

    Parameters
    ----------
    logits : (n, C) float
    labels : (n,) integer, 0..C-1
    k : at least 1; at C or more every row counts as right

    Returns
    -------
    share in [0, 1]; among equal logits the lower class comes first, as in argmax
    """
    check_matrix("logits", logits)
    check_labels(labels, *logits.shape)
    if k < 1:
        raise ValueError(f"k: expected at least 1, found {k}")
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    ranks = (logits > own).sum(axis=1) + ((logits == own) & earlier).sum(axis=1)
    return float((ranks < k).mean())


def agreement(logits: Floats, others: Floats) -> float:
    """Measure the share of rows for which both sets of logits predict the same class.

    Parameters
    ----------
    logits, others : (n, C) float

    Returns
    -------
    share in [0, 1]
    """
    check_matrix("logits", logits)
    check_matrix("others", others)
    if logits.shape != others.shape:
        raise ValueError(f"logits, others: expected one shape, found {logits.shape} and {others.shape}")
    return float((logits.argmax(axis=1) == others.argmax(axis=1)).mean())
