"""Images that a network is tried on: a few of the split that it reads, spread over its classes."""

from collections.abc import Sequence

import numpy as np
import pytest

from configs.schema import Preprocessing
from tasks.io.samples import Sample
from tasks.steps.common.trials import read_examples, spread


class Grey:
    """A source of grey images: key "7" is one of brightness 7, "x" cannot be read, "wide" is of another size."""

    def __init__(self, side: int = 4) -> None:
        self.side = side
        self.asked: list[str] = []

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return samples."""
        self.asked += keys
        if "x" in keys:
            raise ValueError("sample x: no image")
        shapes = [(self.side, self.side + (key == "wide")) for key in keys]
        values = [int(key) if key.isdigit() else 0 for key in keys]
        return [
            Sample(np.full(shape, value, np.uint8), f"{value:032x}")
            for shape, value in zip(shapes, values, strict=True)
        ]


def brightness(keys: Sequence[str], side: int = 4) -> list[int]:
    """Return the brightness of the images that a network is tried on."""
    images = read_examples(Grey(side), Preprocessing(mode="L"), keys)  # type: ignore[arg-type]  # all that is used
    return [round(255 * float(image.mean())) for image in images]


def test_the_images_are_spread_over_the_split() -> None:
    assert brightness([str(i) for i in range(5)]) == [0, 1, 2, 3, 4]
    found = brightness([str(i) for i in range(200)])
    assert (found[0], found[-1], len(found)) == (0, 199, 16)
    assert set(np.diff(found)) <= {13, 14}
    assert brightness(["9"]) == [9]


def test_large_images_are_few() -> None:
    keys = [str(i) for i in range(101)]
    assert brightness(keys, side=400) == [0, 50, 100]  # 640,000 bytes each: three in 2 MiB
    assert brightness(keys, side=1000) == [0, 100]


def test_images_that_cannot_be_used_are_left_to_the_stage_that_names_them() -> None:
    assert brightness(["3", "x", "wide", "5"]) == [3, 5]
    with pytest.raises(ValueError, match="sample x: no image"):
        brightness(["x", "3"])


def test_positions_are_spread_from_first_to_last() -> None:
    assert spread(1).tolist() == [0]
    assert spread(9, 3).tolist() == [0, 4, 8]
    assert spread(3, 16).tolist() == [0, 1, 2]
