"""Regions with captions in steps: their source, their features, their division, and what a captioner says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.specs import StageSpec
from tasks.io.regions import Region, RegionFiles, RegionSource
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.concepts.encoder import Encoder

if TYPE_CHECKING:
    from tasks.detectors.caption_words import CaptionWords
    from tasks.detectors.captioner import Captioner
    from tasks.training.captioner import Plan, Regions

BATCH = 32  # images of one pass of the encoder, and neurons of one search
LENGTH = 15  # words of a caption that are learned


def caption_source(spec: StageSpec) -> RegionSource:
    """Return the regions with captions of a stage."""
    from tasks.io.drawn_regions import DrawnRegions

    captions = spec.place["captions"]
    if captions["kind"] == "files":
        return RegionFiles(captions["path"], captions["origin"])
    size = preprocessing_of(spec.parameters["network"]).resize
    assert isinstance(size, tuple)
    return DrawnRegions(int(captions["count"]), size[0], int(spec.place["seed"]))


def region_features(encoder: Encoder, source: RegionSource, rows: Sequence[Region]) -> NDArray[np.float32]:
    """Return the features (R, features) of regions, from one pass over their images."""
    of_image: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        of_image.setdefault(row.image, []).append(number)
    names = list(of_image)
    found: dict[int, NDArray[np.float32]] = {}
    for start in range(0, len(names), BATCH):
        batch = names[start : start + BATCH]
        images = [source.image(name) for name in batch]
        masks = [np.stack([source.mask(rows[number]) for number in of_image[name]]) for name in batch]
        for name, features in zip(
            batch, encoder.features(images, [m.astype(np.float32) for m in masks], batch), strict=True
        ):
            found |= dict(zip(of_image[name], features, strict=True))
    return np.stack([found[number] for number in range(len(rows))])


def divide(origins: Sequence[str], share: float, seed: int) -> tuple[NDArray[np.int64], ...]:
    """Return the rows to train on, those that stop the training, and those to test it; no origin is in two of them.

    Parameters
    ----------
    origins : of each row
    share : of the origins, at least one, that stop the training; as many test it
    seed : of the division
    """
    names = np.array(sorted(set(origins)))
    order = np.random.default_rng(seed).permutation(len(names))
    count = max(1, round(share * len(names)))
    at = np.empty(len(names), np.int64)
    at[order] = np.minimum(np.arange(len(names)) // count, 2)  # 0 test, 1 stopping, 2 training
    part = at[np.searchsorted(names, np.array(origins))]
    return tuple(np.flatnonzero(part == number) for number in (2, 1, 0))


def describe_captions(model: Captioner, words: CaptionWords, tested: Regions, plan: Plan) -> list[str]:
    """Return what a captioner says of the regions of each caption, in the order in which captions occur first."""
    import torch

    from tasks.detectors.captioning import Search, caption_regions
    from tasks.training.captioner import draw_exemplars

    _, first = np.unique(tested.caption, return_index=True)
    drawn = draw_exemplars(tested.caption, np.sort(first), plan.exemplars, np.random.default_rng(plan.seed))
    found = []
    for start in range(0, len(drawn), BATCH):
        rows = torch.from_numpy(drawn[start : start + BATCH])
        tokens, _ = caption_regions(model, tested.features[rows], Search(), 1)
        found += [words.text(row) for row in tokens[:, 0].tolist()]
    return found


def learned_regions(
    features: NDArray[np.float32], rows: Sequence[Region], at: NDArray[np.int64], words: CaptionWords
) -> Regions:
    """Return some regions as the training takes them."""
    import torch

    from tasks.training.captioner import Regions

    captions = [rows[number].caption for number in at]
    number = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    tokens = torch.from_numpy(words.encode(captions, LENGTH))
    return Regions(torch.from_numpy(features[at]), tokens, np.array([number[caption] for caption in captions]))
