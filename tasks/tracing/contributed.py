"""Gamma, norm and cosine of updates, as a projection returns them (Pfahler & Morik 2022, Eqs. 6 and 7)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Contributions:
    """The contributions of T updates to the representations of Q queries at one layer.

    Attributes
    ----------
    gamma : (Q, T), <z, D_t f>; sums over all outputs and positions
    norm : (Q, T), ||D_t f||
    cosine : (Q, T), gamma / (||z|| ||D_t f||), 0 where a norm is 0
    preactivation_norm : (Q,), ||z||
    """

    gamma: Tensor
    norm: Tensor
    cosine: Tensor
    preactivation_norm: Tensor


def described(gamma: Tensor, norm: Tensor, z_norm: Tensor, dtype: torch.dtype) -> Contributions:
    """Return contributions of a dtype from gamma and norm (T, Q), and ||z|| (Q,), in float64."""
    gamma, norm = gamma.T, norm.T
    scale = norm * z_norm[:, None]
    cosine = torch.where(scale > 0, gamma / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1, 1)
    return Contributions(*(part.to(dtype) for part in (gamma, norm, cosine, z_norm)))
