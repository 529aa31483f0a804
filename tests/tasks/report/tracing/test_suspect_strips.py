"""Suspects on the page: each with its file name, as its teachers have."""

import numpy as np
import pandas as pd

from tasks.report.pages import Image
from tasks.report.tracing.suspects import suspect_strips


def test_a_suspect_has_its_file_name() -> None:
    row = {"network": "net", "seed": 0, "rank": 1, "data": "pets", "sample_id": 7, "key": "cats/7.png", "shown": True}
    row |= {"given": "dog", "truth": None, "says": "cat", "score": 3.5, "disagreement": 0.9}
    images: dict[tuple[str, int], Image] = {("pets", 7): np.zeros((4, 4, 3), np.uint8)}
    teachers = pd.DataFrame(columns=["network", "seed", "sample_id", "shown", "data", "example_id"])
    strips, thumbs = suspect_strips(pd.DataFrame([row]), teachers, images)
    assert [strip.title for strip in strips] == ["net, seed 0"]
    (suspect,) = strips[0].rows
    assert suspect.taught == ()
    assert suspect.example.details == ("network: cat", "others near: 90.0\u00a0%", "sample 7", "cats/7.png")
    assert len(thumbs) == 1
