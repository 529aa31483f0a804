"""What evaluations measure of a class, by name, and the order of images for null distances."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ALPHAS = {"0": 0.0, "05": 0.5, "1": 1.0}
MEASURES = (
    *(f"{kind}_{name}" for kind in ("distance", "null", "self") for name in ALPHAS),
    *("rank_reference", "rank", "n_rows", "n_val", "error_val", "fidelity"),
    *("accuracy", "accuracy_top5", "agreement", "accuracy_plain", "accuracy_plain_top5"),
)


def permuted_images(n: int, positions: int, seed: Sequence[int]) -> NDArray[np.int64]:
    """Return an order of rows that moves every image as a whole to another place."""
    cycle = np.random.default_rng(list(seed)).permutation(n)
    order = np.empty(n, np.int64)
    order[cycle] = np.roll(cycle, 1)
    return (order[:, None] * positions + np.arange(positions)).ravel().astype(np.int64)
