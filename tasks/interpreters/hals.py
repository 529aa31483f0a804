"""Hierarchical alternating least squares: one reading of the matrix per iteration, memory for one chunk."""

import torch
from torch import Tensor

from tasks.interpreters.rows import Rows, sum_of_squares

WINDOW = 3  # readings between two measurements of the error
GAIN = 1e-3  # share of the error that further readings may still remove
BEHIND = 10  # readings that count as done before a start
DIRECT = {torch.float32: 1e-5, torch.float64: 1e-10}  # squared error below which the Gram form is mostly rounding
FLOOR = {torch.float32: 1e-6, torch.float64: 1e-12}  # relative error that counts as 0


def refine(
    rows: Rows, pair: tuple[Tensor, Tensor], *, sweeps: int, limit: int, rival: float = 0.0, gain: float = GAIN
) -> tuple[float, int]:
    """Improve a factorisation in place until the expected further gain is below a share of the error.

    Parameters
    ----------
    rows : (n, d) matrix
    pair : codes (r, n) and components (r, d), >= 0, dtype of the chunks, overwritten
    sweeps : coordinate sweeps over the codes, and over the components, per reading
    limit : largest number of readings
    rival : error of another start; stop early if the estimate stays above it
    gain : share of the error that further readings may still remove

    Returns
    -------
    relative error, number of readings

    Notes
    -----
    Cichocki and Phan 2009; several sweeps per product: Gillis and Glineur 2012. The error falls about as 1/k. After k
    readings the remaining decrease is therefore about k times the last one. A linear rate leaves less.
    """
    codes, components = pair
    last, error = float("inf"), 1.0
    for k in range(1, limit + 1):
        watched = k % WINDOW == 0 or k == limit
        squared = iterate(rows, codes, components, sweeps)
        if not watched:
            continue
        near = squared < DIRECT[rows.dtype]
        error = measure(rows, codes, components) if near else squared**0.5
        rest = (last - error) / WINDOW * (k + BEHIND)
        last = error
        if error <= FLOOR[rows.dtype] or rest <= gain * error or error - rest >= rival > 0.0:
            return error, k
    return error, limit


def iterate(rows: Rows, codes: Tensor, components: Tensor, sweeps: int) -> float:
    """Update the codes chunk by chunk, then the components; return the squared relative error."""
    gram = components.double() @ components.double().T
    code_gram = torch.zeros_like(gram)
    moment = torch.zeros(components.shape, dtype=torch.float64, device=components.device)
    for part, block in rows.chunks(whole=True):
        code = codes[:, part]
        descend(code, components @ block.T, gram, sweeps)
        code_gram += code @ code.T
        moment += code @ block
    updated = components.double()
    descend(updated, moment.clone(), code_gram, sweeps)
    components.copy_(updated)
    cross = float((updated * moment).sum())
    model = float(((updated @ updated.T) * code_gram).sum())
    return 1.0 + (model - 2.0 * cross) / rows.norm**2


def measure(rows: Rows, codes: Tensor, components: Tensor) -> float:
    """Return the relative error of codes (r, n) and components (r, d), computed from the residual."""
    squares = 0.0
    for part, block in rows.chunks():
        squares += sum_of_squares(torch.addmm(block, codes[:, part].T, components, beta=-1.0))
    return float(squares**0.5 / rows.norm)


def descend(factor: Tensor, product: Tensor, gram: Tensor, sweeps: int) -> None:
    """Minimise tr(F' G F) / 2 - tr(F' B) over F >= 0 row by row, in place.

    Parameters
    ----------
    factor : (r, m) F, overwritten; a row of zero curvature stays, so that it can recover with its partner
    product : (r, m) B, overwritten
    gram : (r, r) G, float64
    sweeps : passes over the rows
    """
    curvature = gram.diagonal()
    inverse = torch.where(curvature > 0, 1.0 / curvature, 0.0)[:, None]
    product.mul_(inverse.to(product))
    others = (gram * inverse).fill_diagonal_(0.0).to(product)
    triples = list(zip(factor.unbind(0), product.unbind(0), others.unbind(0), strict=True))
    triples = [triple for triple, alive in zip(triples, (curvature > 0).tolist(), strict=True) if alive]
    for _ in range(sweeps):
        for row, target, weights in triples:
            torch.clamp(torch.addmv(target, factor.T, weights, alpha=-1.0), min=0.0, out=row)
