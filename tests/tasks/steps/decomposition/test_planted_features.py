"""A network with known features: pixels decide the classes, so that each cell of the page is known."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from tasks.io.networks import build_model
from tasks.steps.decomposition.results import decomposition_results
from tasks.steps.report import write_report
from tests.plans import decomposed

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

# The pixels of each class's images and their brightness, image by image; all other pixels are black.
BRIGHT = {
    "cat": {5: (200, 250, 250, 100), 9: (50, 40, 30, 20)},
    "dog": {9: (30, 60, 60, 60), 20: (10, 9, 8, 255)},
    "owl": {40: (90, 80, 70, 60), 5: (1, 2, 3, 250)},
}
WEIGHTS = {("cat", 5): 2.0, ("cat", 9): -1.0, ("dog", 9): 1.5, ("dog", 20): 0.5, ("owl", 40): 1.0, ("owl", 5): 0.25}
# By feature, from the table above: positions of the four largest values; of equal ones the lower position first.
LARGEST = {5: [1, 2, 11, 0], 9: [5, 6, 7, 0], 20: [7, 4, 5, 6], 40: [8, 9, 10, 11]}
# By class: feature, weight in words, and the other classes that have it; both are in all four images' two largest.
# Equal counts go to the larger sum of values: dog's pixel 20 has 282, its pixel 9 has 210.
CELLS = {
    "cat": [(5, "+2.00", ["owl"]), (9, "−1.00", ["dog"])],
    "dog": [(20, "+0.500", []), (9, "+1.50", ["cat"])],
    "owl": [(40, "+1.00", []), (5, "+0.250", ["cat"])],
}

TABLE = "reports/planted/tables/decomposition_features.parquet"


@pytest.fixture
def planted(tmp_path: Path, new_run: Callable[[Tree], "Run"]) -> "Callable[[str], Run]":
    """A function from `report.training_images` to a finished run, whose images are those that the sets come from."""
    images = np.zeros((12, 64), np.uint8)
    for label, pixels in enumerate(BRIGHT.values()):
        for pixel, values in pixels.items():
            images[4 * label : 4 * label + 4, pixel] = values
    np.savez(
        tmp_path / "train.npz",
        images=images.reshape(12, 8, 8),
        labels=np.repeat(np.arange(3), 4),
    )
    model = build_model("mlp", {"sizes": [64, 64, 3]}, 0)
    hidden_weight, hidden_bias, weight, bias = model.parameters()
    with torch.no_grad():
        hidden_weight.copy_(torch.eye(64))  # a feature is a pixel
        for zero in (hidden_bias, weight, bias):
            zero.zero_()
        for (name, pixel), value in WEIGHTS.items():
            weight[list(BRIGHT).index(name), pixel] = value
    torch.save(model.state_dict(), tmp_path / "weights.pt")

    def make(shown: str) -> "Run":
        paths = {"train": str(tmp_path / "train.npz")}
        tree = {
            "name": "planted",
            "store": str(tmp_path / shown),
            "cluster": {"kind": "serial"},
            "data": {"pixels": {"source": "npz", "paths": paths, "class_names": list(BRIGHT)}},
            "networks": {
                "small": {
                    "model": "mlp",
                    "arguments": {"sizes": [64, 64, 3]},
                    "weights": str(tmp_path / "weights.pt"),
                    "preprocessing": {"mode": "L"},
                }
            },
            "decomposition": {
                "networks": ["small"], "k1": 2, "k2": 2, "ablation": None, "gallery": 0, "draws": 1,
                "evaluate": "train",
            },
            "report": {"training_images": shown},
        }  # fmt: skip
        return new_run(tree).finish()

    return make


def site_of(run: "Run") -> dict[str, bytes]:
    """Return all files of the report, by path."""
    path = write_report(run.job.store, run.plan.made(), created="today", reused=frozenset())
    folder = Path(run.config.store, path).parent
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def network_of(site: dict[str, bytes]) -> dict[str, Any]:  # Any: JSON
    """Return what the opening of the page shows."""
    found = re.search(rb'id="deciders-data">(.*?)</script>', site["decomposition.html"])
    assert found is not None
    (network,) = json.loads(found[1])["networks"]
    assert isinstance(network, dict)
    return network


def test_known_pixels_are_the_cells_of_their_classes(planted: "Callable[[str], Run]") -> None:
    run = planted("show")
    page = decomposition_results(run.job.store, decomposed(run.plan))
    site = site_of(run)
    network = network_of(site)
    features = [(number, users, images) for number, users, images in network["features"]]
    names = [name for name, _ in network["classes"]]
    for name, cards in network["classes"]:
        cells = [
            (features[card[0]][0], card[3], [names[c] for c, _ in features[card[0]][1] if names[c] != name])
            for card in cards
        ]
        assert cells == CELLS[name]
        assert [card[2] for card in cards] == [1.0, 1.0]
        assert [card[4] for card in cards] == [int(card[3].startswith("−")) for card in cards]
    ids = page.top_images[0].rows  # a split in class-major order: the position is the place in the file
    for number, largest in LARGEST.items():
        assert ids.loc[ids["feature"] == number, "sample_id"].tolist() == largest
    assert {number: [image[3] for image in images] for number, _, images in features} == LARGEST
    assert all(image[6] == [] for _, _, images in features for image in images)  # pixels do not have maps
    assert network["answer"].endswith("2 of the 4 features in use are shared by several classes.")
    table = pd.read_parquet(Path(run.config.store, TABLE))
    pd.testing.assert_frame_equal(table, page.features)


@pytest.mark.parametrize("shown", ["ids", "none"])
def test_training_images_stay_out_of_the_report(planted: "Callable[[str], Run]", shown: str) -> None:
    run = planted(shown)
    site = site_of(run)
    network = network_of(site)
    listed = [image for _, _, images in network["features"] for image in images]
    assert [image[3] for image in listed] == (
        [at for number, *_ in network["features"] for at in LARGEST[number]] if shown == "ids" else []
    )
    assert all(image[0] == "" for image in listed)
    assert b"<symbol" not in site["decomposition.html"]
    assert b"data:image" not in site["decomposition.html"]
    ids = pd.read_parquet(Path(run.config.store, TABLE))["sample_ids"]
    assert set(ids) == ({", ".join(map(str, own)) for own in LARGEST.values()} if shown == "ids" else {""})
