"""Networks with versions and hooks in their state dict: trained, killed, resumed, kept as snapshots and read back."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from storage.documents import digest
from storage.specs import StageSpec
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.io.weights import load_weights
from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint
from tasks.steps.common.networks import filled_network, pack_state
from tasks.steps.common.snapshots import SNAPSHOTS
from tests.tasks.io.test_weights_wrapped import old_mnasnet
from tests.tasks.odd_networks import Versioned
from tests.tasks.steps.common.trainings import die_at, file_digests, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
BUILDERS = ("Versioned", "Hooked", "Owned", "Tied", "parallel")


def of_network(tree: Tree, builder: str, **train: object) -> Tree:
    """Return a config that trains an odd network."""
    other = copy.deepcopy(tree)
    network = other["networks"]["small"]
    network |= {"model": f"tests.tasks.odd_networks:{builder}", "arguments": {}}
    network["train"] |= {"snapshots": [0, 3, 5], **train}
    return other


def read_back(run: "Run") -> nn.Module:
    """Return the network as later stages load it."""
    training = spec_of(run)
    parameters = {"network": training.parameters["network"]}
    return filled_network(run.job.store, StageSpec("any", 1, parameters, {"network": training}))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_training_is_resumed_and_read_back(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builder: str
) -> None:
    tree = of_network(tiny_tree, builder, optimizer={"kind": "sgd", "lr": 0.05, "momentum": 0.9})
    whole = train(new_run({**tree, "store": str(tmp_path / "whole")}))
    die_at(monkeypatch, 3)
    run = new_run(tree)
    with pytest.raises(PartitionError, match="killed"):
        train(run)
    folder = train(run)
    assert file_digests(folder) == file_digests(whole)
    weights = folder / "files/weights.safetensors"
    stored, found = load_file(weights), read_back(run).state_dict()
    assert stored.keys() == found.keys()
    assert all(torch.equal(found[name], value) for name, value in stored.items())
    again = build_model(f"tests.tasks.odd_networks:{builder}", {}, 3)
    load_weights(again, str(weights))  # as a network's `weights` or a training's `start`
    assert all(torch.equal(again.state_dict()[name], value) for name, value in stored.items())


@pytest.mark.parametrize("builder", ["Versioned", "Hooked"])
def test_snapshots_are_weights_too(tiny_tree: Tree, new_run: NewRun, builder: str) -> None:
    run = new_run(of_network(tiny_tree, builder))
    folder = train(run)
    gains, kept = [], complete(run.job, SNAPSHOTS, run.plan.shared.snapshots)
    for stage, step in zip(kept, (0, 3, 5), strict=True):
        file = Path(run.config.store, stage.path, f"files/snapshot-{step:08d}.safetensors")
        model = build_model(f"tests.tasks.odd_networks:{builder}", {}, 3)
        load_weights(model, str(file))
        stored = load_file(file)
        assert all(torch.equal(model.state_dict()[name], value) for name, value in stored.items())
        gains.append(stored.get("gain", torch.zeros(1)).item())
    assert gains[0] == (4.0 if builder == "Versioned" else 0.0)
    assert folder.exists()


def test_only_networks_that_need_their_versions_have_them_in_their_files() -> None:
    plain = build_model("small-cnn", {"width": 4}, 0)  # batch norm has version 2
    assert b"versions" not in pack_state(plain)
    assert b"versions" in pack_state(Versioned())
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    assert b"versions" not in pack_checkpoint(plain, optimizer)


@pytest.mark.filterwarnings("ignore:A new version of MNASNet")
def test_a_network_in_an_old_format_resumes_in_it(tmp_path: Path) -> None:
    model = build_model("mnasnet0_5", {}, 0)
    torch.save(old_mnasnet().state_dict(), tmp_path / "w.pt")
    load_weights(model, str(tmp_path / "w.pt"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = pack_checkpoint(model, optimizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    load_checkpoint(data, model, optimizer, "checkpoint")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    trained = {id(parameter) for parameter in optimizer.param_groups[0]["params"]}
    assert trained == {id(parameter) for parameter in model.parameters()}  # nothing was rebuilt under the optimiser
    fresh = build_model("mnasnet0_5", {}, 3)
    (tmp_path / "own.safetensors").write_bytes(pack_state(model))
    load_weights(fresh, str(tmp_path / "own.safetensors"))
    assert all(torch.equal(fresh.state_dict()[name], value) for name, value in before.items())
    assert digest(pack_state(fresh)) == digest(pack_state(model))
