"""The IoU of our counts against the published tables of Network Dissection."""

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.detectors.dissection import Dissection, best_labels
from tasks.detectors.unit_table import unit_table

CATEGORIES = ("object", "color", "material", "scene", "texture", "part")


@pytest.mark.parametrize("table", ["resnet50_imagenet_layer4", "resnet18_places365_layer4", "alexnet_places365_conv5"])
def test_published_counts_give_the_published_iou(data_dir: Path, table: str) -> None:
    path = data_dir / "reference/published_units.zip"
    with zipfile.ZipFile(path) as archive, archive.open(f"netdissect/{table}.csv") as file:
        units = pd.read_csv(file)
    cells = []
    for index, category in enumerate(CATEGORIES):
        columns = [f"{category}-{name}" for name in ("label", "truth", "activation", "intersect", "iou")]
        part = units[columns].set_axis(["label", "truth", "activation", "intersect", "iou"], axis=1)
        cells.append(part.assign(category=index, unit=np.arange(len(units))))
    rows = pd.concat(cells).dropna()
    key = ["category", "label", "truth"]
    names = sorted({(category, label, truth) for category, label, truth in rows[key].values})
    number = {name: index + 1 for index, name in enumerate(names)}
    unit, column = rows["unit"].to_numpy(), np.array([number[tuple(row)] for row in rows[key].values])
    intersection = np.zeros((len(units), len(names) + 1), dtype=np.int64)
    unit_area = np.zeros((len(units), len(CATEGORIES)), dtype=np.int64)
    intersection[unit, column] = rows["intersect"]
    unit_area[unit, rows["category"].to_numpy()] = rows["activation"]
    dissection = Dissection(
        intersection,
        np.array([0, *[int(truth) for _, _, truth in names]]),
        unit_area,
        np.zeros(len(units)),
        np.array([-1, *[category for category, _, _ in names]]),
    )
    published = rows["iou"].to_numpy()
    wrong = np.abs(dissection.iou[unit, column] - published) > 1e-6 + 1e-6 * published
    assert len(rows) > 1000
    assert wrong.mean() < 0.001  # 17 of the 63,870 published cells do not follow from their own counts
    best = best_labels(dissection)
    scores = pd.Series(published, index=unit).groupby(level=0).max()
    agree = np.isclose(best.iou[scores.index], scores, rtol=1e-5)
    assert agree.mean() > 0.999
    ours = unit_table(dissection, ["", *[label for _, label, _ in names]], CATEGORIES)
    assert set(ours.columns) == set(units.columns)
    named = units["object-label"].notna() & (units["object-intersect"] > 0)
    for name in ("object-label", "object-truth", "object-activation", "object-intersect"):
        equal = ours[name].to_numpy() == units[name].to_numpy()
        assert equal[named.to_numpy()].mean() > 0.999, name
    # Units by category of their best label, among those whose published score follows from their own counts.
    sound = np.isclose(units["score"], ours["score"], rtol=1e-5)
    counts = {
        name: (table["category"][sound & (table["score"] > 0.04)]).value_counts()
        for name, table in (("ours", ours), ("published", units))
    }
    assert sound.mean() > 0.99
    for category in CATEGORIES:
        assert abs(counts["ours"].get(category, 0) - counts["published"].get(category, 0)) <= 1, category
