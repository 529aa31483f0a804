"""Heat maps on images and thumbnails, worked by hand."""

import base64
import io

import matplotlib
import numpy as np
import pytest
from matplotlib import image as matplotlib_image

from tasks.figures.overlay import as_rgb, min_max, overlay, shrink, thumbnail, unique_thumbnails


def test_overlay_is_six_tenths_image_and_four_tenths_colour() -> None:
    image = np.array([[[100, 0, 255], [10, 20, 30]]], dtype=np.uint8)
    heat = np.array([[-1.0, 3.0]])  # min-max scaled to 0 and 1
    low, high = (np.array(matplotlib.colormaps["inferno"](x)[:3]) * 255 for x in (0.0, 1.0))
    expected = np.rint([[0.6 * image[0, 0] + 0.4 * low, 0.6 * image[0, 1] + 0.4 * high]])
    np.testing.assert_array_equal(overlay(image, heat), expected)
    assert overlay(image, heat)[0, 0].tolist() == [60, 0, 154]  # inferno begins at blue 3.5: 0.6 * 255 + 0.4 * 3.5


def test_overlay_of_a_grey_image_and_a_flat_map_keeps_the_greys_apart() -> None:
    image = np.array([[0, 200]], dtype=np.uint8)
    blended = overlay(image, np.full((1, 2), 7.0))
    np.testing.assert_array_equal(blended[0, 1].astype(int) - blended[0, 0], [120, 120, 120])


def test_overlay_leaves_its_inputs_alone_and_refuses_another_size() -> None:
    image, heat = np.zeros((2, 2, 3), np.uint8), np.eye(2)
    overlay(image, heat)
    assert not image.any()
    assert heat.sum() == 2
    with pytest.raises(ValueError, match=r"heat map: expected shape \(4, 4\), found \(2, 2\)"):
        overlay(np.zeros((4, 4), np.uint8), heat)


def test_min_max_treats_nan_and_infinity_as_the_ends() -> None:
    np.testing.assert_array_equal(min_max(np.array([2.0, 4.0, 6.0, np.nan, np.inf, -np.inf])), [0, 0.5, 1, 0, 1, 0])
    np.testing.assert_array_equal(min_max(np.array([np.nan, 3.0])), [0, 0])


def test_as_rgb_names_what_it_cannot_take() -> None:
    assert as_rgb(np.ones((2, 3, 1), np.uint8)).shape == (2, 3, 3)
    with pytest.raises(ValueError, match=r"shape \(2, 2, 4\) and uint8"):
        as_rgb(np.zeros((2, 2, 4), np.uint8))


def test_shrink_averages_areas() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1).repeat(3, axis=2) * 10
    np.testing.assert_array_equal(shrink(image, 2)[..., 0], [[25, 45], [105, 125]])
    thirds = np.array([0, 90, 240], dtype=np.uint8)[None, :, None].repeat(3, axis=2).repeat(3, axis=0)
    np.testing.assert_array_equal(shrink(thirds, 2)[0, :, 0], [30, 190])  # (0 + 90/2) / 1.5 and (90/2 + 240) / 1.5


def test_shrink_keeps_the_proportions_and_leaves_small_images() -> None:
    assert shrink(np.zeros((224, 300, 3), np.uint8)).shape == (72, 96, 3)
    assert shrink(np.zeros((500, 1, 3), np.uint8)).shape == (96, 1, 3)
    small = np.zeros((8, 8, 3), np.uint8)
    assert shrink(small) is small


def test_thumbnail_holds_the_very_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    made = thumbnail(image)
    png = base64.b64decode(made.uri.removeprefix("data:image/png;base64,"))
    decoded = np.rint(matplotlib_image.imread(io.BytesIO(png))[..., :3] * 255)
    np.testing.assert_array_equal(decoded, image)
    assert (made.width, made.height) == (8, 8)


def test_thumbnails_of_equal_content_are_one() -> None:
    grey, black = np.full((4, 4), 9, np.uint8), np.zeros((4, 4, 3), np.uint8)
    wide, high = np.zeros((2, 8, 3), np.uint8), np.zeros((8, 2, 3), np.uint8)  # equal bytes, other shape
    made = [thumbnail(image) for image in (grey, black, as_rgb(grey), wide, high)]
    assert [thumb.digest for thumb in unique_thumbnails(made)] == [made[i].digest for i in (0, 1, 3, 4)]
