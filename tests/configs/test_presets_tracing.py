"""The tracing presets are planned, on generated images of CIFAR-10's shape and on digits."""

import shutil
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs.load import load_config
from configs.schema import Config
from flows.plan import make_plan
from flows.progress import PlannedStage, existing_store, planned_stages

STEP_BYTES = 4  # a float32 weight


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.npz and test.npz, 90 and 10 images a class."""
    root = tmp_path_factory.mktemp("cifar10")
    for split, n in (("train", 900), ("test", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        np.savez(root / f"{split}.npz", images=np.zeros((n, 32, 32, 3), np.uint8), labels=labels)
    return root


def planned(config: Config) -> list[PlannedStage]:
    """The stages of a config."""
    return planned_stages(make_plan(config), existing_store(config))


def vgg_weights(width: float) -> int:
    """Weights of VGG-16's convolutions and linear layers, without biases, from the layout in the paper."""
    channels = [3] + [round(width * n) for n in (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)]
    units = [channels[-1], round(width * 4096), round(width * 4096), 10]
    maps = sum(9 * n_in * n_out for n_in, n_out in pairwise(channels))
    return maps + sum(n_in * n_out for n_in, n_out in pairwise(units))


@pytest.mark.parametrize(("preset", "width"), [("tracing-cifar10", 0.125), ("papers/tracing-training", 1.0)])
def test_vgg_is_planned_with_its_archive(preset: str, width: float, cifar10: Path, tmp_path: Path) -> None:
    paths = [f"data.cifar10.paths.{split}={cifar10 / split}.npz" for split in ("train", "test")]
    # 90 images a class are batches of 88 and of 2; one epoch, since the full run fits on few disks.
    record = "networks.vgg16.train.record={kind: dense, archive_budget: 3TB}"
    changes = [f"store={tmp_path / 'store'}", "networks.vgg16.train.epochs=1", record]
    training = next(row for row in planned(load_config(preset, [*paths, *changes])) if row.stage == "training")
    archive = 20 * vgg_weights(width) * STEP_BYTES
    assert archive <= training.written <= 1.6 * archive  # checkpoints too, since the steps are few
    assert not (tmp_path / "store").exists()


def test_the_papers_run_at_full_width_is_a_replay(
    cifar10: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(total=2**50, used=0, free=2**50))
    paths = [f"data.cifar10.paths.{split}={cifar10 / split}.npz" for split in ("train", "test")]
    # 20 batches an epoch here, 570 with all images: as many steps as 35 epochs of the whole data.
    epochs = f"networks.vgg16.train.epochs={35 * 570 // 20}"
    config = load_config("papers/tracing-training", [*paths, f"store={tmp_path / 'store'}", epochs])
    rows = planned(config)
    training = next(row for row in rows if row.stage == "training")
    assert training.written <= 52e9
    index = sum(row.written for row in rows if row.stage in ("index", "index-basis"))
    assert 35 * 570 * 16 * 64 * 4 <= index <= 0.5e9  # 16 layers, 64 coefficients in float32
    assert "an archive of kind " in training.note
    checkpoints = 125 * vgg_weights(1.0) * STEP_BYTES
    assert training.written >= checkpoints


def test_the_paper_has_as_many_weights_as_it_states() -> None:
    assert round(vgg_weights(1.0) * STEP_BYTES / 2**20) == 128  # the paper prints 129 MB


def test_influence_is_planned_with_retrainings_of_both_orders(tmp_path: Path) -> None:
    rows = planned(load_config("influence-digits", [f"store={tmp_path / 'store'}"]))
    count = {stage: sum(row.stage == stage for row in rows) for stage in {row.stage for row in rows}}
    # Retrainings: of subsets from new seeds and in the same order, and those without a few examples.
    assert (count["retraining"], count["datamodelling"]) == (3, 2)
    assert count["counterfactual"] == count["tracin"] == count["comparison"] == count["training"] == 1


def test_digits_are_planned_with_every_check(tmp_path: Path) -> None:
    rows = planned(load_config("tracing-digits", [f"store={tmp_path / 'store'}"]))
    count = {stage: sum(row.stage == stage for row in rows) for stage in {row.stage for row in rows}}
    # Four networks and two on permuted labels, which the flipped twins share, from three seeds.
    assert count["training"] == 6 * 3
    assert count["retraining"] == count["datamodelling"] == count["randomisation"] == 4 * 3
    assert count["mislabel"] == 2 * 3
