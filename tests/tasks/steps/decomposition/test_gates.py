"""The gates stage against loops over single images, and what it refuses."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from torch import nn

from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.steps.decomposition import gates
from tasks.steps.decomposition.gates import GATES, gates_spec, read_gates
from tests.plans import decomposed

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("rows", [256, 7])
def test_accuracies_and_sets_are_those_of_a_loop(
    decomposed_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, rows: int
) -> None:
    monkeypatch.setattr(gates, "ROWS", rows)
    run = decomposed_run.at(str(tmp_path / "copy"))
    training, (one,) = run.plan.shared.trainings["small", 0], decomposed(run.plan)
    spec = gates_spec(training, split, 3)
    (stage,) = complete(run.job, GATES, [spec])
    files = Path(run.config.store, training.path, "files")
    model, matrix = build_model("small-cnn", {"width": 8}, 0), load_file(files / "gates.safetensors")["gates"]
    model.load_state_dict(load_file(files / "weights.safetensors"))
    model.eval()
    assert isinstance(model, nn.Sequential)
    ids = open_finished(run.job.store, one.learn if split == "train" else one.evaluate).read("sample_id")
    digits, right = load_digits(), [0, 0]
    with torch.inference_mode():
        for index in ids.astype(np.int64).tolist():
            image, label = torch.tensor(np.rint(digits.images[index] * 255 / 16) / 255).float(), digits.target[index]
            maps = model[:9](image[None, None])
            closed = torch.stack([maps[0, k] * matrix[k, label] for k in range(16)])[None]
            right[0] += int(model[9:](maps).argmax()) == label
            right[1] += int(model[9:](closed).argmax()) == label
    expected = [max(range(16), key=lambda k: (matrix[k, c].item(), -k)) for c in range(10)]
    np.testing.assert_array_equal(np.asarray(stage.read("indices"))[:, 0], expected)
    assert stage.read("indices").shape == (10, 3)
    np.testing.assert_array_equal(stage.read("gates"), matrix.numpy())
    np.testing.assert_array_equal(read_gates(run.job.store, training), matrix.numpy())
    values = matrix.double().flatten().tolist()
    summary = dict(stage.summary)
    assert 0 <= summary.pop("ties") <= 10
    assert summary == {
        "split": split,
        "samples": len(ids),
        "std_accuracy": right[0] / len(ids),
        "csg_accuracy": right[1] / len(ids),
        "mean_gate": pytest.approx(sum(values) / len(values), rel=1e-12),
        "open_share": sum(value > 0.5 for value in values) / len(values),
    }


def test_the_split_and_the_size_of_the_sets_are_in_the_key(decomposed_run: "Run") -> None:
    training = decomposed_run.plan.shared.trainings["small", 0]
    keys = {gates_spec(training, split, k).key for split in ("train", "val") for k in (2, 3)}
    assert len(keys) == 4


def test_a_training_without_gates_is_refused(finished_run: "Run") -> None:
    training = next(iter(finished_run.plan.shared.trainings.values()))
    with pytest.raises(
        ValueError, match=r"networks: expected gates in training small seed 0, found none; set its `train\.gates`"
    ):
        gates_spec(training, "train", 3)


def test_more_channels_than_there_are_is_refused(decomposed_run: "Run", tmp_path: Path) -> None:
    run = decomposed_run.at(str(tmp_path / "copy"))
    spec = gates_spec(run.plan.shared.trainings["small", 0], "train", 17)
    with pytest.raises(
        (ValueError, PartitionError), match="expected at most the last map's 16 channels per class, found 17"
    ):
        complete(run.job, GATES, [spec])


def test_digits_with_gates_need_fewer_channels(decomposed_tree: Tree, new_run: NewRun) -> None:
    """Settings that converge for every seed: weights moved by 1e-6, or another order of sums, change no answer."""
    tree = copy.deepcopy(decomposed_tree)
    del tree["decomposition"]
    tree["seeds"] = [0, 1, 2]
    tree["networks"]["small"]["train"] |= {
        "epochs": 20,
        "optimizer": {"kind": "sgd", "lr": 0.03, "momentum": 0.9},
        "gates": {"lr": 0.5, "plain_epochs": 5, "weight": 0.005, "period": 3},
    }
    run = new_run(tree)
    run.finish()
    trainings = run.plan.shared.trainings
    for stage in complete(run.job, GATES, [gates_spec(trainings["small", seed], "train", 2) for seed in range(3)]):
        assert stage.summary["mean_gate"] < 0.5
        assert stage.summary["csg_accuracy"] >= stage.summary["std_accuracy"] > 0.9
