"""Network Dissection against a loop over single pixels, by hand, and its bad input."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tasks.detectors.bits import area, pack
from tasks.detectors.dissection import RESTRICTIONS, Dissection, best_labels, passing_cover
from tasks.detectors.enlarged import enlarged_masks
from tasks.detectors.network_dissection import dissect
from tasks.detectors.tallies import Tallies
from tasks.detectors.unit_table import unit_table

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

LABELS = np.array([-1, 0, 1, 0, 2, 1])  # number 0 is nothing; three categories


def scenes(seed: int = 0, n: int = 5, planes: int = 3) -> tuple[Doubles, Longs]:
    """Maps (n, 4, 3, 5) and masks (n, planes, 12, 13): regions, a label of a whole image, an image without labels."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(n, 4, 3, 5))
    masks = np.kron(rng.integers(0, 6, (n, planes, 4, 5)), np.ones((3, 3), dtype=np.int64))[..., :12, :13]
    masks[0, 1], masks[1] = 4, 0
    masks[2, 2], masks[2, 0, :6] = 3, 3  # label 3 on two planes: each pixel counts once
    return maps, masks


def enlarged(image: Doubles, size: tuple[int, int]) -> Doubles:
    """One map, by torch."""
    return F.interpolate(torch.from_numpy(image)[None, None], size=size, mode="bilinear", align_corners=False)[
        0, 0
    ].numpy()


def pixel_loop(maps: Doubles, masks: Longs, threshold: Doubles, restriction: str) -> dict[str, Longs]:
    """Every count, pixel by pixel."""
    n, n_planes, height, width = masks.shape
    counts = {"intersection": np.zeros((4, 6), int), "label_area": np.zeros(6, int), "unit_area": np.zeros((4, 3), int)}
    for image in range(n):
        large = [enlarged(maps[image, unit], (height, width)) for unit in range(4)]
        in_image = {int(LABELS[number]) for number in masks[image].ravel() if number}
        for y in range(height):
            for x in range(width):
                numbers = {int(masks[image, plane, y, x]) for plane in range(n_planes)} - {0}
                here = {"image": in_image, "region": {int(LABELS[i]) for i in numbers}, "none": {0, 1, 2}}[restriction]
                counts["label_area"][list(numbers)] += 1
                for unit in range(4):
                    if large[unit][y, x] > threshold[unit]:
                        counts["intersection"][unit, list(numbers)] += 1
                        counts["unit_area"][unit, list(here)] += 1
    return counts


@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("quantile", [0.02, 0.3])
def test_counts_equal_a_loop_over_single_pixels(restriction: str, quantile: float) -> None:
    maps, masks = scenes()
    threshold = np.quantile(np.moveaxis(maps, 1, 0).reshape(4, -1), 1 - quantile, axis=1)
    result = dissect(maps, masks, LABELS, quantile=quantile, category_restriction=restriction)
    np.testing.assert_array_equal(result.threshold, threshold)
    expected = pixel_loop(maps, masks, threshold, restriction)
    for name, counts in expected.items():
        assert getattr(result, name).dtype.kind == "i"
        np.testing.assert_array_equal(getattr(result, name), counts, err_msg=name)
    for unit in range(4):
        for number in range(6):
            both = expected["intersection"][unit, number]
            union = expected["unit_area"][unit, LABELS[number]] + expected["label_area"][number] - both
            assert result.iou[unit, number] == (both / union if number and union else 0)


@pytest.mark.parametrize("restriction", RESTRICTIONS)
def test_chunks_of_images_and_of_units_add_up(restriction: str) -> None:
    maps, masks = scenes(n=6)
    whole = dissect(maps, masks, LABELS, quantile=0.2, category_restriction=restriction)
    tallies = [Tallies(LABELS, whole.threshold, restriction) for _ in range(2)]
    for which, rows in ((1, slice(4, 6)), (0, slice(0, 1)), (1, slice(1, 4))):
        tallies[which].update(maps[rows], masks[rows])
    stored = Tallies.of(tallies[0].arrays(), LABELS, whole.threshold, restriction)
    merged = stored.merge(tallies[1]).result()
    halves = [
        dissect(maps[:, part], masks, LABELS, threshold=whole.threshold[part], category_restriction=restriction)
        for part in (slice(0, 1), slice(1, 4))
    ]
    for name in ("intersection", "unit_area", "iou"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
        np.testing.assert_array_equal(np.concatenate([getattr(half, name) for half in halves]), getattr(whole, name))
    np.testing.assert_array_equal(merged.label_area, whole.label_area)


def test_by_hand() -> None:
    # one unit on in the left half; label 1 covers the top half, label 2 (same category) the rest, label 3 nothing
    maps = np.array([[[[1.0, 0.0]]]])
    masks = np.array([[[[1, 1, 1, 1], [2, 2, 2, 2]]]])
    result = dissect(maps, masks, np.array([-1, 0, 0, 1]), threshold=np.array([0.5]))
    np.testing.assert_array_equal(result.intersection, [[0, 2, 2, 0]])
    np.testing.assert_array_equal(result.label_area, [0, 4, 4, 0])
    np.testing.assert_array_equal(result.unit_area, [[4, 0]])  # no image has the second category
    np.testing.assert_array_equal(result.iou, [[0, 1 / 3, 1 / 3, 0]])
    best = best_labels(result)
    np.testing.assert_array_equal(best.label, [1])  # the lower number of the two
    np.testing.assert_array_equal(best.category_label, [[1, 0]])
    np.testing.assert_array_equal(best.category_iou, [[1 / 3, 0]])


def test_the_table_of_units_by_hand() -> None:
    labels = np.array([-1, 1, 0])
    counts = np.array([[0, 3, 2], [0, 0, 0]]), np.array([0, 6, 4]), np.array([[5, 5], [0, 7]])
    table = unit_table(Dissection(*counts, np.zeros(2), labels), ["nothing", "sky", "cat"], ["object", "scene"])
    sides = ("label", "truth", "activation", "intersect", "iou")
    assert list(table.columns) == [
        *("unit", "category", "label", "score"),
        *(f"{category}-{side}" for category in ("object", "scene") for side in sides),
    ]
    rows = table.to_numpy().tolist()
    assert rows[0] == [1, "scene", "sky", 3 / 8, "cat", 4, 5, 2, 2 / 7, "sky", 6, 5, 3, 3 / 8]
    assert rows[1] == [2, "", "", 0.0, "", 0, 0, 0, 0.0, "", 0, 7, 0, 0.0]
    with pytest.raises(ValueError, match="expected 3 labels and at least 2 categories, found 2 and 2"):
        unit_table(Dissection(*counts, np.zeros(2), labels), ["sky", "cat"], ["object", "scene"])


def test_categories_without_labels_have_columns_of_zeros() -> None:
    maps, masks = np.array([[[[1.0, 0.0]]]]), np.array([[[[1, 0], [1, 0]]]])
    dissection = dissect(maps, masks, np.array([-1, 1]), threshold=np.array([0.5]), category_restriction="none")
    table = unit_table(dissection, ["", "sky"], ["part", "scene", "color"])
    assert table.to_numpy().tolist() == [
        [1, "scene", "sky", 1, *("", 0, 0, 0, 0), *("sky", 2, 2, 2, 1), *("", 0, 0, 0, 0)]
    ]


def test_a_mask_is_strictly_above_its_threshold() -> None:
    masks = np.ones((2, 1, 7, 11), dtype=np.uint8)
    for value in (0.1, 1 / 3, -2.7, 0.0):
        constant = np.full((2, 1, 3, 4), value)
        result = dissect(constant, masks, np.array([-1, 0]))  # the threshold is the value itself
        np.testing.assert_array_equal(result.threshold, [value])
        np.testing.assert_array_equal(result.unit_area, [[0]])
        just_below = np.array([np.nextafter(value, -np.inf)])
        assert dissect(constant, masks, np.array([-1, 0]), threshold=just_below).unit_area == [[2 * 77]]
    # a part that equals the threshold, enlarged next to a part above it
    maps = np.array([[[[0.1, 0.1, 0.1, 9.0]]]])
    assert dissect(maps, masks[:1], np.array([-1, 0]), threshold=np.array([0.1])).unit_area == [[7 * 4]]


@pytest.mark.parametrize("size", [(12, 13), (3, 5), (30, 17), (2, 3), (1, 1), (64, 65)])
def test_enlargement_equals_torchs(size: tuple[int, int]) -> None:
    maps = np.random.default_rng(1).normal(size=(6, 3, 5))
    threshold = np.linspace(-1, 1, 6)
    expected = np.stack([enlarged(image, size) for image in maps]) > threshold[:, None, None]
    np.testing.assert_array_equal(enlarged_masks(maps, threshold, size), pack(expected))


def test_packed_masks_have_the_pixels_of_the_masks() -> None:
    masks = np.random.default_rng(2).random((4, 9, 13)) < 0.4
    bits = pack(masks)
    np.testing.assert_array_equal(area(bits), masks.sum(axis=(1, 2)))
    np.testing.assert_array_equal(area(bits[:1] & bits), (masks[:1] & masks).sum(axis=(1, 2)))


def test_wide_and_narrow_inputs_agree_and_are_not_changed() -> None:
    maps, masks = scenes()
    half = maps.astype(np.float16)
    before = half.copy(), masks.copy()
    narrow = dissect(half, masks.astype(np.int16), LABELS.astype(np.int8), quantile=0.1)
    wide = dissect(half.astype(np.float64), masks, LABELS, quantile=0.1)
    for name in ("intersection", "label_area", "unit_area", "threshold"):
        np.testing.assert_array_equal(getattr(narrow, name), getattr(wide, name))
    np.testing.assert_array_equal(half, before[0])
    np.testing.assert_array_equal(masks, before[1])


def test_images_without_annotation_count_under_no_restriction_only() -> None:
    maps = np.ones((1, 2, 2, 2))
    for planes in (0, 1):
        empty = np.zeros((1, planes, 3, 3), dtype=np.int64)
        areas = {
            restriction: dissect(
                maps, empty, LABELS, threshold=np.zeros(2), category_restriction=restriction
            ).unit_area.tolist()
            for restriction in RESTRICTIONS
        }
        assert areas == {"image": [[0] * 3] * 2, "region": [[0] * 3] * 2, "none": [[9] * 3] * 2}


def test_labels_that_cover_too_much_cannot_pass() -> None:
    assert passing_cover(0.005, 0.04) == 0.125
    assert passing_cover(0.05, 0.04) == 1.0
    # a unit inside its label: IoU = unit area / label area
    maps, masks = np.zeros((1, 1, 10, 10)), np.ones((1, 1, 10, 10), dtype=int)
    maps[0, 0, 0, 0] = 1.0
    for cover in (10, 20, 50):
        masks.reshape(-1)[:] = np.arange(100) < cover
        iou = dissect(maps, masks, np.array([-1, 0]), threshold=np.array([0.5])).iou[0, 1]
        assert (iou >= 0.04) == (cover / 100 <= passing_cover(0.01, 0.04))


Case = tuple[dict[str, Any], str]  # Any: arguments of dissect
BAD: list[Case] = [
    ({"maps": np.zeros((5, 4, 3))}, r"maps: expected 4 axes, none of size 0, found shape \(5, 4, 3\)"),
    ({"maps": np.full((5, 4, 3, 5), np.nan)}, "maps: expected finite values, found NaN or inf in 5 of 5 images"),
    ({"masks": np.zeros((4, 1, 2, 2), dtype=int)}, r"masks: expected shape \(5, planes, H, W\), found \(4, 1, 2, 2\)"),
    ({"masks": np.zeros((5, 2, 2), dtype=int)}, r"masks: expected shape \(5, planes, H, W\), found \(5, 2, 2\)"),
    ({"masks": np.full((5, 1, 2, 2), 6)}, "masks: expected label numbers 0..5, found 6 in image 0 .*, plane 0"),
    ({"masks": np.full((5, 1, 2, 2), -1)}, "masks: expected label numbers 0..5, found -1"),
    ({"labels": np.array([0, 1])}, "labels: expected the category index of each label number, -1 for number 0 alone"),
    ({"labels": np.array([-1, 0, -1])}, "labels: expected the category index"),
    ({"quantile": 1.5}, "quantile: expected a share 0 to 1, found 1.5"),
    ({"threshold": np.zeros(3)}, "maps: expected 3 units, one per threshold, found 4"),
    ({"threshold": np.full(4, np.nan)}, r"threshold: expected \(K,\) numbers, not NaN"),
    ({"category_restriction": "all"}, "category_restriction: expected one of .*, found 'all'"),
]


@pytest.mark.parametrize(("changed", "expected"), BAD)
def test_bad_input_is_named(changed: dict[str, Any], expected: str) -> None:
    maps, masks = scenes()
    with pytest.raises(ValueError, match=f"^{expected}"):
        dissect(**{"maps": maps, "masks": masks, "labels": LABELS, **changed})


def test_other_types_are_named() -> None:
    maps, masks = scenes()
    with pytest.raises(TypeError, match="masks: expected a NumPy array of integers, found float64"):
        dissect(maps, masks.astype(float), LABELS)
    with pytest.raises(TypeError, match=r"maps: expected a NumPy array of real numbers, found torch.float64"):
        dissect(torch.from_numpy(maps), masks, LABELS)  # type: ignore[arg-type]  # the error is the point


def test_masks_of_another_size_than_the_chunks_before() -> None:
    maps, masks = scenes()
    tallies = Tallies(LABELS, np.zeros(4)).update(maps, masks)
    with pytest.raises(
        ValueError, match=r"masks: expected \(12, 13\) pixels, as in the images before, found \(12, 12\)"
    ):
        tallies.update(maps, masks[..., :12])
    with pytest.raises(ValueError, match=r"merge: expected masks of \(12, 13\) pixels, found \(12, 12\)"):
        tallies.merge(Tallies(LABELS, np.zeros(4)).update(maps, masks[..., :12]))
    with pytest.raises(ValueError, match="merge: expected the same labels, thresholds and restriction"):
        tallies.merge(Tallies(LABELS, np.ones(4)))
