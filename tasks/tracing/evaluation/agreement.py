"""Class agreement and cardinality of the most influential examples."""

import numpy as np
from numpy.typing import NDArray


def class_agreement(example_classes: NDArray[np.integer], query_classes: NDArray[np.integer]) -> float:
    """Return the share of influential examples that have their query's class.

    Parameters
    ----------
    example_classes : (Q, k) integer, labels of each query's k most influential examples
    query_classes : (Q,) integer, the classes predicted for the queries

    Returns
    -------
    0 to 1, the mean over queries and ranks (class agreement @k)
    """
    _check_table("example_classes", example_classes)
    if not isinstance(query_classes, np.ndarray) or query_classes.shape != (len(example_classes),):
        raise ValueError(
            f"query_classes: expected shape ({len(example_classes)},), one per query, found {np.shape(query_classes)}"
        )
    return float((example_classes == query_classes[:, None]).mean())


def cardinality(ids: NDArray[np.integer]) -> float:
    """Return the number of distinct examples in the top-k of all queries, as a share of Q k.

    Parameters
    ----------
    ids : (Q, k) integer

    Returns
    -------
    1 / (Q k) .. 1; low where the same few examples are influential for all queries
    """
    _check_table("ids", ids)
    return len(np.unique(ids)) / ids.size


def _check_table(name: str, table: NDArray[np.integer]) -> None:
    """Check a table of integers with a row per query."""
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "iu" or table.ndim != 2 or not table.size:
        raise ValueError(f"{name}: expected integers of shape (Q, k), both at least 1, found {np.shape(table)}")
