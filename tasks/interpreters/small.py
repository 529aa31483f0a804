"""Factorisation of a small matrix by scikit-learn's coordinate descent, which is fast where overheads decide."""

import warnings
from collections.abc import Sequence
from operator import index

import numpy as np
import torch
from torch import Tensor

from tasks.interpreters.rows import Rows

LARGEST_SEED = 2**32 - 1  # of scikit-learn's generator


def fit_small(rows: Rows, rank: int, seed: int | Sequence[int]) -> tuple[Tensor, Tensor, int] | None:
    """Factorise a small matrix from its NNDSVDa start, with the defaults of scikit-learn's `NMF`.

    Parameters
    ----------
    rows : (n, d) matrix, read whole; chunks that are views are not copied
    rank : number of components, < min(n, d)
    seed : of the start's randomised SVD

    Returns
    -------
    codes (rank, n), components (rank, d), both >= 0, dtype of the chunks; number of iterations; None where
    scikit-learn's start does not exist

    Notes
    -----
    A local optimum decides the error of a small matrix. The same start and the same solver reach the same optimum.
    """
    from sklearn import config_context
    from sklearn.decomposition import non_negative_factorization
    from sklearn.exceptions import ConvergenceWarning

    matrix = rows.read(slice(None)).cpu().numpy()
    checked = config_context(assume_finite=True, skip_parameter_validation=True)  # checks cost as much as a tiny fit
    # The SVD of a matrix with few values different from 0 makes scikit-learn's start divide 0 by 0.
    with warnings.catch_warnings(), checked, np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore", ConvergenceWarning)  # 200 iterations are the method's own limit
        codes, components, iterations = non_negative_factorization(
            matrix, n_components=rank, init="nndsvda", random_state=_random_state(seed)
        )
    if not (np.isfinite(codes).all() and np.isfinite(components).all()):
        return None
    on_device = torch.from_numpy(codes.T.copy()).to(rows.device), torch.from_numpy(components).to(rows.device)
    return *on_device, int(iterations)


def _random_state(seed: int | Sequence[int]) -> int:
    """Return a small integer as it is, as a user of scikit-learn would give it, and a hash of any other seed."""
    if isinstance(seed, int | np.integer) and 0 <= index(seed) <= LARGEST_SEED:
        return index(seed)
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
