"""Tests of `tasks.io.annotations`."""

import numpy as np
import pytest

from tasks.io.annotations import annotations_of, coverage, vocabulary_of
from tasks.io.digits import DigitsSource
from tasks.io.mini_broden import MiniBrodenSource


def test_coverage_by_hand() -> None:
    masks = np.zeros((2, 2, 2, 4), dtype=np.int32)
    masks[0, 0, 0] = 1  # half of the first image
    masks[0, 1] = 3  # all of it
    masks[1, 0, 0, 0] = 2
    masks[1, 1, :, 0] = 2  # a pixel of this label is in both planes
    np.testing.assert_array_equal(coverage(masks, 5), [[0, 0.5, 0, 1, 0], [0, 0, 0.25, 0, 0]])
    assert masks[1, 1, 0, 0] == 2  # the input is unchanged


def test_coverage_equals_a_loop() -> None:
    masks = np.random.default_rng(0).integers(0, 6, (3, 4, 5, 7)).astype(np.int32)
    expected = [[np.mean((image == label).any(axis=0)) if label else 0 for label in range(6)] for image in masks]
    np.testing.assert_allclose(coverage(masks, 6), expected, rtol=0, atol=1e-15)


def test_number_zero_is_nothing() -> None:
    vocabulary = vocabulary_of([("water", "object"), ("water", "material")], ["material", "object"])
    assert vocabulary.names == ("-", "water", "water")
    np.testing.assert_array_equal(vocabulary.category_of, [-1, 1, 0])


def test_a_source_without_label_maps_is_named() -> None:
    source = MiniBrodenSource(1, 32, 0)
    assert annotations_of(source) is source
    with pytest.raises(ValueError, match="expected a probing set with label maps, found DigitsSource without them"):
        annotations_of(DigitsSource())
