"""Planted neurons with maps: the share of each cell of a grid that a label covers, with noise, for Network Dissection.

At most `MAX_IMAGES` images, evenly spread, take part: the label maps of each are read three times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from storage.stores import Store
from tasks.figures.overlay import area_weights
from tasks.io.words import WordList
from tasks.steps.common.manifest import positions
from tasks.steps.common.trials import spread
from tasks.steps.concepts.annotations import LabelMaps
from tasks.steps.concepts.layer_maps import CHUNK_IMAGES
from tasks.steps.concepts.network_dissection import NULL, TRUE, count_pixels, word_similarity
from tasks.steps.concepts.truth import Named

GRID = 14  # rows and columns of a planted map
MAX_IMAGES = 4096

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Grids:
    """What each label covers of the cells of a grid, on all images; labels that an image does not have are left out.

    Attributes
    ----------
    labels : of each image, label numbers (p,)
    shares : of each image, (p, GRID, GRID) float32
    n_labels : L, with number 0
    """

    labels: tuple[NDArray[np.int64], ...]
    shares: tuple[Floats, ...]
    n_labels: int

    def deviation(self) -> NDArray[np.float64]:
        """Return the standard deviation of each label's shares over all images and cells, (L,)."""
        sums = np.zeros((2, self.n_labels))
        for numbers, shares in zip(self.labels, self.shares, strict=True):
            wide = shares.astype(np.float64)
            sums[0, numbers] += wide.sum(axis=(1, 2))
            sums[1, numbers] += (wide**2).sum(axis=(1, 2))
        mean, square = sums / (len(self.labels) * GRID * GRID)
        deviation: NDArray[np.float64] = np.sqrt(np.maximum(square - mean**2, 0.0))
        return deviation

    def maps(self, noise: float, seed: int) -> Iterator[tuple[int, Floats]]:
        """Yield (position of the first image, maps (n, L, GRID, GRID)) with the same noise each time."""
        spread_of = (noise * self.deviation()).astype(np.float32)[:, None, None]
        for start in range(0, len(self.labels), CHUNK_IMAGES):
            stop = min(start + CHUNK_IMAGES, len(self.labels))
            maps = np.empty((stop - start, self.n_labels, GRID, GRID), np.float32)
            for position in range(start, stop):
                drawn = np.random.default_rng((seed, position)).standard_normal(maps.shape[1:], np.float32)
                np.multiply(drawn, spread_of, out=maps[position - start])
                maps[position - start, self.labels[position]] += self.shares[position]
            yield start, maps


def read_grids(masks: LabelMaps) -> Grids:
    """Return what each label covers of the cells of a grid."""
    found = []
    for start in range(0, len(masks), CHUNK_IMAGES):
        at = np.arange(start, min(start + CHUNK_IMAGES, len(masks)))
        found += [label_grids(planes) for planes in masks.read(at)]
    labels, shares = zip(*found, strict=True)
    return Grids(labels, shares, len(masks.source.vocabulary().names))


def label_grids(planes: NDArray[np.int32]) -> tuple[NDArray[np.int64], Floats]:
    """Return the labels (p,) of an image's label maps (P, H, W), and the share of each cell that each covers."""
    rows, columns = (area_weights(size, GRID) for size in planes.shape[1:])
    numbers = np.setdiff1d(planes, [0]).astype(np.int64)
    regions = [(planes == number).any(axis=0).astype(np.float64) for number in numbers]
    shares = [rows @ region @ columns.T for region in regions]
    return numbers, np.array(shares, np.float32).reshape(len(numbers), GRID, GRID)


def dissect_planted(store: Store, spec: StageSpec) -> Named:
    """Return planted neurons as Network Dissection names them."""
    from tasks.concepts.nulls import shuffled_images
    from tasks.detectors.tallies import Tallies
    from tasks.detectors.thresholds import TopValues

    settings, manifest = spec.parameters["settings"], spec.inputs["data"]
    split, noise, seed = (spec.parameters[name] for name in ("split", "noise", "seed"))
    chosen = spread(len(positions(store, manifest.path, split)), MAX_IMAGES)
    masks = LabelMaps(store, manifest, split, chosen)
    grids = read_grids(masks)
    top = TopValues(len(masks) * GRID * GRID, float(settings["quantile"]))
    for _, maps in grids.maps(noise, seed):
        top.update(maps)
    threshold, restriction = top.threshold(), str(settings["category_restriction"])
    exchanged = shuffled_images(len(masks), seed)
    counts = count_pixels(grids.maps(noise, seed), masks, exchanged, threshold, restriction)
    vocabulary = masks.source.vocabulary()
    found, null = (
        word_similarity(
            Tallies.of(counts[name], vocabulary.category_of, threshold, restriction).result().iou, vocabulary
        )
        for name in (TRUE, NULL)
    )
    words = WordList.of_vocabulary(vocabulary)
    word = words.label_positions(vocabulary)
    planted = np.flatnonzero((word >= 0) & (grids.deviation() > 0))
    return Named(word[planted], tuple(words.words[index] for index in word[planted]), found[planted], null[planted])
