"""VEBI (Oramas et al. 2019): the units of all layers that predict a class, selected by a lasso with a bound mu."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.interpreters.mu_path import Doubles, check_system, mu_path

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["energy", "l2", "mean"]
KINDS = ("energy", "l2", "mean")
LARGEST = 1e100  # magnitude of float64 maps beyond which sums of their squares may leave its range


def unit_responses(maps: Sequence[Tensor], kind: Kind = "energy") -> Tensor:
    """Return the response of each image at each unit.

    Parameters
    ----------
    maps : of each layer (n, f, h, w) float tensor, units on axis 1
    kind : "energy" is the share of a unit in the sum of squares of its layer, "l2" the root of the unit's sum of
        squares, "mean" the mean over positions

    Returns
    -------
    (n, M), layers in the order of the list; float64 for float64 maps and else float32, sums in float64. Energies of a
    layer sum to 1; those of a silent layer are 0.
    """
    import torch

    if kind not in KINDS:
        raise ValueError(f"kind: expected {', '.join(KINDS)}, found {kind!r}")
    if not isinstance(maps, Sequence):
        raise TypeError(f"maps: expected a list with a tensor of each layer, found {type(maps).__name__}")
    if not maps:
        raise ValueError("maps: expected at least one layer, found none")
    for index, layer in enumerate(maps):
        _check_layer(index, layer, len(maps[0]))
    found = [_responses(layer, kind) for layer in maps]
    whole = torch.cat(found, dim=1)
    return whole if all(layer.dtype == torch.float64 for layer in maps) else whole.float()


def mu_lasso(gram: NDArray[np.floating], moment: NDArray[np.floating], mu: float) -> Doubles:
    """Minimise `||l_c - X w||^2 / 2` over `w >= 0, sum(w) <= mu` for each class, from sums over samples alone.

    Parameters
    ----------
    gram : X'X (M, M) of responses X (n, M)
    moment : X'L (M, C) of one-hot predicted classes L (n, C)
    mu : bound of the sum of a class's weights, >= 0; infinity for none

    Returns
    -------
    (C, M) float64 >= 0; zeros are exact. Where the bound is not reached, a row is the non-negative least-squares
    solution. Units without response and classes that are never predicted have zeros. Of units that are linear
    combinations of others, the lower indices that enter first are used.
    """
    square, products = check_system(gram, moment)
    bound = _checked_mu(mu)
    found = np.zeros((products.shape[1], len(square)))
    for row, column in zip(found, products.T, strict=True):
        row[:] = mu_path(square, column, until=bound).at(bound)
    return found


def _checked_mu(mu: float) -> float:
    """Check the bound of a class's weights."""
    if isinstance(mu, bool) or not isinstance(mu, int | float | np.integer | np.floating | np.ndarray) or np.ndim(mu):
        raise TypeError(f"mu: expected a number, found {mu!r}")
    if not mu >= 0:
        raise ValueError(f"mu: expected a number of at least 0, found {mu!r}")
    return float(mu)


def _responses(layer: Tensor, kind: Kind) -> Tensor:
    """Return the responses (n, f) of one layer in float64."""
    import torch

    if kind == "mean":
        return layer.double().mean(dim=(2, 3))
    scale = _scale(layer) if layer.dtype == torch.float64 else None
    wide = layer.double() if scale is None else layer * scale[:, None, None, None]
    energy = wide.square().sum(dim=(2, 3))
    if kind == "l2":
        return energy.sqrt() if scale is None else energy.sqrt() / scale[:, None]
    total = energy.sum(dim=1, keepdim=True)
    return torch.where(total > 0, energy / total.where(total > 0, 1.0), 0.0)


def _scale(layer: Tensor) -> Tensor:
    """Return for each image (n,) the power of two that keeps squares of float64 maps in range, 1 for usual maps."""
    import torch

    largest = layer.detach().abs().amax(dim=(1, 2, 3))
    usual = (largest < LARGEST) & (largest > 1 / LARGEST) | (largest == 0)
    return torch.where(
        usual, 1.0, torch.ldexp(torch.ones_like(largest), -torch.frexp(largest).exponent.clamp(min=-1000))
    )


def _check_layer(index: int, layer: Tensor, n: int) -> None:
    """Raise an error for a layer of another kind, shape or number of images, or with NaN."""
    import torch

    name = f"maps[{index}]"
    if not isinstance(layer, torch.Tensor):
        raise TypeError(f"{name}: expected a torch tensor, found {type(layer).__name__}")
    if not layer.is_floating_point():
        raise TypeError(f"{name}: expected real numbers, found {layer.dtype}")
    if layer.ndim != 4 or 0 in layer.shape[1:]:
        raise ValueError(f"{name}: expected (n, f, h, w) with f, h, w >= 1, found shape {tuple(layer.shape)}")
    if len(layer) != n:
        raise ValueError(f"{name}: expected the {n} images of maps[0], found {len(layer)}")
    if not bool(torch.isfinite(layer).all()):
        raise ValueError(f"{name}: expected finite values, found NaN or infinity")
