"""Non-negative matrix factorisation of a matrix that is read in chunks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index

import numpy as np
import torch
from torch import Tensor

from tasks.interpreters.hals import measure, refine
from tasks.interpreters.rows import Matrix, Rows, open_rows
from tasks.interpreters.starts import start_from_rows, start_from_svd

SMALL = 1_000_000  # entries below which the local optimum decides, so that several starts compete
N_RANDOM = 2  # random starts there
Factors = tuple[Tensor, Tensor, int]  # codes (r, n), components (r, d), readings
Start = Callable[[Rows, int, np.random.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class NMF:
    """A factorisation `a ~ codes @ components`.

    Parameters
    ----------
    components : (r, d) >= 0, rows of unit length (or zero), by falling share of the model
    codes : (n, r) >= 0
    relative_error : ||a - codes components||_F / ||a||_F, 0 for a = 0
    clamped : number of negative entries of `a`, read as 0
    iterations : readings of the matrix by the start that won
    """

    components: Matrix
    codes: Matrix
    relative_error: float
    clamped: int
    iterations: int


def fit_nmf(a: Matrix, rank: int, *, seed: int | Sequence[int] = 0) -> NMF:
    """Factorise a non-negative matrix.

    Parameters
    ----------
    a : (n, d) numpy or torch, any float width, finite; negatives are read as 0 and counted
    rank : number of components asked for, >= 1; r = min(rank, n, d) are fitted
    seed : of the starts; same seed, same bytes

    Returns
    -------
    NMF, of the kind and device of `a`, float64 for float64 and else float32

    Notes
    -----
    Beyond `a` it holds at most four times the codes and, where `a` must be converted, a third of `a`.
    """
    if index(rank) < 1:
        raise ValueError(f"rank: expected at least 1, got {rank}")
    rows = open_rows(a, clamp=True)
    if rows.n == 0:
        raise ValueError(f"expected a matrix with at least one row, got shape {tuple(a.shape)}")
    r = min(index(rank), rows.n, rows.d)
    if rows.norm == 0.0:
        zeros = partial(torch.zeros, dtype=rows.dtype, device=rows.device)
        return NMF(rows.restore(zeros(r, rows.d)), rows.restore(zeros(rows.n, r)), 0.0, rows.clamped, 0)
    rng = np.random.default_rng(seed)
    if r == min(rows.n, rows.d):
        factors = _exact(rows)
    elif rows.n * rows.d < SMALL:
        factors = _best_of(rows, r, rng)
    else:
        factors = _single(rows, r, rng)
    return _finish(rows, *factors)


def _exact(rows: Rows) -> Factors:
    """Return the matrix times the identity, which no other factorisation of full rank can beat."""
    eye = torch.eye(min(rows.n, rows.d), dtype=rows.dtype, device=rows.device)
    if rows.n < rows.d:
        return eye, torch.cat([block.clone() for _, block in rows.chunks()]), 0
    codes = torch.empty(rows.d, rows.n, dtype=rows.dtype, device=rows.device)
    for part, block in rows.chunks():
        codes[:, part] = block.T
    return codes, eye, 0


def _single(rows: Rows, r: int, rng: np.random.Generator) -> Factors:
    """Fit from the singular vectors, several sweeps per reading because readings are dear."""
    codes, components = start_from_svd(rows, r, rng, fill=True)
    _, iterations = refine(rows, codes, components, sweeps=3, limit=200, gain=1e-3)
    return codes, components, iterations


def _best_of(rows: Rows, r: int, rng: np.random.Generator) -> Factors:
    """Fit from several starts, each to convergence unless it cannot win; holds the best and the current."""
    # The first start and one sweep per reading follow scikit-learn's path, and go on beyond its end.
    starts: list[tuple[Start, int]] = [
        (partial(start_from_svd, fill=True), 1),
        (partial(start_from_svd, fill=False), 2),
    ]
    best, least = None, 0.0
    for start, sweeps in [*starts, *[(start_from_rows, 2)] * N_RANDOM]:
        codes, components = start(rows, r, rng)
        error, iterations = refine(rows, codes, components, sweeps=sweeps, limit=500, gain=1e-3, rival=least)
        if best is None or error < least:
            best, least = (codes, components, iterations), error
    assert best is not None
    return best


def _finish(rows: Rows, codes: Tensor, components: Tensor, iterations: int) -> NMF:
    """Bring components to unit length and falling share, and measure the error of the pair as returned."""
    length = torch.linalg.vector_norm(components, dim=1, dtype=torch.float64)
    size = torch.linalg.vector_norm(codes, dim=1, dtype=torch.float64)
    order = torch.argsort(length * size, descending=True, stable=True)
    components /= torch.where(length > 0, length, 1.0)[:, None].to(components)
    codes *= length[:, None].to(codes)
    components, ordered = components[order], torch.empty(rows.n, len(order), dtype=codes.dtype, device=codes.device)
    for t, source in enumerate(order.tolist()):
        ordered[:, t] = codes[source]
    error = measure(rows, ordered.T, components)
    ordered /= rows.scale
    return NMF(rows.restore(components), rows.restore(ordered), error, rows.clamped, iterations)
