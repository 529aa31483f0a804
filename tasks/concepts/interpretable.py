"""Which neurons are interpretable: their best similarity exceeds a threshold tau, at any tau, and by calibration."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Longs = NDArray[np.int64]


class BestWords(NamedTuple):
    """The best word of each neuron, (K,) int64, the lowest index among equals, and its similarity, (K,) float64."""

    word: Longs
    similarity: NDArray[np.float64]


def best_words(similarity: Floats) -> BestWords:
    """Find the best word of each neuron.

    Parameters
    ----------
    similarity : (K, S) float

    Returns
    -------
    BestWords
    """
    check_similarities(similarity)
    word = similarity.argmax(axis=1).astype(np.int64)
    return BestWords(word, np.take_along_axis(similarity, word[:, None], axis=1)[:, 0].astype(np.float64))


def top_words(similarity: Floats, count: int) -> Longs:
    """Return (K, count) int64, each neuron's words by falling similarity, equal ones by lower index."""
    check_similarities(similarity)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count].astype(np.int64)


def interpretable(similarity: Floats, tau: float, dead: Bools) -> Bools:
    """Find the neurons with a word of similarity above tau.

    Parameters
    ----------
    similarity : (K, S) float
    tau : threshold of the detector
    dead : (K,) bool, never interpretable

    Returns
    -------
    (K,) bool
    """
    return (best_words(similarity).similarity > tau) & ~_check_dead(dead, len(similarity))


def tau_curve(best: Floats, taus: Sequence[float] | Floats, dead: Bools | None = None) -> Longs:
    """Count the interpretable neurons at each tau.

    Parameters
    ----------
    best : (K,) float, similarity of each neuron's best word
    taus : (T,) thresholds
    dead : (K,) bool, left out

    Returns
    -------
    (T,) int64
    """
    alive = best if dead is None else best[~_check_dead(dead, len(best))]
    return len(alive) - np.searchsorted(np.sort(alive), np.asarray(taus, dtype=np.float64), side="right").astype(
        np.int64
    )


def calibrated_tau(null_best: Floats, share: float = 0.99) -> float:
    """Return the tau that a share of the neurons of a null does not exceed.

    Parameters
    ----------
    null_best : (K,) float, best similarity of each neuron that is not dead, after its images were permuted
        (`nulls.permuted_activations`) or the label maps were shuffled
    share : 0 to 1

    Returns
    -------
    NumPy's linear quantile
    """
    if not len(null_best) or not 0 <= share <= 1:
        raise ValueError(f"calibration: expected neurons and a share 0 to 1, found {len(null_best)} and {share!r}")
    return float(np.quantile(np.asarray(null_best, dtype=np.float64), share))


def check_similarities(similarity: Floats) -> None:
    """Check a matrix (K, S) of finite numbers."""
    if similarity.ndim != 2 or 0 in similarity.shape or not np.isfinite(similarity).all():
        raise ValueError(f"similarity: expected finite values (K, S), found shape {similarity.shape}, or NaN or inf")


def _check_dead(dead: Bools, n_neurons: int) -> Bools:
    """Check one truth value per neuron."""
    if dead.shape != (n_neurons,) or dead.dtype != np.bool_:
        raise ValueError(f"dead: expected ({n_neurons},) bool, found {dead.dtype} {dead.shape}")
    return dead
