"""Networks of the user's own through the whole pipeline: changes in place, made modules, mixed and random answers."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from flows.progress import finished_paths, planned_stages
from storage.stages import open_finished
from tasks.io.networks import build_model
from tests.conftest import decomposed_config, traced_config
from tests.flows.command import Tree, Write, layerlore, on_commands, refused
from tests.plans import held_out

if TYPE_CHECKING:
    from tests.conftest import Run

NETWORKS = '''
import torch
from torch import nn
from torch.nn import functional as F


class Net(nn.Module):
    """Convolution, ReLU, mean, linear; `kind` says what is odd."""

    def __init__(self, kind: str = "plain", channels: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.kind = kind
        self.f = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU())
        self.norm = nn.BatchNorm2d(4, affine=False, track_running_stats=False)
        self.fc = nn.Linear(4, classes)

    def forward(self, x):
        if self.kind == "methods":
            x.sub_(0.25).div_(0.5)
        elif self.kind == "operators":
            x -= 0.25
            x /= 0.5
        elif self.kind == "out":
            torch.sub(x, 0.25, out=x)
            torch.div(x, 0.5, out=x)
        elif self.kind in ("plain", "middle", "made", "view"):
            x = (x - 0.25) / 0.5
        elif self.kind == "mean":
            x = x - x.mean()
        if self.kind == "middle":
            x = self.f[0](x)
            F.relu(x, inplace=True)
        elif self.kind == "made":
            for module in [self.f[:1], nn.ReLU()]:
                x = module(x)
        else:
            x = self.f(x)
        if self.kind == "norm":
            x = self.norm(x)
        if self.kind == "view":  # fails in channels last
            x = x.view(x.size(0), -1).view(x.size(0), 4, -1).mean(2)
        else:
            x = x.mean((2, 3))
        if self.kind == "dropout":
            x = F.dropout(x)
        return self.fc(x)
'''
RIGHT = ("methods", "operators", "out", "middle", "made", "view")
WRONG = {
    "mean": "the network's answer to an image depends on the batch",
    "norm": "the network's answer to an image depends on the batch",
    "dropout": "the network is random in evaluation mode",
}
QUESTIONS = ("interpretation", "activations", "tracing", "decomposition", "decomposition of given weights", "training")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The import path of networks of the user's own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / f"answers_{tmp_path.name}.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    return f"answers_{tmp_path.name}:Net"


def network(model: str, kind: str, folder: Path, **arguments: int) -> dict[str, Any]:
    """Return the section of a network whose weights depend on nothing but a seed."""
    weights = folder / f"own-{len(arguments)}.pt"
    torch.save(build_model(model, arguments, 0).state_dict(), weights)
    return {"model": model, "arguments": {"kind": kind, **arguments}, "weights": str(weights)}


@pytest.mark.parametrize("kind", RIGHT)
def test_what_is_changed_in_place_is_in_the_activations(
    kind: str, model: str, folder_tree: Tree, tmp_path: Path, new_run: Callable[[Tree], "Run"]
) -> None:
    found = {}
    for name in ("plain", kind):
        tree = copy.deepcopy(folder_tree)
        tree |= {"store": str(tmp_path / name), "networks": {"net": network(model, name, tmp_path)}}
        run = new_run(tree).finish()
        spec = next(iter(held_out(run.plan).values()))
        finished = open_finished(run.job.store, spec)
        found[name] = {array: finished.read(array).astype(np.float32) for array in ("logits", "pooled", "maps")}
    for array, values in found["plain"].items():
        np.testing.assert_allclose(found[kind][array], values, rtol=1e-5, atol=1e-6, err_msg=array)


def trees(model: str, kind: str, folder_tree: Tree, tmp_path: Path) -> dict[str, Tree]:
    """Return a config for each of QUESTIONS that uses a network of some kind."""
    given = network(model, kind, tmp_path)
    question = {**copy.deepcopy(folder_tree), "networks": {"net": given}}
    layers = {key: value for key, value in question.items() if key != "interpretation"}
    layers["activations"] = {"networks": ["net"], "layers": ["f"], "splits": ["val"]}
    traced, decomposed = traced_config(str(tmp_path / "store")), decomposed_config(str(tmp_path / "store"))
    own = {"model": model, "arguments": {"kind": kind, "channels": 1, "classes": 10}}
    for tree in (traced, decomposed):
        tree["networks"]["small"] |= own
    trained = {key: value for key, value in copy.deepcopy(decomposed).items() if key != "decomposition"}
    trained["networks"]["small"]["train"].pop("gates")
    fixed = {**copy.deepcopy(decomposed), "networks": {"small": network(model, kind, tmp_path, channels=1, classes=10)}}
    fixed["networks"]["small"]["preprocessing"] = {"mode": "L"}
    del fixed["decomposition"]["retraining"]
    return dict(zip(QUESTIONS, (question, layers, traced, decomposed, fixed, trained), strict=True))


@pytest.mark.parametrize(
    ("command", "question", "kind"), on_commands(list(itertools.product(QUESTIONS, WRONG)), step=4)
)
@pytest.mark.usefixtures("wide")
def test_a_network_without_one_answer_is_refused_before_anything_is_written(
    command: str, question: str, kind: str, model: str, folder_tree: Tree, tmp_path: Path, write: Write
) -> None:
    text = refused(layerlore(command, write(trees(model, kind, folder_tree, tmp_path)[question])))
    assert WRONG[kind] in text
    assert text.startswith("networks.")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_network_that_only_takes_contiguous_images_is_asked_everything(
    question: str, model: str, folder_tree: Tree, tmp_path: Path, new_run: Callable[[Tree], "Run"]
) -> None:
    run = new_run(trees(model, "view", folder_tree, tmp_path)[question])
    planned_stages(run.plan, None)
    run.finish()
    assert finished_paths(run.plan, run.job.store) == {spec.path for spec in run.plan.stages}
