"""What of a training set the site of question 3 shows: nothing, where training images are private."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from storage.stages import open_finished
from tests.flows.command import Tree, Write, layerlore, refused
from tests.probed import FEATURES

if TYPE_CHECKING:
    from tests.conftest import Run

pytestmark = pytest.mark.usefixtures("wide")
CLASSES = [str(label) for label in range(10)]


@pytest.fixture
def digits_tree(probed_tree: Tree, tmp_path: Path) -> Tree:
    """The config of question 3 whose probing images are those of the training's data set."""
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(1797, 12)), rng.normal(size=(10, 12))
    ids, words = np.arange(1797), np.array(CLASSES)
    np.savez(tmp_path / FEATURES, images=images, texts=texts, words=words, ids=ids)
    del probed_tree["data"]["probe"], probed_tree["concepts"]["anchors"]
    probed_tree["concepts"] |= {"probe": {"data": "digits", "split": "val", "size": 16}, "layers": ["8"], "track": {}}
    probed_tree["concepts"] |= {"detectors": {"soft_wpmi": {"top_k": 10}}}
    probed_tree["concepts"]["image_text"]["ids"] = "ids"
    return probed_tree


def splits_of(run: "Run") -> dict[int, str]:
    """Return the split of each sample by id."""
    spec = run.plan.shared.manifests["digits"]
    table = pd.read_parquet(Path(run.config.store, spec.path, "files", "manifest.parquet"))
    return dict(zip(table["id"].tolist(), table["split"].tolist(), strict=True))


@pytest.mark.parametrize("images", ["ids", "none"])
def test_the_site_shows_no_training_image(
    digits_tree: Tree, write: Write, new_run: Callable[[Tree], "Run"], images: str
) -> None:
    digits_tree["report"] = {"training_images": images}
    run = new_run(digits_tree).finish()
    assert layerlore("report", write(digits_tree)).exit_code == 0
    site = Path(run.config.store, "reports", "probed")
    exemplars = run.plan.answers["concepts"][0].exemplars
    assert exemplars is not None
    shown = pd.read_parquet(Path(run.config.store, exemplars.path, "files", "exemplars.parquet"))["sample_id"]
    splits = splits_of(run)
    assert {splits[sample] for sample in shown} == {"val"}
    assert set(open_finished(run.job.store, exemplars.inputs["responses 0"]).read("sample_id")) == {
        sample for sample, split in splits.items() if split == "val"
    }
    page = (site / "concepts.html").read_text()
    named = {int(number) for number in re.findall(r"image (\d+)", page)}
    listed = set(pd.read_csv(site / "data" / "concepts_exemplars.csv")["sample_id"])
    assert named == set(shown)
    assert listed == set(shown)
    pictures = open_finished(run.job.store, exemplars).read("picture")
    assert len(re.findall("data:image/png", page)) <= len({picture.tobytes() for picture in pictures})
    assert {path.parent.name for path in site.rglob("*.png")} == {"figures"}  # drawn from the tables


def test_probing_images_of_a_training_split_are_refused(digits_tree: Tree, write: Write) -> None:
    digits_tree["report"] = {"training_images": "ids"}
    del digits_tree["concepts"]["probe"]["split"]
    text = refused(layerlore("plan", write(digits_tree)))
    assert "report.training_images: with 'ids' expected probing images that no network is trained on, found all" in text


def test_without_pictures_training_images_may_be_probed(
    digits_tree: Tree, write: Write, new_run: Callable[[Tree], "Run"]
) -> None:
    digits_tree["report"] = {"training_images": "none"}
    digits_tree["concepts"]["probe"]["split"] = "train"
    digits_tree["concepts"]["shown"] = 0
    run = new_run(digits_tree).finish()
    assert layerlore("report", write(digits_tree)).exit_code == 0
    site = Path(run.config.store, "reports", "probed")
    assert run.plan.answers["concepts"][0].exemplars is None
    assert {path.parent.name for path in site.rglob("*.png")} == {"figures"}
    page = (site / "concepts.html").read_text()
    assert "data:image/png" not in page
