"""The feature maps of the gallery, against the network's own maps."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.datasets import load_digits

from tests.tasks.steps.decomposition.loops import answer, model_of, opened

if TYPE_CHECKING:
    from tests.conftest import Run


def test_the_gallery_shows_where_features_are(decomposed_run: "Run") -> None:
    found = answer(decomposed_run)
    assert found.gallery is not None
    stage, evaluate = opened(decomposed_run, found.gallery), opened(decomposed_run, found.evaluate)
    model, order = model_of(decomposed_run), opened(decomposed_run, found.histogram).read("order").astype(np.int64)
    maps = stage.read("maps").astype(np.float64)
    assert maps.shape == (3, 3, 8, 8)
    for row, (sample, label) in enumerate(zip(stage.read("sample_id"), stage.read("label").tolist(), strict=True)):
        x = torch.tensor(np.rint(load_digits().images[sample] * 255 / 16) / 255)[None, None]
        with torch.inference_mode():
            last = model[:9](x)[0].numpy()
        mean = last.mean(0)
        expected = [mean, last[order[label, -4:]].mean(0) - mean, last[order[label, :4]].mean(0) - mean]
        for kind, small in enumerate(expected):
            np.testing.assert_allclose(maps[row, kind].mean(), small.mean(), atol=1e-4)
            np.testing.assert_allclose(maps[row, kind, 0, 0], small[0, 0], atol=1e-4)  # corners are kept
            np.testing.assert_allclose(maps[row, kind, -1, -1], small[-1, -1], atol=1e-4)
    assert set(stage.read("sample_id").tolist()) <= set(evaluate.read("sample_id").tolist())
