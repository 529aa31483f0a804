"""Question 3 on a lottery: the masked starts of every stage, with batch norm as rewound and as estimated."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from storage.stages import open_finished
from tasks.engine.life import complete
from tasks.steps.common.lottery import links_of
from tasks.steps.common.samples import read_positions
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.results import concept_results
from tasks.steps.plan import waves
from tasks.steps.questions import STEPS
from tests.probed import COUNT

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


@pytest.fixture
def made(probed_tree: Tree, new_run: NewRun) -> "Run":
    """A run with a lottery of one stage under two names, one for each kind of batch norm."""
    tree = copy.deepcopy(probed_tree)
    small = tree["networks"].pop("small")
    del small["train"]["snapshots"]
    for name in ("rewound", "estimated"):
        lottery = {"stages": 1, "fraction": 0.6, "batch_norm": name}
        tree["networks"][name] = {**small, "train": {**small["train"], "epochs": 1, "lottery": lottery}}
    tree["concepts"] |= {"networks": ["rewound", "estimated"], "layers": ["2"], "detectors": {"cos_cubed": {}}}
    run = new_run(tree)
    for wave in waves(run.plan.stages):
        complete(run.job, STEPS[wave[0].stage], wave)
    return run


def pooled(state: dict[str, torch.Tensor], images: torch.Tensor, *, estimated: bool) -> NDArray[np.float32]:
    """Return the pooled first ReLU of a start on all probing images, from its own arithmetic."""
    maps = torch.nn.functional.conv2d(images, state["0.weight"], state.get("0.bias"), padding=1)
    if estimated:  # 64 images are one batch
        mean, var = maps.mean((0, 2, 3)), maps.transpose(0, 1).flatten(1).var(1)
    else:
        mean, var = state["1.running_mean"], state["1.running_var"]
    unit = (maps - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    found = (unit * state["1.weight"][:, None, None] + state["1.bias"][:, None, None]).relu().mean((2, 3))
    values: NDArray[np.float32] = found.numpy()
    return values


def test_starts_are_masked_and_have_the_asked_batch_norm(made: "Run") -> None:
    answers: dict[str, Monitored] = {answer.network: answer for answer in made.plan.answers["concepts"]}
    store = Path(made.config.store)
    links = links_of(made.plan.shared.trainings["rewound", 0])
    first, last = links[0], links[1]
    assert last.pruning is not None
    early = load_file(next((store / first.snapshot.path / "files").glob("*")))
    masks = load_file(store / last.pruning.path / "files/masks.safetensors")
    assert 0 < float(masks["0.weight"].float().mean()) < 1
    for name, answer in answers.items():
        assert len(answer.responses) == 3
        spec = answer.responses[0]["2"]
        images = read_positions(made.job.store, spec, None, np.arange(COUNT))
        for number, keeps in enumerate((torch.ones(()), masks["0.weight"])):
            state = early | {"0.weight": early["0.weight"] * keeps}
            found = open_finished(made.job.store, answer.responses[number]["2"]).read("pooled.2")
            expected = pooled(state, images, estimated=name == "estimated")
            np.testing.assert_allclose(found.astype(np.float32), expected, rtol=2e-3, atol=2e-3)
        trained = load_file(store / last.training.path / "files/weights.safetensors")
        found = open_finished(made.job.store, answer.responses[2]["2"]).read("pooled.2")
        expected = pooled(trained, images, estimated=False)
        np.testing.assert_allclose(found.astype(np.float32), expected, rtol=2e-3, atol=2e-3)
    assert len({training.key for training in made.plan.shared.trainings.values()}) == 1


def test_steps_in_place_of_starts_are_those_of_the_last_training(probed_tree: Tree, new_run: NewRun) -> None:
    tree = copy.deepcopy(probed_tree)
    tree["networks"]["small"]["train"]["lottery"] = {"stages": 2}
    assert len(new_run(tree).plan.answers["concepts"][0].responses) == 4
    tree["concepts"]["snapshots"] = [0, 16]
    run = new_run(tree)
    (answer,) = run.plan.answers["concepts"]
    stages = [watched.stage for watched in answer.snapshots]
    assert [stage.parameters for stage in stages] == [{"step": 0}, {"step": 16}]
    assert {stage.inputs["training"].key for stage in stages} == {run.plan.shared.trainings["small", 0].key}


def test_the_monitor_names_the_starts(made: "Run") -> None:
    monitor = concept_results(made.job.store, made.plan.answers["concepts"], "show").monitor
    labels = ["start 0 of 1, 1 of the weights", "start 1 of 1, 0.4 of the weights", "end of training 1"]
    for _, rows in monitor.groupby("network"):
        assert rows.sort_values("snapshot")["label"].tolist() == labels
        assert set(rows["step"]) == {-1}
        assert rows.sort_values("snapshot")["accuracy"].isna().tolist() == [True, True, False]
