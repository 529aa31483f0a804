"""Outlines of regions, by hand."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tasks.figures.outline import BRIGHT, enlarge, outline, resize_map


@pytest.mark.parametrize(("side", "large"), [(8, 96), (32, 96), (40, 80), (64, 64), (96, 96), (120, 120)])
def test_small_images_are_repeated(side: int, large: int) -> None:
    image = np.random.default_rng(0).integers(0, 255, (side, side // 2, 3), np.uint8)
    found = enlarge(image)
    assert found.shape == (large, large // side * (side // 2), 3)
    np.testing.assert_array_equal(found[:: large // side, :: large // side], image)


def test_the_edge_of_a_region_is_bright() -> None:
    image = np.full((5, 6, 3), 9, np.uint8)
    region = np.zeros((5, 6), bool)
    region[1:4, 0:4] = True
    expected = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 0, 0, 1, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ],
        bool,
    )
    found = outline(image, region)
    assert (found[expected] == BRIGHT).all()
    assert (found[~expected] == 9).all()
    assert (image == 9).all()
    assert (outline(image, np.zeros_like(region)) == 9).all()


@pytest.mark.parametrize("size", [(9, 16), (4, 3), (5, 7), (1, 1)])
def test_maps_are_resized_as_torch_does(size: tuple[int, int]) -> None:
    values = np.random.default_rng(1).normal(size=(5, 7))
    expected = F.interpolate(torch.from_numpy(values)[None, None], size, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(resize_map(values, size), expected.numpy(), atol=1e-12)
