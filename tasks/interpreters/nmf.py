"""Non-negative matrix factorisation of a matrix that is read in chunks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import NamedTuple, Required, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from tasks.interpreters.hals import iterate, measure, refine
from tasks.interpreters.rows import Matrix, Rows, check_range, open_rows
from tasks.interpreters.small import fit_small
from tasks.interpreters.starts import start_from_rows, start_from_svd

SMALL = 1_000_000  # entries below which scikit-learn's solver is faster
PART = 8  # a larger matrix is first fitted on one row in PART,
MIN_SAMPLE = 30  # or on more rows: at least MIN_SAMPLE per component,
LEAST_PART = 5  # but only if these are at most one row in LEAST_PART
HEAT = 6  # readings after which two starts on all rows are compared
LARGE_GAIN = 2e-3  # share of the error that further readings may still remove, on a sample or after the heat
CLOSE = 0.1  # relative error up to which the sample's optimum is always accepted
UNLIKE = 1.02  # a larger error on all rows, relative to the sample's, shows that the sample differs from the rest
BY_ERROR = attrgetter("error")
Start = Callable[[Rows, int, np.random.Generator], tuple[Tensor, Tensor]]
SVD_FILLED: Start = partial(start_from_svd, fill=True)
SVD_BARE: Start = partial(start_from_svd, fill=False)


class Stop(TypedDict, total=False):
    """The stopping rule of a start, as in `refine`."""

    limit: Required[int]
    rival: float
    gain: float


class Factors(NamedTuple):
    """Codes (r, n) and components (r, d) of a start, their relative error, and readings of the matrix."""

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
    iterations : readings of the matrix by the best start
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
    rank : requested number of components, >= 1; r = min(rank, n, d) are fitted
    seed : of the starts; same seed, same bytes

    Returns
    -------
    NMF, of the kind and device of `a`, float64 for float64 and else float32

    Notes
    -----
    A matrix of fewer than `SMALL` entries is fitted by scikit-learn's solver. It is copied only if it is not a plain
    matrix >= 0 of its result's type; the start holds about four (n, r + 10) matrices. A larger one is read in chunks,
    each at most a sixteenth of the matrix. Memory beyond it: at most four times the codes, a fifth of the rows and a
    few chunks.
    """
    rng = _checked(rank, seed)
    rows = open_rows(a, clamp=True)
    if rows.n == 0:
        raise ValueError(f"a: expected a matrix with at least one row, found shape {tuple(a.shape)}")
    r = min(int(rank), rows.n, rows.d)
    if rows.norm == 0.0:
        zeros = partial(torch.zeros, dtype=rows.dtype, device=rows.device)
        return NMF(rows.restore(zeros(r, rows.d)), rows.restore(zeros(rows.n, r)), 0.0, rows.clamped, 0)
    if r == min(rows.n, rows.d):
        codes, components, iterations = _exact(rows)
    elif rows.n * rows.d < SMALL and (small := fit_small(rows, r, seed)) is not None:
        codes, components, iterations = small
    else:
        codes, components, _, iterations = _fit_large(rows, r, rng)
    return _finish(rows, codes, components, iterations)


def _checked(rank: int, seed: int | Sequence[int]) -> np.random.Generator:
    """Check the number of components, and return the generator of the starts."""
    if isinstance(rank, bool) or not isinstance(rank, int | np.integer):
        raise TypeError(f"rank: expected an integer, found {rank!r}")
    if rank < 1:
        raise ValueError(f"rank: expected at least 1, found {rank}")
    if seed is None:
        raise TypeError("seed: expected an integer or a sequence of integers, found None (a fit must be repeatable)")
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"seed: expected non-negative integers, found {seed!r}") from error


def _exact(rows: Rows) -> tuple[Tensor, Tensor, int]:
    """Return codes, components and 0 iterations: the matrix times the identity has full rank and error 0."""
    eye = torch.eye(min(rows.n, rows.d), dtype=rows.dtype, device=rows.device)
    if rows.n < rows.d:
        return eye, torch.cat([block.clone() for _, block in rows.chunks()]), 0
    codes = torch.empty(rows.d, rows.n, dtype=rows.dtype, device=rows.device)
    for part, block in rows.chunks():
        codes[:, part] = block.T
    return codes, eye, 0


def _fit_large(rows: Rows, r: int, rng: np.random.Generator) -> Factors:
    """Fit a large matrix with several sweeps per reading, because readings are expensive.

    Where a part of the rows is large enough, the starts compete on it. All rows go on from the winner's components.
    """
    sweeps = 5 if 8 * r <= rows.d else 3  # a sweep costs at least about r / 2d of a reading
    m = max(rows.n // PART, MIN_SAMPLE * r)
    sample = rows.sample(rng, m) if m <= rows.n // LEAST_PART else None
    if sample is None or sample.norm == 0.0:
        return _best_of_two(rows, r, rng)
    part = _fit_sample(sample, r, rng, sweeps, n_starts=min(4, rows.n // (2 * m)))  # reads half of all rows per round
    del sample  # up to a fifth of the matrix
    codes = torch.zeros(r, rows.n, dtype=rows.dtype, device=rows.device)
    iterate(rows, codes, part.components, 2 * sweeps)
    error, iterations = refine(rows, (codes, part.components), sweeps=sweeps, limit=40)
    fitted = Factors(codes, part.components, error, iterations)
    if error <= max(CLOSE, (UNLIKE + 2.0 * r / m) * part.error):  # a sample of fewer rows is fitted more closely
        return fitted
    # A few rows outweigh the rest, and the sample does not hold them.
    whole = _best_of(rows, r, rng, [(SVD_FILLED, sweeps)], limit=200, rival=error)
    return min(fitted, whole, key=BY_ERROR)


def _fit_sample(sample: Rows, r: int, rng: np.random.Generator, sweeps: int, n_starts: int) -> Factors:
    """Fit a sample of the rows, from several starts where its error allows better optima."""
    fit = partial(_best_of, sample, r, rng, limit=60, gain=LARGE_GAIN)
    part = fit([(SVD_FILLED, sweeps)])
    if part.error <= CLOSE:
        return part
    others = [(start, sweeps) for start in (SVD_BARE, start_from_rows, start_from_rows)[: n_starts - 1]]
    return min(part, fit(others, rival=part.error), key=BY_ERROR)


def _best_of_two(rows: Rows, r: int, rng: np.random.Generator) -> Factors:
    """Start twice, and go on with the lower error after a few readings."""
    ahead = _best_of(rows, r, rng, [(SVD_FILLED, 3), (SVD_BARE, 3)], limit=HEAT)
    error, iterations = refine(rows, ahead[:2], sweeps=3, limit=60, gain=LARGE_GAIN)
    return Factors(ahead.codes, ahead.components, error, HEAT + iterations)


def _best_of(
    rows: Rows, r: int, rng: np.random.Generator, starts: Sequence[tuple[Start, int]], **stop: Unpack[Stop]
) -> Factors:
    """Fit from several (start, sweeps), each until it converges or cannot win; holds the best and the current."""
    best = None
    for start, sweeps in starts:
        codes, components = start(rows, r, rng)
        error, iterations = refine(rows, (codes, components), sweeps=sweeps, **stop)
        if best is None or error < best.error:
            best, stop["rival"] = Factors(codes, components, error, iterations), error
    assert best is not None
    return best


def _finish(rows: Rows, codes: Tensor, components: Tensor, iterations: int) -> NMF:
    """Scale components to unit length, sort them by falling share, and measure the error of the returned pair."""
    length = torch.linalg.vector_norm(components, dim=1, dtype=torch.float64)
    size = torch.linalg.vector_norm(codes, dim=1, dtype=torch.float64)
    order = torch.argsort(length * size, descending=True, stable=True)
    components /= torch.where(length > 0, length, 1.0)[:, None].to(components)
    codes *= length[:, None].to(codes)
    components, ordered = components[order], torch.empty(rows.n, len(order), dtype=codes.dtype, device=codes.device)
    for t, source in enumerate(order.tolist()):
        ordered[:, t] = codes[source]
    ordered /= rows.scale  # this rounds the smallest numbers
    check_range(ordered)
    error = measure(rows, (ordered if rows.scale == 1.0 else ordered * rows.scale).T, components)
    return NMF(rows.restore(components), rows.restore(ordered), error, rows.clamped, iterations)
