"""Topic-based interpretation (ConceptSHAP, Yeh et al. 2020): topics that suffice to rebuild maps for a frozen head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from tasks.interpreters.shapley import exact_shapley as exact_shapley

if TYPE_CHECKING:
    from torch import Tensor

Similarity = Literal["squared", "signed"]

TOGETHER = 1e-3  # added to the sum of a position's activations, as in the authors' code
LARGEST = 1e150  # value of float64 maps and topics; squares of larger ones leave its range
ALIKE = 0.95  # cosine above which two topics are nearly the same


def check(
    *,
    topics: int = 10,
    hidden: int = 500,
    threshold: float = 0.2,
    concept: float = 0.1,
    distinct: float = 0.1,
    similarity: str = "squared",
    nearest: int = 32,
    lr: float = 1e-3,
    batch: int = 128,
    epochs: int = 20,
    frozen_epochs: int = 5,
    maps: str = "stored",
    shapley_images: int = 100,
    shapley_draws: int = 50,
) -> None:
    """Check the parameters of topics that rebuild maps for a frozen head; raise an error that names a bad one.

    Parameters
    ----------
    topics : number of topics m, at most the number of channels
    hidden : width of the layer between topics and rebuilt maps
    threshold : cosine of a position and a topic above which the topic is active there, 0 to 1
    concept : weight a of the topics' nearness to the positions that are nearest to them, >= 0
    distinct : weight b of the topics' likeness to each other, >= 0
    similarity : likeness from the squares of the cosines, or from the "signed" cosines as in the authors' code
    nearest : number K of positions nearest to a topic in a batch
    lr : learning rate of Adam, > 0
    batch : images per step
    epochs : passes over the coreset in which everything is trained
    frozen_epochs : further passes with fixed topics, >= 0
    maps : stored, or "recompute" to run the network for every pass over the coreset
    shapley_images : held-out images for the importance of each topic, spread over all classes
    shapley_draws : random orders for the importance where there are more than 12 topics
    """
    counts = {"topics": topics, "hidden": hidden, "nearest": nearest, "batch": batch, "epochs": epochs}
    counts |= {"shapley_images": shapley_images, "shapley_draws": shapley_draws}
    for name, count, least in (*((n, c, 1) for n, c in counts.items()), ("frozen_epochs", frozen_epochs, 0)):
        if isinstance(count, bool) or not isinstance(count, int) or count < least:
            raise ValueError(f"{name}: expected an integer of at least {least}, found {count!r}")
    for name, number in (("threshold", threshold), ("concept", concept), ("distinct", distinct), ("lr", lr)):
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number) or number < 0:
            raise ValueError(f"{name}: expected a finite number of at least 0, found {number!r}")
    if threshold >= 1:
        raise ValueError(f"threshold: expected less than 1, the largest cosine, found {threshold!r}")
    if lr == 0:
        raise ValueError("lr: expected a rate above 0, found 0")
    if maps not in ("stored", "recompute"):
        raise ValueError(f"maps: expected stored or recompute, found {maps!r}")
    if similarity not in ("squared", "signed"):
        raise ValueError(f"similarity: expected squared or signed, found {similarity!r}")


def topic_forward(maps: Tensor, topics: Tensor, r1: Tensor, r2: Tensor, threshold: float) -> Tensor:
    """Rebuild maps from their topics.

    Parameters
    ----------
    maps : (n, h, w, d) float tensor
    topics : (d, m), columns of any length
    r1 : (m, H)
    r2 : (H, d)
    threshold : a topic is active at a position where their cosine is larger

    Returns
    -------
    (n, h, w, d), differentiable in all four; 0 at positions of zero maps and where no topic is active

    Notes
    -----
    `A = (F Tn) [C > threshold]`, `N = A / (sum_m A + 1e-3)`, `relu(N R1) R2`, with unit topics Tn and cosines C.
    Computed in float64, in which the squares of no float32 overflow; the result has the dtype of the maps.
    """
    _check_tensors(maps, topics, r1, r2)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.integer | np.floating):
        raise TypeError(f"threshold: expected a number, found {threshold!r}")
    if not math.isfinite(threshold):
        raise ValueError(f"threshold: expected a finite number, found {threshold!r}")
    amounts = topic_amounts(maps.double(), topics.double(), threshold)
    return rebuild(amounts, r1.double(), r2.double()).to(maps.dtype)


def topic_amounts(maps: Tensor, topics: Tensor, threshold: float) -> Tensor:
    """Return A (n, h, w, m): each topic's product with a position where it is active, else 0."""
    products = maps @ unit_topics(topics)
    return products * (_cosines(maps, products) > threshold)


def rebuild(amounts: Tensor, r1: Tensor, r2: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return the maps (n, h, w, d) of amounts A (n, h, w, m), by shares N; only topics in `kept` (m,) take part."""
    shares = _shares(amounts if kept is None else amounts * kept)
    return (shares @ r1).relu() @ r2


def topic_importance(
    head: Callable[[Tensor], Tensor], amounts: Tensor, r1: Tensor, r2: Tensor, label: int
) -> tuple[Tensor, Tensor]:
    """Return what each topic's part of the rebuilt maps adds to the logit of a class.

    Parameters
    ----------
    head : maps (n, h, w, d) -> logits (n, C), differentiable
    amounts : (n, h, w, m), as `topic_amounts` gives them
    r1, r2 : as in `topic_forward`
    label : column of the logits

    Returns
    -------
    gains : (m,) float64, the exact directional derivative of the logit at the rebuilt maps along `N_m` times their
        derivative with respect to `N_m`, mean over images. Rebuilt maps are homogeneous in N: these directions add up
        to the rebuilt maps themselves.
    logit : (), mean over images, at the rebuilt maps
    """
    import torch

    shares = _shares(amounts).detach().requires_grad_(True)
    with torch.enable_grad():
        logits = head((shares @ r1).relu() @ r2)[:, label]
    (gradient,) = torch.autograd.grad(logits.sum(), shares)
    gains = (shares.detach() * gradient).double().sum(dim=(0, 1, 2)) / len(amounts)
    return gains, logits.detach().double().mean()


def topic_cosines(maps: Tensor, topics: Tensor) -> Tensor:
    """Return C (n, h, w, m): the cosine of each position and topic, 0 at positions of zero maps."""
    return _cosines(maps, maps @ unit_topics(topics))


def unit_topics(topics: Tensor) -> Tensor:
    """Return topics (d, m) with columns of length 1; a zero column stays."""
    length = topics.square().sum(dim=0, keepdim=True)
    positive = length > 0
    return topics * length.where(positive, length.new_ones(())).rsqrt() * positive


def topic_terms(maps: Tensor, topics: Tensor, *, nearest: int, similarity: str) -> tuple[Tensor, Tensor]:
    """Return the two terms of the loss other than cross-entropy.

    Parameters
    ----------
    maps : (n, h, w, d), a batch
    topics : (d, m)
    nearest : number K of positions; cut to n h w
    similarity : "squared" or "signed"

    Returns
    -------
    mean over topics of the K largest cosines; mean over all pairs of `Tn' Tn - I`, of squares or as it is
    """
    cosines = topic_cosines(maps, topics).flatten(0, -2)
    largest = cosines.topk(min(nearest, len(cosines)), dim=0).values
    unit = unit_topics(topics)
    likeness = unit.T @ unit
    likeness = likeness - likeness.new_ones(len(likeness)).diag()
    return largest.mean(), (likeness.square() if similarity == "squared" else likeness).mean()


def completeness(accuracy: float, random: float, full: float) -> float:
    """Return `(accuracy - random) / (full - random)`; NaN where the network is not better than random."""
    return (accuracy - random) / (full - random) if full > random else float("nan")


def near_duplicates(topics: NDArray[np.floating], above: float = ALIKE) -> list[tuple[int, int, float]]:
    """Return the pairs of topics (d, m) with a cosine larger than `above`: lower index, higher index, cosine."""
    wide = topics.astype(np.float64)
    length = np.linalg.norm(wide, axis=0)
    unit = wide / np.where(length > 0, length, 1.0)
    cosines = unit.T @ unit
    rows, columns = np.nonzero(np.triu(cosines, 1) > above)
    return [(int(i), int(j), float(cosines[i, j])) for i, j in zip(rows, columns, strict=True)]


def head_gradient_missing(head: Callable[[Tensor], Tensor], maps: Tensor) -> bool:
    """Say whether the logits of a head (maps -> logits) do not depend on its maps in a way that autograd follows."""
    import torch

    with torch.enable_grad():
        tried = maps.detach().clone().requires_grad_(True)
        logits = head(tried * 1)  # a head may work in place, which a leaf does not allow
        if not (logits.is_floating_point() and logits.requires_grad):
            return True
        (gradient,) = torch.autograd.grad(logits.sum(), tried, allow_unused=True)
    return gradient is None


def _shares(amounts: Tensor) -> Tensor:
    """Return N (n, h, w, m): the share of each topic in a position's amounts."""
    return amounts / (amounts.sum(dim=-1, keepdim=True) + TOGETHER)


def _cosines(maps: Tensor, products: Tensor) -> Tensor:
    """Return products (n, h, w, m) with unit topics over the positions' lengths, 0 where a length is 0."""
    length = maps.square().sum(dim=-1, keepdim=True)
    positive = length > 0
    # The root is taken of 1 where the length is 0: its derivative stays finite.
    return products / length.where(positive, length.new_ones(())).sqrt() * positive


def _check_tensors(maps: Tensor, topics: Tensor, r1: Tensor, r2: Tensor) -> None:
    """Raise an error for other kinds than tensors, and for shapes that do not fit."""
    import torch

    given = {"maps": maps, "topics": topics, "r1": r1, "r2": r2}
    for name, tensor in given.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name}: expected a torch tensor, found {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise TypeError(f"{name}: expected real numbers, found {tensor.dtype}")
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name}: expected finite values, found NaN or infinity")
    for name in ("maps", "topics"):  # their lengths are computed
        if given[name].dtype == torch.float64 and bool((given[name].abs() > LARGEST).any()):
            raise ValueError(f"{name}: expected values up to {LARGEST:g}, with squares in float64, found larger ones")
    if maps.ndim != 4:
        raise ValueError(f"maps: expected (n, h, w, d), found shape {tuple(maps.shape)}")
    d = maps.shape[-1]
    if topics.ndim != 2 or len(topics) != d:
        raise ValueError(f"topics: expected ({d}, m) for maps of {d} channels, found shape {tuple(topics.shape)}")
    if r1.ndim != 2 or len(r1) != topics.shape[1]:
        raise ValueError(f"r1: expected ({topics.shape[1]}, H), found shape {tuple(r1.shape)}")
    if tuple(r2.shape) != (r1.shape[1], d):
        raise ValueError(f"r2: expected ({r1.shape[1]}, {d}), found shape {tuple(r2.shape)}")
