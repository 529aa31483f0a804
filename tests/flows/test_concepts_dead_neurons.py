"""Neurons that answer the same to every image: not in the plane, and a layer of them has no distances and no tau."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tasks.io.networks import build_model
from tasks.report.concepts.results import ConceptResults
from tasks.steps.concepts.results import concept_results
from tests.flows.command import Write, layerlore

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
DEAD, NEURONS = 3, 12
DETECTORS = ("soft_wpmi", "network-dissection")


def save(path: Path, dead: slice) -> None:
    """Write weights of which some neurons of layer 8 are the same on all images."""
    network = build_model("small-cnn", {"width": 6}, 0)
    last = [module for module in network.modules() if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight[dead] = 0
    torch.save(network.state_dict(), path)


@pytest.fixture
def run(probed_tree: Tree, tmp_path: Path, new_run: Callable[[Tree], "Run"]) -> "Run":
    """A run on two checkpoints: with one dead neuron in layer 8, and with nothing else."""
    (tmp_path / "some").mkdir()
    save(tmp_path / "some" / "epoch_1.pt", slice(DEAD, DEAD + 1))
    save(tmp_path / "some" / "epoch_2.pt", slice(None))
    network = {key: value for key, value in probed_tree["networks"]["small"].items() if key != "train"}
    probed_tree["networks"]["small"] = {**network, "weights": str(tmp_path / "some" / "epoch_1.pt")}
    del probed_tree["data"]["digits"]
    probed_tree["concepts"] |= {"checkpoints": {"small": {"folder": str(tmp_path / "some")}}, "layers": ["8"]}
    probed_tree["concepts"]["track"] = {"8": [DEAD]}
    return new_run(probed_tree).finish()


@pytest.mark.usefixtures("wide")
def test_dead_neurons_have_no_place_and_no_numbers(run: "Run", write: Write) -> None:
    found: ConceptResults = concept_results(run.job.store, run.plan.answers["concepts"], "show")
    first, last = (found.monitor[found.monitor["snapshot"] == number] for number in (0, 1))
    assert first["dead"].tolist() == [1, 1]
    assert last["dead"].tolist() == [NEURONS, NEURONS]
    for column in ("d_anchor", "mean_pairwise", "tau"):
        assert found.monitor[column].dtype == float, column
    assert first[["d_anchor", "mean_pairwise", "tau"]].notna().all(axis=None)
    assert last[["d_anchor", "mean_pairwise"]].isna().all(axis=None)
    assert last["tau"].isna().any()
    for detector in DETECTORS:
        placed = found.plane[found.plane["detector"] == detector]
        assert placed["neuron"].tolist() == [number for number in range(NEURONS) if number != DEAD]
        assert set(placed["snapshot"]) == {0}
    report = layerlore("report", write(run.tree))
    assert report.exit_code == 0, report.output
