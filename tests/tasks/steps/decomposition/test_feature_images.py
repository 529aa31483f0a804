"""The most activating images of each class's features, against sorted lists and the network's own maps."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tasks.steps.decomposition import feature_images
from tasks.steps.decomposition.results import decomposition_results
from tests.plans import decomposed
from tests.tasks.steps.decomposition.loops import Doubles, answer, model_of, opened

if TYPE_CHECKING:
    from pathlib import Path

    from storage.stages import FinishedStage
    from tests.conftest import Run


@pytest.fixture
def images(decomposed_run: "Run") -> "FinishedStage":
    """The most activating images of the decomposed run."""
    found = answer(decomposed_run)
    assert found.pictures is not None
    return opened(decomposed_run, found.pictures.inputs["images"])


def test_images_are_those_of_a_sorted_list(decomposed_run: "Run", images: "FinishedStage") -> None:
    found = answer(decomposed_run)
    learn, order = opened(decomposed_run, found.learn), opened(decomposed_run, found.histogram).read("order")
    values, ids, labels = (learn.read(name) for name in ("features", "sample_id", "label"))
    assert sorted(images.read("feature").tolist()) == sorted({int(j) for row in order[:, :4] for j in row})
    for row, feature in enumerate(images.read("feature").tolist()):
        expected = sorted(range(len(values)), key=lambda i: (-abs(values[i, feature]), i))[:4]
        assert images.read("position")[row].tolist() == expected
        assert images.read("sample_id")[row].tolist() == ids[expected].tolist()
        assert images.read("label")[row].tolist() == labels[expected].tolist()
        np.testing.assert_array_equal(images.read("value")[row], abs(values[expected, feature]))
    (*_, head) = model_of(decomposed_run).children()
    weight = next(head.parameters()).detach().numpy()
    for label in range(10):
        np.testing.assert_allclose(images.read("weight")[label], weight[label, order[label, :4].astype(int)], rtol=1e-6)


def box_by_hand(values: Doubles) -> list[float]:
    """Return the box around the region of a map's peak, in shares, from a walk over neighbours."""
    height, width = values.shape
    level = (values.min() + values.max()) / 2
    waiting, region = [tuple(np.argwhere(values == values.max())[0])], set()
    while waiting:
        row, column = waiting.pop()
        inside = 0 <= row < height and 0 <= column < width
        if inside and (row, column) not in region and values[row, column] >= level:
            region.add((row, column))
            waiting += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    rows, columns = zip(*region, strict=True)
    return [min(rows) / height, min(columns) / width, (max(rows) + 1) / height, (max(columns) + 1) / width]


def test_boxes_are_where_the_networks_own_maps_are_large(decomposed_run: "Run", images: "FinishedStage") -> None:
    found, model = answer(decomposed_run), model_of(decomposed_run)
    assert found.pictures is not None
    pictures = opened(decomposed_run, found.pictures)
    boxes, at = pictures.read("box").astype(np.float64), pictures.read("position").tolist()
    assert at == sorted({*images.read("position").ravel().tolist()})  # each image once
    sizes = []
    for row, feature in enumerate(images.read("feature").tolist()):
        for rank, sample in enumerate(images.read("sample_id")[row].tolist()):
            pixels = np.rint(load_digits().images[sample] * 255 / 16)
            shown = pictures.read("picture")[at.index(int(images.read("position")[row, rank]))]
            np.testing.assert_array_equal(shown, np.repeat(pixels[..., None], 3, axis=2))
            with torch.inference_mode():
                last = model[:9](torch.tensor(pixels / 255)[None, None])[0, feature].numpy()
            if np.sort(np.abs(last - (last.min() + last.max()) / 2), axis=None)[0] > 1e-5:  # no rounding decides
                np.testing.assert_allclose(boxes[row, rank], box_by_hand(last), rtol=1e-6)
                sizes.append(float(np.prod(boxes[row, rank, 2:] - boxes[row, rank, :2])))
    assert len(sizes) > 20
    assert min(sizes) < 1


def test_the_table_names_the_classes_of_each_feature_and_its_images(
    decomposed_run: "Run", images: "FinishedStage"
) -> None:
    found = answer(decomposed_run)
    page = decomposition_results(decomposed_run.job.store, decomposed(decomposed_run.plan))
    histogram = opened(decomposed_run, found.histogram)
    order, counts = (histogram.read(name).astype(np.int64) for name in ("order", "counts"))
    assert len(page.features) == 40
    ids = dict(zip(images.read("feature").tolist(), images.read("sample_id").tolist(), strict=True))
    for row in page.features.to_dict("records"):
        label, rank = int(row["label"]), int(row["rank"])
        feature = int(order[label, rank - 1])
        users = [str(label) for label in range(10) if feature in order[label, :4]]
        count = counts[label, feature]
        assert (row["feature"], row["count"], row["share"]) == (feature, count, count / 12)
        assert (row["class_name"], row["classes"], row["n_classes"]) == (str(label), ", ".join(users), len(users))
        assert row["sample_ids"] == ", ".join(map(str, ids[feature]))
    (top,) = page.top_images
    assert (top.split, top.held_out) == ("train", False)


def test_no_more_features_than_the_cap_have_images(
    decomposed_run: "Run", tmp_path: "Path", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_images, "FEATURES", 3)
    run = decomposed_run.at(str(tmp_path / "copy"))
    found = answer(run)
    assert found.pictures is not None
    whole = opened(run, found.pictures.inputs["images"]).read("feature").tolist()
    for spec in (found.pictures, found.pictures.inputs["images"]):
        run.job.store.remove(spec.path)
    run.finish()
    stage = opened(run, found.pictures.inputs["images"])
    assert (stage.read("feature").tolist(), stage.summary["in_use"]) == (whole[:3], len(whole))
    page = decomposition_results(run.job.store, decomposed(run.plan))
    assert len(page.features) == 40  # the table has every feature
    assert set(page.features.loc[page.features["sample_ids"] != "", "feature"]) == set(whole[:3])
