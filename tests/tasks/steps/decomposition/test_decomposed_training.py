"""Trainings of a decomposed head and of the network around it: from A_d on, as plain loops go."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from storage.specs import StageSpec
from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.decomposition import DecomposedLinear
from tasks.decomposition.head import replace_head
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.steps.common import trainer
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.training import TRAINING
from tasks.steps.decomposition.decomposed_training import open_features, read_curves
from tasks.steps.decomposition.features import PENULTIMATES
from tasks.steps.decomposition.histogram import HISTOGRAM, STRONGEST, read_sets
from tests.tasks.steps.decomposition.loops import answer
from tests.tasks.steps.decomposition.retrainings import K2, NewRun, retrained, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run


def prepare(run: "Run") -> None:
    """Make what the retrainings of a run read."""
    one = answer(run)
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    complete(run.job, TRAINING, list(run.plan.shared.trainings.values()))
    complete(run.job, PENULTIMATES, [one.learn, one.evaluate])
    complete(run.job, STRONGEST, [one.histogram.inputs["strongest"]])
    complete(run.job, HISTOGRAM, [one.histogram])


def decomposed_of(run: "Run") -> tuple[nn.Sequential, DecomposedLinear]:
    """Return the trained network with its head decomposed, and that head."""
    model = build_model("small-cnn", {"width": 8}, 0)
    training = run.plan.shared.trainings["small", 0]
    model.load_state_dict(load_file(Path(run.config.store, training.path, "files/weights.safetensors")))
    assert isinstance(model, nn.Sequential)
    full = model[-1]
    assert isinstance(full, nn.Linear)
    head = DecomposedLinear.from_linear(full, read_sets(run.job.store, answer(run).histogram, K2))
    replace_head(model, "11", head)
    return model, head


def stored(run: "Run", features: StageSpec) -> tuple[Tensor, Tensor]:
    """Return stored features and labels."""
    stage = open_finished(run.job.store, features)
    return torch.from_numpy(stage.read("features").astype(np.float32)), torch.from_numpy(
        stage.read("label").astype(np.int64)
    )


def share_right(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Return an accuracy."""
    with torch.inference_mode():
        return float((model.eval()(inputs).argmax(1) == labels).double().mean())


def test_a_head_is_trained_as_in_a_plain_loop(run_of: Callable[..., "Run"]) -> None:
    run = run_of("head", schedule={"kind": "milestones", "at": [1], "factor": 0.5})
    files, (_, head) = train(run), decomposed_of(run)
    inputs, labels = stored(run, answer(run).learn)
    held_out = stored(run, answer(run).evaluate)
    rows = [{"epoch": 0, "loss": np.nan, "accuracy": share_right(head, *held_out), "lr": np.nan}]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01, foreach=False)
    for epoch in range(3):
        losses = []
        order = torch.from_numpy(np.random.default_rng([0, epoch]).permutation(len(inputs)))
        optimizer.param_groups[0]["lr"] = 0.01 * (0.5 if epoch else 1)
        head.train()
        for batch in torch.split(order, 16):
            optimizer.zero_grad()
            loss = F.cross_entropy(head(inputs[batch]), labels[batch])
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
            losses.append(loss.item())
        rate = optimizer.param_groups[0]["lr"]
        accuracy = share_right(head, *held_out)
        rows.append({"epoch": epoch + 1, "loss": float(np.mean(losses)), "accuracy": accuracy, "lr": rate})
    curves = read_curves(run.job.store, spec_of(run))
    pd.testing.assert_frame_equal(curves, pd.DataFrame(rows), rtol=1e-5)
    found = load_file(files / "weights.safetensors")
    assert set(found) == {"weight", "bias", "indices"}
    again = DecomposedLinear(16, 10, K2)
    again.load_state_dict(found)
    for name, value in head.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    assert share_right(again, *held_out) == curves["accuracy"].iloc[-1]


def test_both_begin_at_the_accuracy_of_the_decomposed_head(run_of: Callable[..., "Run"]) -> None:
    for scope in ("head", "network"):
        run = run_of(scope)
        train(run)
        (_, head), curves = decomposed_of(run), read_curves(run.job.store, spec_of(run))
        expected = share_right(head, *stored(run, answer(run).evaluate))
        assert curves["epoch"].tolist() == [0, 1, 2, 3]
        assert curves["accuracy"].iloc[0] == expected
        assert np.isnan(curves["loss"].iloc[0])
        assert np.isfinite(curves["loss"].iloc[1:]).all()
        summary = open_finished(run.job.store, spec_of(run)).summary
        last = float(curves["accuracy"].iloc[-1])
        assert summary == {"accuracy": last, "start_accuracy": expected, "scope": scope}


def test_a_network_is_trained_whole_and_keeps_its_sets(run_of: Callable[..., "Run"]) -> None:
    run = run_of("network", augment=None, batches={"size": 16}, optimizer={"kind": "sgd", "lr": 0.01}, schedule={})
    files, (model, head) = train(run), decomposed_of(run)
    made = trainer.open_samples(run.job.store, spec_of(run), torch.device("cpu"), 2**28, 0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, foreach=False)
    for epoch in range(3):
        model.train()
        for batch in made.batches.epoch(epoch):
            inputs, labels = made.fetch(batch.examples)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
    found = load_file(files / "weights.safetensors")
    assert found.keys() == model.state_dict().keys()
    assert torch.equal(found["11.indices"], head.indices)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)
    full = load_file(Path(run.config.store, run.plan.shared.trainings["small", 0].path, "files/weights.safetensors"))
    assert not torch.equal(found["0.weight"], full["0.weight"])
    assert not torch.equal(found["1.running_mean"], full["1.running_mean"])  # batch norm goes on learning


def test_a_network_with_given_weights_is_retrained_from_its_file(
    decomposed_run: "Run", new_run: NewRun, tmp_path: Path
) -> None:
    tree, file = retrained(decomposed_run.tree, "network"), tmp_path / "given.safetensors"
    given = build_model("small-cnn", {"width": 8}, 3).state_dict()
    save_file(given, file)
    del tree["networks"]["small"]["train"]
    tree["networks"]["small"]["weights"] = str(file)
    run = new_run({**tree, "store": str(tmp_path / "given")})
    prepare(run)
    files = train(run)
    assert "network" not in spec_of(run).inputs
    assert load_file(files / "weights.safetensors")["0.weight"].shape == given["0.weight"].shape
    again = new_run({**tree, "store": str(tmp_path / "other")})
    prepare(again)
    save_file(build_model("small-cnn", {"width": 8}, 4).state_dict(), file)
    with pytest.raises(PartitionError, match="expected the file that the run was planned with"):
        train(again)


@pytest.mark.parametrize("memory", [0, 2**30])
def test_features_come_by_position(decomposed_run: "Run", memory: int) -> None:
    one = answer(decomposed_run)
    fetch = open_features(decomposed_run.job.store, one.learn, torch.device("cpu"), memory)
    features, labels = stored(decomposed_run, one.learn)
    at = np.array([119, 3, 3, 64, 0, 118], np.int64)
    found, classes = fetch(at)
    assert found.dtype == torch.float32
    assert torch.equal(found, features[at])
    assert torch.equal(classes, labels[at])
