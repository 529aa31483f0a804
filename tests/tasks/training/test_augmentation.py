"""Augmentation: each sample's crop and flip are its own, whatever else is in its batch."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tasks.training.augmentation import crop_and_flip, hash_ids

IMAGES = torch.arange(1.0, 40 * 2 * 5 * 6 + 1).reshape(40, 2, 5, 6)
IDS = np.arange(40, dtype=np.int64) * 7 - 20


def test_a_sample_alone_is_the_same_as_in_any_batch() -> None:
    whole = crop_and_flip(IMAGES, IDS, seed=1, epoch=3, pad=2, flip=True)
    order = np.random.default_rng(0).permutation(40)[:9]
    part = crop_and_flip(IMAGES[torch.from_numpy(order)], IDS[order], seed=1, epoch=3, pad=2, flip=True)
    assert torch.equal(part, whole[torch.from_numpy(order)])
    for i in range(40):
        alone = crop_and_flip(IMAGES[i : i + 1], IDS[i : i + 1], seed=1, epoch=3, pad=2, flip=True)
        assert torch.equal(alone[0], whole[i])


def test_every_result_is_one_of_the_crops_or_its_mirror() -> None:
    whole = crop_and_flip(IMAGES, IDS, seed=0, epoch=0, pad=1, flip=True)
    padded, seen = F.pad(IMAGES, (1, 1, 1, 1)), set()
    for image, found in zip(padded, whole, strict=True):
        crops = {
            (top, left, flip): image[:, top : top + 5, left : left + 6].flip(-1 if flip else [])
            for top in range(3)
            for left in range(3)
            for flip in (False, True)
        }
        matching = [key for key, crop in crops.items() if torch.equal(crop, found)]
        assert len(matching) == 1
        seen.add(matching[0])
    assert len(seen) > 12  # of 18


def test_crops_and_flips_are_uniform() -> None:
    n = 9000
    images = torch.zeros(n, 1, 3, 3)
    images[:, 0, 1, 0] = 1  # left of the middle
    ids = np.random.default_rng(0).integers(-(2**62), 2**62, n)
    found = crop_and_flip(images, ids, seed=5, epoch=2, pad=1, flip=True)
    rows = found.sum((0, 1, 3)).numpy()
    assert found.sum() > 0
    np.testing.assert_allclose(rows / rows.sum(), 1 / 3, atol=0.02)
    flips = (hash_ids(ids, 5, 2) >> np.uint64(63)).mean()
    assert abs(flips - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_seed_and_epoch_change_it_and_nothing_else_does() -> None:
    first = crop_and_flip(IMAGES, IDS, seed=0, epoch=0, pad=2, flip=True)
    assert torch.equal(first, crop_and_flip(IMAGES, IDS, seed=0, epoch=0, pad=2, flip=True))
    for seed, epoch in ((1, 0), (0, 1)):
        assert not torch.equal(first, crop_and_flip(IMAGES, IDS, seed=seed, epoch=epoch, pad=2, flip=True))


def test_without_pad_and_flip_images_stay() -> None:
    before = IMAGES.clone()
    assert torch.equal(crop_and_flip(IMAGES, IDS, seed=0, epoch=0), before)
    crop_and_flip(IMAGES, IDS, seed=0, epoch=0, pad=2, flip=True)
    assert torch.equal(IMAGES, before)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"augment: expected images \(n, C, h, w\) and n ids, found shape \(40, 5\)"):
        crop_and_flip(torch.ones(40, 5), IDS, seed=0, epoch=0, pad=1)
