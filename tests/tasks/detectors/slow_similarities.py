"""A probing set with everything that can go wrong in it, and the similarities as loops over single numbers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

DEAD = (2, 5)  # neurons
CONSTANT, DUPLICATES = 3, (1, 6)  # concepts


@dataclass(frozen=True)
class Probe:
    """Activations (40, 7) and cosines (40, 9): two dead neurons, ties, a constant and two equal concepts."""

    activations: Doubles
    scores: Doubles


def make_probe() -> Probe:
    """Build the probing set."""
    rng = np.random.default_rng(7)
    activations = np.maximum(rng.normal(size=(40, 7)), -0.5)  # many ties at -0.5
    activations[:, 1] = rng.integers(0, 3, 40)
    activations[:, 3] *= 1e-3
    activations[:, DEAD[0]], activations[:, DEAD[1]] = 0.0, 0.7
    scores = 0.2 + 0.05 * rng.normal(size=(40, 9))
    scores[:, CONSTANT], scores[:, DUPLICATES[1]] = 0.1, scores[:, DUPLICATES[0]]
    scores[:, 8] -= 0.4  # negative cosines
    return Probe(activations, scores)


def falling(column: list[float]) -> list[int]:
    """Return images by falling value, equal ones by lower index."""
    return sorted(range(len(column)), key=lambda i: (-column[i], i))


def cos_loop(a: list[float], p: list[float], *, cubed: bool, min_norm: float = 0.0) -> float:
    """The cosine of two columns, or of their centred cubes with norms of at least `min_norm`."""
    if cubed:
        a = [(x - math.fsum(a) / len(a)) ** 3 for x in a]
        p = [(x - math.fsum(p) / len(p)) ** 3 for x in p] if len(set(p)) > 1 else [0.0] * len(p)
    norms = [max(math.sqrt(math.fsum(x * x for x in column)), min_norm) for column in (a, p)]
    return math.fsum(x * y for x, y in zip(a, p, strict=True)) / (norms[0] * norms[1]) if min(norms) > 0 else 0.0


def joint_loop(a: list[float], scores: Doubles, s: int, top_k: int, scale: float, ends: tuple[float, float]) -> float:
    """The sum over the top images of log(1 + p_r (Q - 1) + 1e-7)."""
    total = 0.0
    for rank, image in enumerate(falling(a)[:top_k]):
        chance = math.exp(scale * scores[image, s]) / math.fsum(math.exp(scale * x) for x in scores[image].tolist())
        share = ends[0] - rank / top_k * (ends[0] - ends[1])
        total += math.log(1 + share * (chance - 1) + 1e-7)
    return total


def rank_loop(a: list[float], p: list[float], *, power: float, top_fraction: float, scale_p: float) -> float:
    """Minus the error of the concept's order over that of five seeded orders, over the root of the mean cosine."""
    images = falling(a)[: int(len(a) * top_fraction)]
    target = [a[i] for i in images]
    by_concept = sorted(images, key=lambda i: (-p[i], i))
    error = math.fsum(abs(x - a[i]) ** power for x, i in zip(target, by_concept, strict=True)) / len(images)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(images)).tolist() for _ in range(5)]
    baseline = math.fsum(abs(x - target[i]) ** power for order in orders for x, i in zip(target, order, strict=True))
    ratio = error / (baseline / 5 / len(images)) if baseline > 0 else 1.0
    mean = math.fsum(p[i] for i in images) / len(images)
    return float(-ratio / max(mean, 1e-3) ** scale_p)


def slow_similarity(name: str, activations: Doubles, scores: Doubles, lam: float | None = None) -> Doubles:
    """Every similarity with small top_k, number by number; dead neurons are zeros."""
    alive = [k for k in range(activations.shape[1]) if len(set(activations[:, k].tolist())) > 1]
    result = np.zeros((activations.shape[1], scores.shape[1]))
    for k in alive:
        for s in range(scores.shape[1]):
            a, p = activations[:, k].tolist(), scores[:, s].tolist()
            if name in ("cos", "cos_cubed", "cos_cubed scale-free"):
                floor = 1e-3 if name == "cos_cubed" else 0.0
                result[k, s] = cos_loop(a, p, cubed=name != "cos", min_norm=floor)
            elif name == "wpmi":
                result[k, s] = joint_loop(a, scores, s, 6, 2.0, (1.0, 1.0))
            elif name == "soft_wpmi":
                result[k, s] = joint_loop(a, scores, s, 11, 10.0, (0.998, 0.97))
            else:
                result[k, s] = rank_loop(a, p, power=3.0, top_fraction=0.3, scale_p=0.5)
    weight = {"wpmi": 0.6, "soft_wpmi": 1.0}.get(name, 0.0) if lam is None else lam
    joint = result.copy()
    for s in range(scores.shape[1]) if weight else ():
        marginal = math.log(math.fsum(math.exp(joint[k, s]) for k in alive) / len(alive))
        for k in alive:
            result[k, s] -= weight * marginal
    return result
