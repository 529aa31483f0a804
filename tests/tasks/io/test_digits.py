"""Tests of `tasks.io.digits`."""

import numpy as np
from sklearn.datasets import load_digits

from tasks.io.digits import DigitsSource
from tasks.io.samples import array_digest, mode_of


def test_digits_are_scaled_to_bytes_in_scikit_learns_order() -> None:
    source, truth = DigitsSource(), load_digits()
    rows = list(source.rows())
    assert len(rows) == 1797
    assert [row.label for row in rows] == truth.target.tolist()
    assert rows[7] == ("all/7", 7, "all", 64, "")
    sample = source.read(["all/1700", "all/0"])[1]
    levels = truth.images[0]
    np.testing.assert_array_equal(np.asarray(sample.image)[levels == 16], 255)
    np.testing.assert_array_equal(np.asarray(sample.image)[levels == 0], 0)
    np.testing.assert_array_equal(np.asarray(sample.image)[levels == 8], 128)  # 127.5, half to even
    assert mode_of(sample.image) == "L"
    assert sample.digest == array_digest(np.asarray(sample.image))


def test_every_image_is_scikit_learns() -> None:
    source, truth = DigitsSource(), load_digits()
    found = np.stack([np.asarray(sample.image) for sample in source.read([row.key for row in source.rows()])])
    np.testing.assert_array_equal(found, np.rint(truth.images * (255 / 16)))


def test_class_names_are_the_digits() -> None:
    assert DigitsSource().class_names()[9] == "9"
