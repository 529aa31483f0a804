"""Trainings that start from given weights: what is loaded, what stays fresh, what is refused, and what keys say."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from configs.load import ConfigError, load_config
from flows.plan import make_plan
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.io.tensors import unpack_tensors
from tasks.steps.common import trainer
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.common.snapshots import SNAPSHOTS, snapshot_file
from tasks.steps.common.starts import load_start
from tests.tasks.steps.common.trainings import die_at, file_digests, spec_of, train

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


def started(tree: Tree, path: Path, **settings: object) -> Tree:
    """Return a config whose training starts from a file."""
    other = copy.deepcopy(tree)
    other["networks"]["small"]["train"] |= {"start": str(path), **settings}
    return other


def weights(path: Path, seed: int = 5, **arguments: object) -> dict[str, Tensor]:
    """Write the weights of a fresh small-cnn, and return them."""
    state = build_model("small-cnn", {"width": 4, **arguments}, seed).state_dict()
    save_file(state, path)
    return dict(state)


def model_at_start(run: "Run") -> dict[str, Tensor]:
    """Return the weights of a run's training before its first step."""
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    return dict(made.model.state_dict())


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "pth"])
def test_a_training_starts_from_the_files_weights(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, suffix: str
) -> None:
    file, given = tmp_path / f"start.{suffix}", weights(tmp_path / "start.safetensors")
    if suffix != "safetensors":
        torch.save({"state_dict": {f"module.{name}": value for name, value in given.items()}}, file)
    found = model_at_start(new_run(started(tiny_tree, file)))
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], value) for name, value in given.items())


def test_the_weights_before_the_first_step_are_those_of_the_file(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path
) -> None:
    given = weights(tmp_path / "start.safetensors")
    run = new_run(started(tiny_tree, tmp_path / "start.safetensors", snapshots=[0]))
    files = train(run) / "files"
    (stage,) = complete(run.job, SNAPSHOTS, run.plan.shared.snapshots)
    before = unpack_tensors(stage.read_file(snapshot_file(0)))
    assert all(torch.equal(before[name], value) for name, value in given.items())
    after = load_file(files / "weights.safetensors")
    assert not torch.equal(after["0.weight"], given["0.weight"])


def test_a_killed_fine_tuning_gives_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(tmp_path / "start.safetensors", classes=7)
    tree = started(tiny_tree, tmp_path / "start.safetensors", optimizer={"kind": "sgd", "lr": 0.05, "momentum": 0.9})
    whole = train(new_run({**tree, "store": str(tmp_path / "whole")}))
    die_at(monkeypatch, 3)
    with pytest.raises(PartitionError, match="killed"):
        train(new_run(tree))
    assert file_digests(train(new_run(tree))) == file_digests(whole)


def test_a_head_of_another_number_of_classes_stays_fresh(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    given = weights(tmp_path / "start.safetensors", classes=7)
    found = model_at_start(new_run(started(tiny_tree, tmp_path / "start.safetensors")))
    fresh = build_model("small-cnn", {"width": 4}, 0).state_dict()
    for name, value in found.items():
        expected = fresh if name in ("11.weight", "11.bias") else given
        assert torch.equal(value, expected[name]), name
    assert not torch.equal(found["0.weight"], fresh["0.weight"])


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    weights(tmp_path / "start.safetensors", classes=7)
    model, before = build_model("small-cnn", {"width": 4}, 0), torch.get_rng_state()
    head = model.get_submodule("11")
    load_start(model, str(tmp_path / "start.safetensors"))
    assert torch.equal(torch.get_rng_state(), before)
    assert model.get_submodule("11") is head


def test_a_network_without_a_linear_layer_has_to_fit_whole(tmp_path: Path) -> None:
    save_file({"weight": torch.ones((2, 3, 1, 1)), "bias": torch.ones(2)}, tmp_path / "start.safetensors")
    model = nn.Conv2d(3, 2, 1)
    load_start(model, str(tmp_path / "start.safetensors"))
    assert model.weight.detach().sum().item() == 6.0
    with pytest.raises(ValueError, match="1 of another shape"):
        load_start(nn.Conv2d(3, 2, 3), str(tmp_path / "start.safetensors"))


def test_the_key_knows_the_content_and_not_the_place(
    tiny_tree: Tree, new_run: NewRun, finished_run: "Run", tmp_path: Path
) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        weights(tmp_path / f"{name}.safetensors", seed)
    keys = [spec_of(new_run(started(tiny_tree, tmp_path / f"{name}.safetensors"))).key for name in "abc"]
    assert keys[0] == keys[1] != keys[2]
    assert spec_of(finished_run).key not in keys
    fresh = copy.deepcopy(tiny_tree)
    fresh["networks"]["small"]["train"] |= {"start": None, "gates": None}
    assert spec_of(new_run(fresh)).key == spec_of(finished_run).key


def test_a_file_that_changes_after_the_plan_is_refused(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    weights(tmp_path / "start.safetensors")
    run = new_run(started(tiny_tree, tmp_path / "start.safetensors"))
    weights(tmp_path / "start.safetensors", seed=6)
    with pytest.raises(PartitionError, match=r"start\.safetensors: expected the file that the run was planned with"):
        train(run)


def test_the_path_may_be_relative(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights(tmp_path / "start.safetensors")
    monkeypatch.chdir(tmp_path)
    spec = spec_of(new_run(started(tiny_tree, Path("start.safetensors"))))
    assert spec.place["train"]["start"] == str(tmp_path / "start.safetensors")


BAD: list[tuple[dict[str, object] | None, str]] = [
    (None, "file {path} does not exist"),
    ({"width": 8}, "weights {path}: expected the weights of the model, found 16 of another shape (first 0.weight: "),
    (
        {"width": 8, "classes": 7},
        "weights {path}: expected the weights of the model, found 16 of another shape (first 0.weight: ",
    ),
    ({"channels": 3}, "1 of another shape (first 0.weight: file (4, 3, 3, 3), model (4, 1, 3, 3))"),
    ({"channels": 3, "classes": 7}, "1 of another shape (first 0.weight: file (4, 3, 3, 3), model (4, 1, 3, 3))"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_weights_that_do_not_fit_are_one_line_before_anything_runs(
    tiny_tree: Tree, tmp_path: Path, arguments: dict[str, object] | None, message: str
) -> None:
    path = tmp_path / "start.safetensors"
    if arguments is not None:
        weights(path, **arguments)  # type: ignore[arg-type]  # of the builder, never its seed
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(started(tiny_tree, path)))
    with pytest.raises(ConfigError) as error:
        make_plan(load_config(str(file)))
    text = str(error.value)
    assert text.startswith("networks.small.train.start: ")
    assert message.format(path=path) in text
    assert "\n" not in text
    assert not Path(tiny_tree["store"]).exists()


def test_a_missing_or_unknown_tensor_is_named(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    given = weights(tmp_path / "start.safetensors")
    extra = {**given, "12.weight": torch.zeros(3)}
    del extra["3.weight"]
    save_file(extra, tmp_path / "start.safetensors")
    with pytest.raises(ConfigError, match=r"1 of 20 tensors missing \(first 3\.weight\); 1 unexpected \(first 12\.we"):
        new_run(started(tiny_tree, tmp_path / "start.safetensors"))
