"""The random coreset, the baseline for every selector (Behzadi-Khormouji & Oramas, section 3)."""

import numpy as np

from tasks.coresets.selection import Floats, Seed, Selection, check_budget, check_rows, check_seed


def select_random(features: Floats, rho: float, *, seed: Seed = 0) -> Selection:
    """Keep a uniform draw without replacement: a prefix of one permutation, so that budgets nest.

    Parameters
    ----------
    features : (n, d) float, one class's pooled activations; only n matters
    rho : share to keep, 0 < rho <= 1; exactly max(1, round(rho n)) samples, half to even
    seed : a non-negative integer or a sequence of them, such as [run seed, class id, repeat]

    Returns
    -------
    Selection, `order` as in the permutation
    """
    n = len(check_rows(features))
    size = max(1, round(check_budget(rho) * n))
    rng = np.random.default_rng(check_seed(seed))
    return Selection.of(rng.permutation(n)[:size])
