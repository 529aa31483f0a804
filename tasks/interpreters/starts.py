"""Starts of a factorisation: from singular vectors (NNDSVD) or from random rows."""

import numpy as np
import torch
from torch import Tensor

from tasks.interpreters.rows import Rows

OVERSAMPLE = 10  # extra directions of the subspace iteration, as in scikit-learn's randomised SVD
POWER_PASSES = 4


def start_from_svd(rows: Rows, rank: int, rng: np.random.Generator, *, fill: bool) -> tuple[Tensor, Tensor]:
    """Split singular vectors by sign and keep the larger part (NNDSVD).

    Parameters
    ----------
    rows : (n, d) matrix
    rank : number of components
    rng : for the subspace iteration
    fill : put the mean of the matrix in place of zeros (NNDSVDa)

    Returns
    -------
    codes (r, n), components (r, d), both >= 0, dtype of the chunks

    Notes
    -----
    Boutsidis and Gallopoulos 2008. The first pair is not split: it has one sign for a matrix >= 0.
    """
    components = right_singular_vectors(rows, rank, rng).to(rows.dtype)
    codes = torch.empty(rank, rows.n, dtype=rows.dtype, device=rows.device)
    for part, block in rows.chunks(whole=True):
        torch.mm(components, block.T, out=codes[:, part])
    for t in range(rank):
        _split_signs(codes[t], components[t], first=t == 0)
    for factor in (codes, components):
        for row in factor:
            row[row < 1e-6 * rows.mean] = rows.mean if fill else 0.0
    return codes, components


def start_from_rows(rows: Rows, rank: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return zero codes, and means of a few random rows as components; shapes as in `start_from_svd`."""
    codes = torch.zeros(rank, rows.n, dtype=rows.dtype, device=rows.device)
    components = torch.empty(rank, rows.d, dtype=rows.dtype, device=rows.device)
    for t in range(rank):
        chosen = rng.integers(rows.n, size=int(rng.integers(1, 5)))
        noise = torch.from_numpy(rng.random(rows.d)).to(components)
        components[t] = rows.read(chosen).mean(dim=0) + 0.1 * rows.mean * noise
    return codes, components


def right_singular_vectors(rows: Rows, rank: int, rng: np.random.Generator) -> Tensor:
    """Return the leading right singular vectors (rank, d) float64, by subspace iteration on A'A."""
    width = min(rank + OVERSAMPLE, rows.n, rows.d)
    basis = torch.from_numpy(rng.standard_normal((rows.d, width))).to(rows.device)
    basis, product = torch.linalg.qr(basis)[0], basis
    for _ in range(POWER_PASSES):
        product = _gram_times(rows, basis)
        basis, last = torch.linalg.qr(product)[0], basis
    _, rotation = torch.linalg.eigh(last.T @ product)
    vectors: Tensor = (last @ rotation).T.flip(0)  # values ascend, so the leading vectors are last
    return vectors[:rank].contiguous()


def _gram_times(rows: Rows, basis: Tensor) -> Tensor:
    """Return A'A basis (d, l) float64; products are in the dtype of the chunks."""
    product, narrow = torch.zeros_like(basis), basis.to(rows.dtype)
    for _, block in rows.chunks():
        product += block.T @ (block @ narrow)
    return product


def _split_signs(code: Tensor, component: Tensor, *, first: bool) -> None:
    """Replace a singular pair in place by its larger one-signed part, both factors of equal norm."""
    if first:
        code.abs_(), component.abs_()
    else:
        up = code.clamp(min=0).norm() * component.clamp(min=0).norm()
        down = code.clamp(max=0).norm() * component.clamp(max=0).norm()
        sign = 1.0 if up >= down else -1.0
        code.mul_(sign).clamp_(min=0), component.mul_(sign).clamp_(min=0)
    ratio = float(component.norm() / code.norm()) ** 0.5 if code.norm() > 0 else 0.0
    code.mul_(ratio)
    component.mul_(1.0 / ratio if ratio > 0 else 0.0)
