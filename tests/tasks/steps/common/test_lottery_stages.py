"""A lottery as a chain of stages: against a plain loop, killed and resumed, its keys, and bad settings."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from configs.load import ConfigError, load_config
from flows.progress import planned_stages
from storage.stages import open_finished
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.steps.common import trainer
from tasks.steps.common.courses import MEMORY_SAMPLES
from tasks.steps.common.lottery import links_of
from tasks.steps.plan import waves, with_inputs
from tasks.steps.questions import STEPS
from tests.tasks.steps.common.trainings import changed, die_at, spec_of
from tests.tasks.training.steps import train_steps

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

LOTTERY = {"stages": 2, "fraction": 0.4, "rewind": 3}
SGD = {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def lottery(tree: Tree, **settings: object) -> Tree:
    """Return a config whose only network is a lottery, without questions."""
    other = changed(tree, **{"epochs": 1, "optimizer": SGD, "lottery": LOTTERY, **settings})
    del other["interpretation"]
    return other


def make(run: "Run") -> None:
    """Make all stages of the run."""
    for wave in waves(with_inputs([spec_of(run)])):
        complete(run.job, STEPS[wave[0].stage], wave)


def files(run: "Run") -> dict[str, bytes]:
    """Return the content of every file of the run's stages."""
    found: dict[str, bytes] = {}
    for spec in with_inputs([spec_of(run)]):
        folder = Path(run.config.store, spec.path, "files")
        found |= {f"{spec.path}/{file.name}": file.read_bytes() for file in folder.glob("*") if file.is_file()}
    return found


def test_a_lottery_is_a_plain_loop_of_training_pruning_and_rewinding(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(lottery(tiny_tree))
    make(run)
    made = trainer.open_trainer(run.job.store, links_of(spec_of(run))[0].training, torch.device("cpu"), MEMORY_SAMPLES)
    names = ["0.weight", "3.weight", "6.weight", "11.weight"]
    early: dict[str, torch.Tensor] = {}
    kept: dict[str, torch.Tensor] = {}
    for number in range(3):
        model = build_model("small-cnn", {"width": 4}, 0)
        names = [name for name in names if name in dict(model.named_parameters())]
        if early:
            model.load_state_dict({k: v * kept[k] if k in kept else v for k, v in early.items()})
        optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=0.01, foreach=False)
        for step in range(made.samples.batches.per_epoch):
            if number == 0 and step == 3:
                early = {name: value.clone() for name, value in model.state_dict().items()}
            train_steps(model, optimizer, made.samples.fetch, made.samples.batches, step, step + 1)
            with torch.no_grad():
                for name, mask in kept.items():
                    model.get_parameter(name).mul_(mask)
                    optimizer.state[model.get_parameter(name)]["momentum_buffer"].mul_(mask)
        stored = load_file(
            Path(run.config.store, links_of(spec_of(run))[number].training.path, "files/weights.safetensors")
        )
        for name, value in model.state_dict().items():
            torch.testing.assert_close(stored[name], value, rtol=1e-5, atol=1e-6)
        sizes = sorted(
            (abs(v), i, j)
            for i, (name, p) in enumerate((n, p) for n, p in model.named_parameters() if p.ndim > 1)
            for j, v in enumerate(p.flatten().tolist())
            if name not in kept or bool(kept[name].flatten()[j])
        )
        gone = {(i, j) for _, i, j in sizes[: math.ceil(0.4 * len(sizes))]}
        weights = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
        for i, (name, parameter) in enumerate(weights):
            flat = torch.tensor([(i, j) not in gone for j in range(parameter.numel())]).reshape(parameter.shape)
            kept[name] = flat.float() * kept.get(name, torch.ones_like(parameter))


def test_every_link_has_masks_and_a_masked_start(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(lottery(tiny_tree))
    make(run)
    links = links_of(spec_of(run))
    assert [link.training.label for link in links] == ["small seed 0 dense", "small seed 0 stage 1", "small seed 0"]
    total = remaining = 0
    for link in links[1:]:
        assert link.pruning is not None
        finished = open_finished(run.job.store, link.pruning)
        total, remaining = finished.summary["weights"], remaining or finished.summary["weights"]
        remaining -= math.ceil(0.4 * remaining)
        assert finished.summary["remaining"] == remaining == sum(finished.summary["left"].values()) < total
        folder = Path(run.config.store)
        masks = load_file(folder / link.pruning.path / "files/masks.safetensors")
        early = load_file(folder / link.snapshot.path / "files/snapshot-00000003.safetensors")
        start = load_file(folder / link.training.inputs["start"].path / "files/weights.safetensors")
        last = load_file(folder / link.training.path / "files/weights.safetensors")
        for name, value in early.items():
            expected = value if name not in masks else torch.where(masks[name], value, torch.zeros(()))
            assert torch.equal(start[name], expected)
            if name in masks:
                assert not last[name][~masks[name]].any()
                assert float((last[name][masks[name]] != expected[masks[name]]).float().mean()) > 0.9


@pytest.mark.parametrize("optimizer", [SGD, {"kind": "sam", "lr": 0.05}, {"kind": "adam"}, {"kind": "adamw"}])
def test_a_lottery_killed_in_any_training_gives_the_same_bytes(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: Tree
) -> None:
    tree = lottery(tiny_tree, optimizer=optimizer, record={}, batches={"kind": "single-class", "size": 7, "ghosts": 6})
    whole = new_run({**tree, "store": str(tmp_path / "whole")})
    make(whole)
    with monkeypatch.context() as patch:
        die_at(patch, 2, 7, 12)
        for _ in range(3):
            with pytest.raises(PartitionError, match="killed"):
                make(new_run(tree))
    run = new_run(tree)
    make(run)
    found, expected = files(run), files(whole)
    assert found.keys() == expected.keys()
    assert all(found[name] == expected[name] for name in found)


def test_the_first_training_is_that_of_the_network_without_a_lottery(tiny_tree: Tree, new_run: NewRun) -> None:
    plain = new_run(changed(tiny_tree, epochs=1, optimizer=SGD))
    one, two, other = (new_run(lottery(tiny_tree, lottery={**LOTTERY, "stages": n})) for n in (1, 2, 2))
    links = links_of(spec_of(two))
    assert links[0].training.key == spec_of(plain).key
    assert links[1].training.key == spec_of(one).key
    assert spec_of(two).key == spec_of(other).key
    assert len({link.training.key for link in links}) == 3
    for settings in ({"fraction": 0.5}, {"rewind": 0}):
        changed_run = new_run(lottery(tiny_tree, lottery={**LOTTERY, **settings}))
        assert spec_of(changed_run).key != spec_of(two).key
    estimated = new_run(lottery(tiny_tree, lottery={**LOTTERY, "batch_norm": "estimated"}))
    assert spec_of(estimated).key == spec_of(two).key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stages": 0}, ".lottery.stages: input should be greater than or equal to 1, found 0"),
        ({"stages": 51}, ".lottery.stages: input should be less than or equal to 50, found 51"),
        ({"fraction": 0}, ".lottery.fraction: input should be greater than 0, found 0"),
        ({"fraction": 1.0}, ".lottery.fraction: input should be less than 1, found 1"),
        ({"rewind": -1}, ".lottery.rewind: input should be greater than or equal to 0, found -1"),
    ],
)
def test_bad_settings_are_one_line_that_names_the_key(
    tiny_tree: Tree, tmp_path: Path, settings: Tree, message: str
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(lottery(tiny_tree, lottery=settings)))
    with pytest.raises(ConfigError) as error:
        load_config(str(file))
    (line,) = [line for line in str(error.value).splitlines() if "networks.small.train" in line]
    assert message in line


def test_a_step_beyond_the_training_is_refused_by_the_plan(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(lottery(tiny_tree, lottery={**LOTTERY, "rewind": 9}))
    message = r"networks\.small\.train\.lottery\.rewind: expected at most 8, the steps of the training, found 9"
    with pytest.raises(ConfigError, match=message):
        planned_stages(run.plan, run.job.store)


def test_pruning_until_a_layer_is_empty_is_one_line(tiny_tree: Tree, new_run: NewRun) -> None:
    run = new_run(lottery(tiny_tree, lottery={"stages": 1, "fraction": 0.999}))
    with pytest.raises(
        PartitionError, match=r"networks\.small\.train\.lottery: expected weights in every layer, found"
    ):
        make(run)
    folder = Path(run.config.store, "pruning")
    assert not list(folder.rglob("masks.safetensors"))
    assert json.dumps(sorted(file.name for file in folder.rglob("complete.json"))) == "[]"
