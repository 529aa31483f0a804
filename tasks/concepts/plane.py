"""One plane for the neurons of all snapshots: fitted to the words' text features once."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tasks.detectors.checks import Array, check_matrix

Doubles = NDArray[np.float64]

METHODS = ("pca", "umap")


class Plane(Protocol):
    """A map from the space of texts to the plane."""

    def transform(self, embeddings: Array) -> Doubles:
        """Return (K, 2) float64 for (K, e) real."""
        ...


@dataclass(frozen=True, eq=False)
class PcaPlane:
    """The first two principal components of the words.

    Attributes
    ----------
    mean : (e,) float64
    axes : (e, 2) float64, orthonormal, the largest entry of each is positive; zeros where the words do not spread
    """

    mean: Doubles
    axes: Doubles

    def transform(self, embeddings: Array) -> Doubles:
        """Return (K, 2) float64 for (K, e) real."""
        points: Doubles = (_doubles("embeddings", embeddings, len(self.mean)) - self.mean) @ self.axes
        return points


@dataclass(frozen=True, eq=False)
class UmapPlane:
    """A fitted UMAP of the words with e features."""

    reducer: Any  # umap.UMAP, of an optional package without types
    n_features: int

    def transform(self, embeddings: Array) -> Doubles:
        """Return (K, 2) float64 for (K, e) real."""
        points = self.reducer.transform(_doubles("embeddings", embeddings, self.n_features))
        return np.asarray(points, dtype=np.float64)


def fit_plane(text: Array, method: str = "pca", seed: int = 0) -> Plane:
    """Fit the plane to the words' text features.

    Parameters
    ----------
    text : (S, e) real
    method : "pca", or "umap" with the package of the extra `umap`
    seed : of UMAP; PCA does not need one

    Returns
    -------
    Plane
    """
    if method not in METHODS:
        raise ValueError(f"plane: expected one of {', '.join(METHODS)}, found {method!r}")
    rows = _doubles("text", text, None)
    return _fit_pca(rows) if method == "pca" else _fit_umap(rows, seed)


def _fit_pca(rows: Doubles) -> PcaPlane:
    """Return the first two principal components."""
    mean = rows.mean(axis=0)
    _, values, vectors = np.linalg.svd(rows - mean, full_matrices=False)
    kept = vectors[:2][values[:2] > 1e-12 * max(float(values[0]), 1e-300)]
    axes = np.zeros((rows.shape[1], 2))
    for index, vector in enumerate(kept):
        axes[:, index] = vector * np.sign(vector[np.abs(vector).argmax()])
    return PcaPlane(mean, axes)


def _fit_umap(rows: Doubles, seed: int) -> UmapPlane:
    """Return a fitted UMAP."""
    try:
        import umap
    except ImportError as error:
        raise ValueError(
            "plane: expected the package umap-learn for umap, found none; install the extra `umap`, or take pca"
        ) from error
    neighbours = min(15, len(rows) - 1)
    return UmapPlane(umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit(rows), rows.shape[1])


def _doubles(name: str, values: Array, width: int | None) -> Doubles:
    """Return checked rows as NumPy array in float64."""
    result: Doubles = check_matrix(name, values, (None, width)).detach().double().cpu().numpy()
    return result
