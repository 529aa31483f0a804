"""Trainings with the diversity regulariser as stages: inputs, resuming, recording, cost, keys and refusals."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from configs.load import ConfigError, load_config
from flows.progress import planned_stages
from storage.stages import open_finished, read_marker
from tasks.cluster.parallel import PartitionError
from tasks.engine.curves import CurveReader
from tasks.engine.life import complete
from tasks.io.networks import build_model
from tasks.recording.sources import update_source
from tasks.steps.common import trainer
from tasks.steps.common.courses import CURVES, MEMORY_SAMPLES
from tasks.steps.common.step_seconds import step_seconds
from tasks.steps.plan import waves, with_inputs
from tasks.steps.questions import STEPS
from tasks.training.diversity import batch_distance
from tests.tasks.steps.common.trainings import changed, die_at, file_digests, spec_of

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]

WORDS = ["red", "blue", "striped", "square"]
SGD = {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}


def diverse(tree: Tree, folder: Path, **settings: object) -> Tree:
    """Return a config with the regulariser on given features, and other settings of its training."""
    path = folder / "features.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        images, texts = (rng.normal(size=(n, 5)).astype(np.float32) for n in (1797, 4))
        np.savez(path, images=images, texts=texts, words=np.array(WORDS), ids=np.arange(1797))
    features = {"kind": "features", "path": str(path), "words": "words", "ids": "ids"}
    regulariser = {"layer": "8", "words": WORDS[:3], "beta": 0.7, "temperature": 0.05, "image_text": features}
    other = changed(tree, **{"epochs": 1, "optimizer": SGD, "diversity": regulariser, **settings})
    other.pop("interpretation", None)
    return other


def planned(new_run: NewRun, tree: Tree) -> None:
    """Plan the run of a config."""
    run = new_run(tree)
    planned_stages(run.plan, run.job.store)


def make(run: "Run") -> Path:
    """Make the training of a run with all that it reads; return its folder."""
    for wave in waves(with_inputs([spec_of(run)])):
        complete(run.job, STEPS[wave[0].stage], wave)
    return Path(run.config.store, spec_of(run).path)


@pytest.mark.parametrize(
    ("optimizer", "batches"),
    [
        (SGD, {"size": 16}),
        (SGD, {"kind": "single-class", "size": 7, "ghosts": 10}),
        ({"kind": "sam", "lr": 0.05}, {"size": 16}),
        ({"kind": "adam"}, {"size": 16}),
        ({"kind": "adamw"}, {"kind": "single-class", "size": 7, "ghosts": 10}),
    ],
)
def test_a_killed_training_with_the_regulariser_gives_the_same_bits(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batches: Tree, optimizer: Tree
) -> None:
    rest = {"clip": 1.0, "augment": {"pad": 1}, "record": {}, "schedule": {"kind": "cosine"}}
    tree = diverse(tiny_tree, tmp_path, batches=batches, optimizer=optimizer, **rest)
    whole = make(new_run({**tree, "store": str(tmp_path / "whole")}))
    with monkeypatch.context() as patch:
        die_at(patch, 10)  # eight steps are for the measured times
        with pytest.raises(PartitionError, match="killed"):
            make(new_run(tree))
    run = new_run(tree)
    assert file_digests(make(run)) == file_digests(whole)
    source = update_source(open_finished(run.job.store, spec_of(run)))
    for layer in source.layers:
        blocks = [block.dense() for segment in source.segments() for block in source.blocks(segment, [layer])]
        total = source.initial(layer).double() + torch.cat(blocks).double().sum(0)
        torch.testing.assert_close(total, source.final(layer).double(), rtol=0, atol=1e-5)


def test_the_first_loss_has_beta_times_the_distance_of_the_batch(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path
) -> None:
    run = new_run(diverse(tiny_tree, tmp_path))
    make(run)
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    rows = made.samples.batches.batch(0).examples
    inputs, labels = made.samples.fetch(rows)
    model = build_model("small-cnn", {"width": 4}, 0)
    maps = torch.nn.Sequential(*list(model.children())[:9])(inputs)
    with np.load(tmp_path / "features.npz") as arrays:
        images, words = (torch.from_numpy(arrays[name]) for name in ("images", "texts"))
    images, words = (each / each.norm(dim=1, keepdim=True) for each in (images[made.samples.ids[rows]], words[:3]))
    distance = batch_distance(maps.mean((2, 3)), images, words, 0.05)
    plain = torch.nn.functional.cross_entropy(build_model("small-cnn", {"width": 4}, 0)(inputs), labels)
    (loss,) = made.run(0, 1)
    assert loss == pytest.approx((plain + 0.7 * distance).item(), rel=1e-5)
    assert loss > plain.item() + 0.1


def test_the_cost_of_a_step_is_measured_logged_and_leaves_no_trace(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path
) -> None:
    run = new_run(diverse(tiny_tree, tmp_path))
    reader = CurveReader(run.job.store, CURVES, [spec_of(run)])
    reader.begin()
    folder = make(run)
    numbers = [read_marker(run.job.store, spec_of(run).path, number)["numbers"] for number in (0, 1)]
    assert set(numbers[0]["step_seconds"]) == {"plain", "diversity"}
    assert numbers[0]["step_seconds"]["plain"] > 0
    assert "step_seconds" not in numbers[1]
    assert (folder / "files" / CURVES).exists()
    line = next(reader.lines())
    plain, with_it = (1000 * numbers[0]["step_seconds"][name] for name in ("plain", "diversity"))
    title = spec_of(run).title
    assert line == f"{title}: a step takes {plain:.2f} ms, {with_it:.2f} ms with diversity"
    made = trainer.open_trainer(run.job.store, spec_of(run), torch.device("cpu"), MEMORY_SAMPLES)
    for _ in range(2):  # before the first step, and with an optimiser that has a state
        before, random = trainer.pack_training(made), torch.get_rng_state()
        step_seconds(made)
        assert trainer.pack_training(made) == before
        assert torch.equal(torch.get_rng_state(), random)
        made.run(0, 2)


def test_the_key_has_the_words_and_the_model_by_the_stages_that_hold_them(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path
) -> None:
    spec = spec_of(new_run(diverse(tiny_tree, tmp_path)))
    assert spec.parameters["train"]["diversity"] == {"layer": "8", "beta": 0.7, "temperature": 0.05}
    assert {role: read.stage for role, read in spec.inputs.items()} == {
        "data": "manifest",
        "image_features": "image-features",
        "words": "words",
    }
    other = diverse(tiny_tree, tmp_path)
    other["networks"]["small"]["train"]["diversity"]["words"] = WORDS[1:]
    assert spec_of(new_run(other)).key != spec.key
    moved = copy.deepcopy(diverse(tiny_tree, tmp_path))
    copied = tmp_path / "copy.npz"
    copied.write_bytes((tmp_path / "features.npz").read_bytes())
    moved["networks"]["small"]["train"]["diversity"]["image_text"]["path"] = str(copied)
    assert spec_of(new_run(moved)).key == spec.key
    plain = copy.deepcopy(tiny_tree)
    assert "diversity" not in spec_of(new_run(plain)).parameters["train"]


KEY = "networks.small.train.diversity"
REFUSED: list[tuple[Tree, str]] = [
    ({"layer": "absent"}, "networks.small: diversity: layer 'absent': expected a module, found none"),
    ({"words": ["red", "unheard"]}, f"{KEY}.words: features "),
    ({"words": "absent.txt"}, f"{KEY}.words: file absent.txt does not exist"),
    ({"image_text": {"kind": "features", "path": "absent.npz"}}, f"{KEY}.image_text.path: file absent.npz does"),
    ({"image_text": {"kind": "tiny"}, "words": ["red", "carburettor"]}, f"{KEY}.words: "),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_does_not_fit_is_refused_by_the_plan_in_one_line(
    tiny_tree: Tree, new_run: NewRun, tmp_path: Path, settings: Tree, message: str
) -> None:
    tree = diverse(tiny_tree, tmp_path)
    tree["networks"]["small"]["train"]["diversity"] |= settings
    with pytest.raises(ConfigError) as error:
        planned(new_run, tree)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_features_of_other_images_are_refused_by_the_plan(tiny_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few = rng.normal(size=(100, 5)).astype(np.float32)
    np.savez(tmp_path / "features.npz", images=few, texts=few[:4], words=np.array(WORDS))
    run = new_run(diverse(tiny_tree, tmp_path))
    with pytest.raises(ConfigError, match=r"networks\.small\.train\.diversity\.image_text: "):
        planned_stages(run.plan, run.job.store)


BAD: list[tuple[Tree, Tree, str]] = [
    ({"beta": -1}, {}, ".diversity.beta: input should be greater than or equal to 0, found -1"),
    ({"temperature": 0}, {}, ".diversity.temperature: input should be greater than 0, found 0"),
    ({"words": []}, {}, ".diversity.words"),
    ({}, {"batches": {"kind": "single-example"}}, ": diversity: expected batches of two images or more, found single-"),
    ({}, {"batches": {"size": 1}}, ": diversity: expected batches of two images or more, found shuffled of one"),
]


@pytest.mark.parametrize(("settings", "train", "message"), BAD)
def test_bad_settings_are_one_line_that_names_the_key(
    tiny_tree: Tree, tmp_path: Path, settings: Tree, train: Tree, message: str
) -> None:
    tree = diverse(tiny_tree, tmp_path, **train)
    tree["networks"]["small"]["train"]["diversity"] |= settings
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as error:
        load_config(str(file))
    lines = [line for line in str(error.value).splitlines() if "networks.small.train" in line]
    assert message in lines[0]
