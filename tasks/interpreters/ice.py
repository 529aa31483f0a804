"""ICE (Zhang et al. 2021): the concepts of a class are the components of an NMF of its activation maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.interpreters.features import Features

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.interpreters.nmf import NMF, fit_nmf
    from tasks.interpreters.nnls import nmf_codes

__all__ = [
    "NMF",
    "check",
    "columns",
    "encode",
    "fidelity",
    "fit",
    "fit_nmf",
    "importance",
    "nmf_codes",
    "reconstruct",
    "shapes",
    "top_heat_maps",
]

Maps = NDArray[Any]  # Any: float16 or float32, as stored
Arrays = Mapping[str, NDArray[np.float32]]
Negative = Literal["clamp", "shift", "refuse"]
# What needs torch is imported when it is asked for: a plan checks parameters without it.
_WITH_TORCH = {"NMF": "nmf", "fit_nmf": "nmf", "nmf_codes": "nnls"}


def __getattr__(name: str) -> object:
    """Return what is imported when it is asked for."""
    if name not in _WITH_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tasks.interpreters.{_WITH_TORCH[name]}"), name)


def fit(maps: Maps, *, seed: int | Sequence[int], components: int = 10, negative: Negative = "clamp") -> Features:
    """Factorise the activation maps of one class.

    Parameters
    ----------
    maps : (n, h, w, d) float16 or float32, every position a row
    seed : of the factorisation's starts
    components : number of concepts, cut to min(components, n h w, d)
    negative : read negative activations as 0 ("clamp"); take from each channel its smallest value on these maps if
        that is negative ("shift"); or raise ValueError ("refuse")

    Returns
    -------
    Features: array "components" (r, d) float32, rows of unit length; with "shift" also "offset" (1, d), at most 0;
    numbers relative_error (with "shift" of the shifted maps), clamped, iterations, rank
    """
    from tasks.interpreters.nmf import fit_nmf

    check(components=components, negative=negative)
    flat = _flat(maps)
    if negative == "refuse" and (n_negative := int(np.count_nonzero(flat < 0))):
        raise ValueError(
            f"maps: expected activations of at least 0, found {n_negative} negative ones; take a layer after its ReLU "
            "or set negative: clamp or shift"
        )
    offset = {"offset": flat.min(axis=0, keepdims=True).clip(max=0).astype(np.float32)} if negative == "shift" else {}
    factors = fit_nmf(_shifted(flat, offset), components, seed=seed)
    found = np.asarray(factors.components, dtype=np.float32)
    numbers = {
        "relative_error": factors.relative_error,
        "clamped": float(factors.clamped),
        "iterations": float(factors.iterations),
        "rank": float(len(found)),
    }
    return Features({"components": found, **offset}, numbers)


def check(*, components: int = 10, negative: str = "clamp") -> None:
    """Raise ValueError that names a parameter which `fit` cannot take."""
    if isinstance(components, bool) or not isinstance(components, int | np.integer) or components < 1:
        raise ValueError(f"components: expected an integer of at least 1, found {components!r}")
    if negative not in ("clamp", "shift", "refuse"):
        raise ValueError(f"negative: expected clamp, shift or refuse, found {negative!r}")


def shapes(n_channels: int, *, components: int = 10, negative: Negative = "clamp") -> dict[str, tuple[int, ...]]:
    """Return the largest shape that each array of `fit` can have for maps of `n_channels`."""
    check(components=components, negative=negative)
    found: dict[str, tuple[int, ...]] = {"components": (components, n_channels)}
    return {**found, "offset": (1, n_channels)} if negative == "shift" else found


def encode(arrays: Arrays, maps: Maps) -> NDArray[np.float32]:
    """Return the codes (n, h, w, r) of each position on fixed components, by exact non-negative least squares.

    What is negative, after the shift of `fit` if there is one, is read as 0. Zero components have code 0.
    """
    from tasks.interpreters.nnls import solve_rows
    from tasks.interpreters.rows import open_rows

    codes = solve_rows(open_rows(_shifted(_flat(maps), arrays), clamp=True), arrays["components"])
    return np.asarray(codes, dtype=np.float32).reshape(*maps.shape[:3], -1)


def reconstruct(arrays: Arrays, codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the maps (n, h, w, d) that codes (n, h, w, r) represent."""
    found = codes @ arrays["components"]
    return found + arrays["offset"][0] if "offset" in arrays else found


def columns(arrays: Arrays, codes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return columns (n h w, r) with the inner products of the reconstructed maps, before an offset is added.

    Notes
    -----
    Let M = (P P')^1/2. Codes M and codes P have equal Gram matrices, so they differ only by a rotation. The shape
    distance does not depend on rotations. The r columns of codes M therefore replace the d columns of codes P.
    """
    basis = arrays["components"].astype(np.float64)
    values, vectors = np.linalg.eigh(basis @ basis.T)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    flat: NDArray[np.float64] = codes.reshape(-1, codes.shape[-1]).astype(np.float64) @ root
    return flat


def fidelity(logits: NDArray[Any], reconstructed: NDArray[Any]) -> float:
    """Return the fidelity error `mean |logit - logit'| / |mean logit|` of one class's logits (n,); 0 is perfect.

    Zhang et al. 2021, section 4. The error is infinite where the mean logit is 0 and the logits differ.
    """
    given, rebuilt = np.asarray(logits, dtype=np.float64), np.asarray(reconstructed, dtype=np.float64)
    if given.shape != rebuilt.shape or given.size == 0:
        raise ValueError(f"logits: expected two equal, non-empty shapes, found {given.shape} and {rebuilt.shape}")
    change, size = float(np.abs(given - rebuilt).mean()), abs(float(given.mean()))
    if size == 0.0:
        return 0.0 if change == 0.0 else float("inf")
    return change / size


def importance(
    head: Callable[[Tensor], Tensor],
    maps: Maps | Tensor,
    components: NDArray[np.float32],
    label: int,
    *,
    batch: int = 64,
    codes: NDArray[np.float32] | None = None,
) -> NDArray[np.float64]:
    """Return the rise of a class's logit per unit of each component, added at every position.

    Parameters
    ----------
    head : maps (b, d, h, w) -> logits (b, C), differentiable
    maps : (n, h, w, d), numpy or torch, on the device of the head
    components : (r, d)
    label : column of the logits
    batch : maps per call of the head
    codes : (n, h, w, r), how much of each component is added at each position of each map; by default 1 everywhere

    Returns
    -------
    (r,) float64, the exact directional derivative of the logit along P_k, mean over maps. With codes S the direction is
    `S_k P_k`, a component's own part of the maps: the rise of the logit, to first order, if this part doubles.
    """
    import torch

    total, wide = np.zeros(len(components)), components.astype(np.float64)
    for start in range(0, len(maps), batch):
        part = torch.as_tensor(maps[start : start + batch]).detach().float()
        channels_first = part.movedim(-1, 1).contiguous().requires_grad_(True)
        with torch.enable_grad():
            logit = head(channels_first)[:, label].sum()
        (gradient,) = torch.autograd.grad(logit, channels_first)
        if codes is None:
            total += wide @ gradient.double().sum(dim=(0, 2, 3)).cpu().numpy()
            continue
        along = gradient.movedim(1, -1).double().cpu().numpy() @ wide.T
        total += (along * codes[start : start + batch]).sum(axis=(0, 1, 2))
    return total / len(maps)


def top_heat_maps(codes: NDArray[np.float32], k: int, size: tuple[int, int]) -> NDArray[np.float32]:
    """Return one heat map of the top-k components of an image.

    Parameters
    ----------
    codes : (h, w, r) of one image
    k : number of components with the largest sums, ties by lower index
    size : (H, W) of the image

    Returns
    -------
    (H, W) float32 in [0, 1]: maximum over the kept maps, bilinear to `size`, min-max; a flat map gives zeros
    """
    from tasks.interpreters.enlarge import enlarge

    largest = np.argsort(-codes.sum(axis=(0, 1), dtype=np.float64), kind="stable")[:k]
    large = enlarge(codes[:, :, largest].max(axis=2), size)
    low, high = large.min(), large.max()
    if high == low:
        return np.zeros(size, dtype=np.float32)
    heat: NDArray[np.float32] = (large - low) / (high - low)
    return heat


def _shifted(flat: Maps, arrays: Arrays) -> Maps:
    """Return rows (n, d) minus the offset of the features, if they have one."""
    return flat - arrays["offset"] if "offset" in arrays else flat


def _flat(maps: Maps) -> Maps:
    """Return maps (n, h, w, d) as rows (n h w, d)."""
    if maps.ndim != 4:
        raise ValueError(f"maps: expected (n, h, w, d), found shape {maps.shape}")
    return maps.reshape(-1, maps.shape[-1])
