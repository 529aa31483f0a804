"""Non-negative matrix factorisation of a matrix that is read in chunks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, index
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks.interpreters.hals import iterate, measure, refine
from tasks.interpreters.rows import Matrix, Rows, open_rows
from tasks.interpreters.starts import start_from_rows, start_from_svd

SMALL = 1_000_000  # entries below which the local optimum decides, so that several starts compete
PART = 8  # larger ones are first fitted on one row in so many,
MIN_SAMPLE = 40  # if that leaves so many rows per component;
CLOSE = 0.1  # relative error up to which the sample's optimum is taken as it comes
UNLIKE = 1.02  # a larger error that exceeds the sample's by more tells that the sample was not like the rest
Start = Callable[[Rows, int, np.random.Generator], tuple[Tensor, Tensor]]
SVD_FILLED: Start = partial(start_from_svd, fill=True)
SVD_BARE: Start = partial(start_from_svd, fill=False)
# With one sweep per reading the first start follows scikit-learn's path, and goes on beyond its end.
SMALL_STARTS: list[tuple[Start, int]] = [(SVD_FILLED, 1), (SVD_FILLED, 5), (SVD_BARE, 5), (start_from_rows, 5)]


class Factors(NamedTuple):
    """Codes (r, n) and components (r, d) of a start, their relative error, readings of the matrix."""

    codes: Tensor
    components: Tensor
    error: float
    iterations: int


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
    Beyond `a` it holds at most four times the codes, an eighth of the rows and a few chunks (at most a sixteenth each).
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
        factors = _best_of(rows, r, rng, SMALL_STARTS, limit=500)
    else:
        factors = _fit_large(rows, r, rng)
    return _finish(rows, factors.codes, factors.components, factors.iterations)


def _exact(rows: Rows) -> Factors:
    """Return the matrix times the identity, which no other factorisation of full rank can beat."""
    eye = torch.eye(min(rows.n, rows.d), dtype=rows.dtype, device=rows.device)
    if rows.n < rows.d:
        return Factors(eye, torch.cat([block.clone() for _, block in rows.chunks()]), 0.0, 0)
    codes = torch.empty(rows.d, rows.n, dtype=rows.dtype, device=rows.device)
    for part, block in rows.chunks():
        codes[:, part] = block.T
    return Factors(codes, eye, 0.0, 0)


def _fit_large(rows: Rows, r: int, rng: np.random.Generator) -> Factors:
    """Fit with several sweeps per reading, because readings are dear.

    Where a part of the rows is plenty, the starts compete on it and all rows go on from the winner's components.
    """
    by_error = attrgetter("error")
    sweeps = 5 if 4 * r <= rows.d else 3  # a sweep costs about r / 2d of a reading
    m = rows.n // PART
    sample = rows.sample(rng, m) if m * rows.d >= SMALL and m >= MIN_SAMPLE * r else None
    if sample is None or sample.norm == 0.0:
        return _best_of(rows, r, rng, [(SVD_FILLED, 1), (SVD_BARE, sweeps)], limit=200)
    part = _best_of(sample, r, rng, [(SVD_FILLED, sweeps)], limit=100)
    if part.error > CLOSE:
        others = [(start, sweeps) for start in (SVD_BARE, start_from_rows, start_from_rows)]
        part = min(part, _best_of(sample, r, rng, others, limit=100, rival=part.error), key=by_error)
    del sample  # an eighth of the matrix
    codes = torch.zeros(r, rows.n, dtype=rows.dtype, device=rows.device)
    iterate(rows, codes, part.components, 2 * sweeps)
    error, iterations = refine(rows, (codes, part.components), sweeps=sweeps, limit=20, behind=part.iterations)
    fitted = Factors(codes, part.components, error, iterations)
    if error <= max(CLOSE, UNLIKE * part.error):
        return fitted
    # Few rows outweigh the rest, and the sample missed them.
    whole = _best_of(rows, r, rng, [(SVD_FILLED, sweeps)], limit=200, rival=error)
    return min(fitted, whole, key=by_error)


def _best_of(
    rows: Rows, r: int, rng: np.random.Generator, starts: Sequence[tuple[Start, int]], *, limit: int, rival: float = 0.0
) -> Factors:
    """Fit from several (start, sweeps), each to convergence unless it cannot win; holds the best and the current."""
    best = None
    for start, sweeps in starts:
        codes, components = start(rows, r, rng)
        error, iterations = refine(rows, (codes, components), sweeps=sweeps, limit=limit, rival=rival)
        if best is None or error < best.error:
            best, rival = Factors(codes, components, error, iterations), error
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
