"""The presets of question 2: planned on generated images of their data's shape; the paper's run on a few."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.load import load_config
from flows.plan import make_plan
from flows.progress import PlannedStage, existing_store, planned_stages
from storage.stages import open_finished
from tasks.engine.life import Job
from tasks.io.networks import build_model
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.scores import read_scores
from tests.plans import complete_plan, decomposed

WNIDS = ("n01440764", "n02102040")


def count(rows: list[PlannedStage], stage: str) -> int:
    """Return the number of stages of a kind."""
    return sum(row.stage == stage for row in rows)


def test_digits_are_planned_with_every_check(tmp_path: Path) -> None:
    config = load_config("decomposition-digits", [f"store={tmp_path / 'store'}"])
    rows = planned_stages(make_plan(config), existing_store(config))
    assert count(rows, "training") == 2
    assert count(rows, "penultimate") == 4
    assert count(rows, "histogram") == 2 * (4 + 4)  # four k1, four numbers of images
    assert count(rows, "head-scores") == 2 * (1 + 4 * 3 + 7 + 4) + 1  # and that of the gates
    assert count(rows, "ablation") == 2 * 9
    assert count(rows, "decomposed-training") == 4
    assert count(rows, "gates") == 1
    assert not (tmp_path / "store").exists()


def test_cifar10_is_planned(tmp_path: Path) -> None:
    for split, n in (("train", 2000), ("test", 100)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        np.savez(tmp_path / f"{split}.npz", images=np.zeros((n, 32, 32, 3), np.uint8), labels=labels)
    changes = [f"data.cifar10.paths.{split}={tmp_path / split}.npz" for split in ("train", "test")]
    for name in ("resnet20", "resnet32", "resnet44", "resnet56"):
        path = tmp_path / f"{name}.pt"
        torch.save(build_model(f"cifar-{name}", {}, 0).state_dict(), path)
        changes.append(f"networks.{name}.weights={path}")
    config = load_config("decomposition-cifar10", [*changes, f"store={tmp_path / 'store'}"])
    rows = planned_stages(make_plan(config), existing_store(config))
    # 64 features and 10 logits float32, ids and labels int64, a digest of 16 bytes
    assert sorted({row.written for row in rows if row.stage == "penultimate"}) == [100 * 328, 2000 * 328]
    assert count(rows, "head-scores") == 4 * (1 + 5 * 4 + 7 + 6)


@pytest.mark.slow
def test_the_papers_setting_runs_on_a_few_images(tmp_path: Path, make_job: Callable[..., Job]) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for wnid in WNIDS:
            folder = tmp_path / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (250, 300, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{wnid}_{number}.JPEG")
    torch.save(build_model("resnet50", {}, 0).state_dict(), tmp_path / "resnet50.pth")
    changes = [
        f"data.imagenet.root={tmp_path / 'imagenet'}",
        f"networks.resnet50.weights={tmp_path / 'resnet50.pth'}",
        f"store={tmp_path / 'store'}",
        "cluster.kind=serial",
        "decomposition.networks=[resnet50]",
        "decomposition.gallery=2",
        "decomposition.sample_need=[1]",
    ]
    config = load_config("papers/decomposing-the-deep", changes)
    plan, job = make_plan(config), make_job(config)
    complete_plan(plan, job)
    (found,) = decomposed(plan)
    learn, histogram = open_finished(job.store, found.learn), open_finished(job.store, found.histogram)
    assert learn.layout.arrays["features"].dtype == "float16"
    counts = histogram.read("counts").astype(np.int64)
    assert counts.sum(axis=1).tolist() == [150, 150] + [0] * 998  # k1 times the images of each class
    features = learn.read("features").astype(np.float32)
    for label in (0, 1):
        rows = features[3 * label : 3 * label + 3]
        own = np.bincount(np.argsort(-rows, axis=1, kind="stable")[:, :50].ravel(), minlength=2048)
        np.testing.assert_array_equal(counts[label], own)
    assert read_sets(job.store, found.histogram, 50).shape == (1000, 50)
    (full,) = read_scores(open_finished(job.store, found.full))
    assert full.images.sum() == 6
    assert found.gallery is not None
    assert open_finished(job.store, found.gallery).read("maps").shape[:2] == (2, 3)
