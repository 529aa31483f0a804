"""The preset `imagenet` on a generated folder of two classes with three images each: planned, then run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.load import load_config
from configs.schema import Config
from flows.plan import Plan, make_plan
from flows.progress import existing_store, planned_stages
from storage.stages import open_finished
from tasks.engine.life import Job
from tasks.io.networks import build_model
from tests.plans import cells, complete_plan, learned

WNIDS = ("n01440764", "n02102040")
IMAGES = 3

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/, val/ and the state dict of a ResNet-50 with random weights."""
    root = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for wnid in WNIDS:
            folder = root / split / wnid
            folder.mkdir(parents=True)
            for number in range(IMAGES):
                # One grey image per folder, as ImageNet has some: the preset converts them.
                shape = (250, 300) if number == 0 else (250, 300, 3)
                image = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
                image.save(folder / f"{wnid}_{number}.JPEG")
    torch.save(build_model("resnet50", {}, 0).state_dict(), root / "resnet50.pth")
    return root


@pytest.fixture
def config(imagenet: Path, tmp_path: Path) -> Config:
    """The preset with its paths, fewer budgets and one draw."""
    return load_config(
        "imagenet",
        [
            f"data.imagenet.root={imagenet}",
            f"networks.resnet50.weights={imagenet / 'resnet50.pth'}",
            f"store={tmp_path / 'store'}",
            "cluster.kind=serial",
            "interpretation.budgets=[0.4, 1.0]",
            "interpretation.selectors.random.repeats=1",
            "interpretation.interpreters.ice.components=2",
            "interpretation.gallery=2",
        ],
    )


def test_imagenet_is_planned_and_nothing_is_written(config: Config, tmp_path: Path) -> None:
    rows = planned_stages(make_plan(config), existing_store(config))
    n = IMAGES * len(WNIDS)
    # ids and labels int64, 16 bytes of digest, 1,000 logits float32, 2,048 means and 7 x 7 x 2,048 maps float16
    sample = 8 + 8 + 16 + 4 * 1000 + 2 * 2048 * (1 + 7 * 7)
    assert [row.written for row in rows if row.stage == "activations"] == [n * sample] * 2
    assert {row.state for row in rows} == {"missing"}
    assert not (tmp_path / "store").exists()


def test_imagenet_runs(config: Config, make_job: Callable[[Config], Job]) -> None:
    plan, job = make_plan(config), make_job(config)
    complete_plan(plan, job)
    _check_activations(plan, job)
    full = next(cell for cell in cells(plan) if cell.budget == 1.0)
    evaluation = open_finished(job.store, full.evaluation)
    values = evaluation.read("values")
    distance = values[:, evaluation.summary["measures"].index("distance_0")].astype(np.float64)
    np.testing.assert_allclose(distance, 0.0, atol=1e-6)  # everything against everything
    np.testing.assert_array_equal(evaluation.read("label"), [0, 1])


def _check_activations(plan: Plan, job: Job) -> None:
    """Assert maps of the last block in half precision, class by class, and their means."""
    stage = open_finished(job.store, learned(plan)["resnet50", 0])
    maps, pooled = stage.read("maps"), stage.read("pooled").astype(np.float64)
    assert maps.shape == (IMAGES * len(WNIDS), 7, 7, 2048)
    assert maps.dtype == np.float16
    assert maps.min() >= 0
    np.testing.assert_allclose(maps.astype(np.float64).mean(axis=(1, 2)), pooled, rtol=2e-3, atol=1e-3)
    np.testing.assert_array_equal(stage.read("label"), [0] * IMAGES + [1] * IMAGES)
