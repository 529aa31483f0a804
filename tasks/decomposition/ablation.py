"""Replace a class's influential features, or other features, by noise (Badola et al., Table 8)."""

from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from tasks.decomposition.checks import Doubles, Floats, Positions, Seed, check_classes, check_features, entropy
from tasks.decomposition.histogram import FeatureMoments
from tasks.decomposition.overlap import membership

Masks = NDArray[np.bool_]
Scope = Literal["label", "predicted", "union"]
Which = Literal["influential", "others", "equal-size"]
SCOPES: tuple[str, ...] = get_args(Scope)
WHICH: tuple[str, ...] = get_args(Which)
NORMALS, SETS = 0, 1  # two random streams of one seed


class Noise(Protocol):
    """A function from standard normal draws (m, d) and the features' moments to the noise (m, d)."""

    def __call__(self, normals: Doubles, moments: FeatureMoments) -> Doubles: ...


def keep_normals(normals: Doubles, moments: FeatureMoments) -> Doubles:
    """Return N(0, 1) noise, as the authors do; parameters as in `Noise`."""
    return normals


def erase(normals: Doubles, moments: FeatureMoments) -> Doubles:
    """Return zeros, as Liang et al. do; parameters as in `Noise`."""
    return np.zeros_like(normals)


def match_moments(normals: Doubles, moments: FeatureMoments) -> Doubles:
    """Return normal noise with each feature's mean and deviation over all images; parameters as in `Noise`."""
    matched: Doubles = moments.mean + moments.std * normals
    return matched


NOISES: dict[str, Noise] = {
    "standard": keep_normals,
    "zero": erase,
    "feature_moments": match_moments,
}


def draw_normals(ids: NDArray[np.integer], n_features: int, *, seed: Seed, draw: int) -> Doubles:
    """Draw N(0, 1) for every image, as a function of seed, draw and the image's id alone.

    Parameters
    ----------
    ids : (m,) integer sample ids
    n_features : d
    seed : an integer or a sequence of them, none negative
    draw : which repetition, 0 or more

    Returns
    -------
    (m, d) float64; all scopes and choices of features use the same draw, so only the choice differs
    """
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise ValueError(f"ids: expected integers of shape (m,), found {ids.dtype} of shape {ids.shape}")
    normals = np.empty((len(ids), n_features))
    for row, sample in zip(normals, ids.tolist(), strict=True):
        np.random.default_rng(entropy(seed, NORMALS, draw, sample % 2**64)).standard_normal(out=row)
    return normals


def choose_replaced(
    indices: NDArray[np.integer],
    n_features: int,
    which: Which,
    *,
    scope: Scope = "label",
    present: Masks | None = None,
    seed: Seed = 0,
    draw: int = 0,
) -> Masks:
    """Choose the features that noise replaces in the images of each class.

    Parameters
    ----------
    indices : (C, k) integer, J_y of each class
    n_features : d
    which : "influential" J_y; "others" all but J_y; "equal-size" as many as J_y has, drawn from the others
        (all others where these are fewer)
    scope : "union" takes the union of all sets as J_y of every class; "label" and "predicted" differ only in the
        class of an image
    present : (C,) bool, classes with images; the sets of other classes are ignored, in the union too. None for all
    seed, draw : seed and index of the random order of "equal-size", which is new for every class and draw

    Returns
    -------
    (C, d) bool
    """
    if which not in WHICH or scope not in SCOPES:
        known = f"which in {', '.join(WHICH)}; scope in {', '.join(SCOPES)}"
        raise ValueError(f"expected {known}, found {which!r} and {scope!r}")
    there = np.ones(len(indices), bool) if present is None else present
    members = membership(indices, n_features) & there[:, None]
    if scope == "union":
        members = np.logical_or.reduce(members)[None]
    if which == "others":
        members = ~members
    if which == "equal-size":
        members = np.stack([_draw_others(row, entropy(seed, SETS, draw, y)) for y, row in enumerate(members)])
    chosen: Masks = np.broadcast_to(members, (len(indices), n_features)) & there[:, None]
    return chosen


def classes_of_scope(scope: Scope, labels: Positions, predictions: Positions) -> Positions:
    """Return the class (m,) that gives each image its set: the full head's prediction, or the label."""
    return predictions if scope == "predicted" else labels


def perturb(features: Floats, classes: NDArray[np.integer], replaced: Masks, noise: Doubles) -> Floats:
    """Replace some features of each image by noise.

    Parameters
    ----------
    features : (m, d) float, not changed
    classes : (m,) integer, the row of `replaced` for each image
    replaced : (C, d) bool
    noise : (m, d) float64

    Returns
    -------
    (m, d) float32, or float64 for float64 features
    """
    values = check_features(features, replaced.shape[1])
    rows = check_classes("classes", classes, len(values), len(replaced))
    if noise.shape != values.shape:
        raise ValueError(f"noise: expected shape {values.shape}, found {noise.shape}")
    perturbed: Floats = np.where(replaced[rows], noise.astype(values.dtype), values)
    return perturbed


def _draw_others(members: Masks, seed: list[int]) -> Masks:
    """Draw as many of the other features (d,) as there are members, at random."""
    others = np.flatnonzero(~members)
    size = min(int(members.sum()), len(others))
    drawn = np.zeros_like(members)
    drawn[np.random.default_rng(seed).choice(others, size, replace=False)] = True
    return drawn
