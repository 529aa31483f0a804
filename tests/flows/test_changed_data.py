"""Images that change under a training, with names and sizes as they were: the next reader says which."""

import copy
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from flows.progress import finished_paths
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import StoreError
from storage.verify import verify_stage
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import complete
from tasks.engine.step import Step
from tasks.steps.common import chain, fetching, training
from tasks.steps.common.manifest import MANIFEST, positions
from tasks.steps.common.training import TRAINING
from tasks.steps.interpretation.gallery import GALLERY
from tasks.steps.tracing.mislabel import MISLABEL
from tasks.steps.tracing.queries import QUERIES
from tasks.training.loop import Trainer
from tests.plans import galleries, held_out, traces

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]


def paint(path: Path, seed: int) -> None:
    """Write an 8 x 8 image of noise as BMP, whose size does not depend on the pixels."""
    pixels = np.random.default_rng(seed).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".bmp"))


@pytest.fixture(params=[None, 0], ids=["in memory", "batch by batch"])
def pets(folder_tree: Tree, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Tree:
    """The folder's config with a training of six segments, on BMPs, which fit in memory or do not."""
    for number, path in enumerate(sorted(images(folder_tree).rglob("*.png"))):
        paint(path, number)
        path.unlink()
    del folder_tree["networks"]["net"]["weights"]
    folder_tree["networks"]["net"]["train"] = {
        "data": "pets",
        "epochs": 2,
        "optimizer": {"kind": "sgd", "lr": 0.01},
        "batches": {"size": 4},
        "checkpoint_every": 1,
    }
    if request.param is not None:
        for module in (training, chain):
            monkeypatch.setattr(module, "MEMORY_SAMPLES", request.param)
    return folder_tree


def images(tree: Tree) -> Path:
    """Return the folder with train/ and val/."""
    return Path(tree["data"]["pets"]["paths"]["train"]).parent


def longer(tree: Tree) -> Tree:
    """Return the same config with another training on the same data."""
    changed = copy.deepcopy(tree)
    changed["networks"]["net"]["train"]["epochs"] = 3
    return changed


def spec_of(run: "Run") -> StageSpec:
    """Return the run's only training."""
    return next(iter(run.plan.shared.trainings.values()))


def train(run: "Run") -> StageSpec:
    """Make the training of a run as a new process would, and return its spec."""
    fetching._open_reader.cache_clear()
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    complete(run.job, TRAINING, [spec_of(run)])
    return spec_of(run)


def said(path: str, source: str) -> str:
    """Return a pattern of the message about a changed sample."""
    remedy = "found other content; restore the data, or remove the stages that were made from it"
    return rf"sample {path} \(id \d+\): expected the content that {re.escape(source)} was made from, {remedy}$"


@pytest.mark.parametrize("sample", ["train/dog/3.bmp", "val/cat/1.bmp"])
def test_a_training_on_changed_data_is_refused(
    pets: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, sample: str
) -> None:
    first = train(new_run(pets))
    paint(images(pets) / sample, 999)
    second = new_run(longer(pets))
    monkeypatch.setattr(Trainer, "run", lambda *_, **__: pytest.fail("a step was made"))
    with pytest.raises(PartitionError, match=said(sample, first.path)):
        train(second)
    assert spec_of(second).path not in finished_paths(second.plan, second.job.store)
    assert spec_of(second).inputs["data"].key == first.inputs["data"].key  # names and sizes are the same


def test_without_the_stages_made_from_it_changed_data_are_taken(pets: Tree, new_run: NewRun) -> None:
    run = new_run(pets)
    first = train(run)
    paint(images(pets) / "train/dog/3.bmp", 999)
    run.job.store.remove(first.path)
    assert train(new_run(longer(pets))).path != first.path


def test_unchanged_data_are_trained_on_again(pets: Tree, new_run: NewRun) -> None:
    train(new_run(pets))
    second = new_run(longer(pets))
    assert train(second).path in finished_paths(second.plan, second.job.store)


def test_a_resumed_training_names_what_changed(pets: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls = new_run(pets), []

    original = Trainer.run

    def dies(*arguments: Any, **options: Any) -> list[float]:  # Any: passed on
        calls.append(0)
        if len(calls) == 3:
            raise RuntimeError("killed")
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "run", dies)
        with pytest.raises(PartitionError, match="killed"):
            train(run)
    for number in range(6):  # whichever the third step reads
        for name in ("cat", "dog"):
            paint(images(pets) / f"train/{name}/{number}", 900 + number)
    with pytest.raises(PartitionError, match=said(r"train/\w+/\d\.bmp", spec_of(run).path)):
        train(run)


def test_images_that_change_during_the_first_segment_are_named(
    pets: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    if chain.__dict__["MEMORY_SAMPLES"]:
        pytest.skip("in memory they are read once")

    original = Trainer.run

    def repaints(*arguments: Any, **options: Any) -> list[float]:  # Any: passed on
        for path in images(pets).rglob("train/**/*.bmp"):
            paint(path, 999)
        return original(*arguments, **options)

    monkeypatch.setattr(Trainer, "run", repaints)
    run = new_run(pets)
    with pytest.raises(PartitionError, match=said(r"train/\w+/\d\.bmp", spec_of(run).path)):
        train(run)
    assert not run.job.store.names(f"{spec_of(run).path}/markers")


def test_an_extraction_compares_with_a_training(pets: Tree, new_run: NewRun) -> None:
    run = new_run(pets)
    first = train(run)
    paint(images(pets) / "train/cat/0.bmp", 999)
    with pytest.raises(PartitionError, match=said("train/cat/0.bmp", first.path)):
        run.finish()


def test_a_training_compares_with_an_extraction(pets: Tree, new_run: NewRun) -> None:
    first = new_run(pets).finish()
    first.job.store.remove(spec_of(first).path)
    paint(images(pets) / "val/dog/2.bmp", 999)
    with pytest.raises(PartitionError, match=said("val/dog/2.bmp", held_out(first.plan)["net", 0].path)):
        train(new_run(longer(pets)))


def test_a_training_keeps_the_digest_of_each_sample(pets: Tree, new_run: NewRun) -> None:
    run = new_run(pets)
    stage = open_finished(run.job.store, train(run))
    for split, count in (("train", 12), ("val", 6)):
        rows = positions(run.job.store, spec_of(run).inputs["data"].path, split)
        expected = [hashlib.blake2b((images(pets) / key).read_bytes(), digest_size=16).digest() for key in rows["key"]]
        assert stage.read_file(f"content-{split}.bin") == b"".join(expected)
        assert len(expected) == count
    assert list(verify_stage(run.job.store, stage.path)) == []


def test_damaged_digests_are_named(pets: Tree, new_run: NewRun) -> None:
    run = new_run(pets)
    path = f"{train(run).path}/files/content-train.bin"
    run.job.store.write(path, bytes(12 * 16))
    with pytest.raises(
        (PartitionError, StoreError),
        match=rf"{path}: expected the content of its digest, found damage; remove the stage's folder and run",
    ):
        train(new_run(longer(pets)))


def traced(tree: Tree) -> Tree:
    """Return the config with a record of its training, some labels flipped, and question 4 of it."""
    changed = copy.deepcopy(tree)
    del changed["interpretation"]
    changed["data"]["pets"]["noise"] = {"share": 0.3}
    changed["networks"]["net"]["train"]["record"] = {}
    changed["tracing"] = {"networks": ["net"], "queries": {"count": 2}, "evaluation": {"mislabel": True}}
    return changed


@pytest.mark.parametrize(("step", "split"), [(QUERIES, "val"), (MISLABEL, "train")])
def test_a_tracing_of_changed_data_is_refused(pets: Tree, new_run: NewRun, step: Step, split: str) -> None:
    run = new_run(traced(pets))
    path, trace = train(run).path, traces(run.plan)[0]
    for image in sorted((images(pets) / split).rglob("*.bmp")):
        paint(image, 999)
    fetching._open_reader.cache_clear()
    asked = trace.queries if step is QUERIES else trace.mislabel
    assert asked is not None
    with pytest.raises((PartitionError, ValueError), match=said(rf"{split}/\w+/\d\.bmp", path).rstrip("$")):
        complete(run.job, step, [asked])


def test_a_gallery_of_changed_images_is_refused(pets: Tree, new_run: NewRun) -> None:
    run = new_run(pets).finish()
    (gallery,) = galleries(run.plan).values()
    run.job.store.remove(gallery.path)
    for image in sorted((images(pets) / "val").rglob("*.bmp")):
        paint(image, 999)
    with pytest.raises(PartitionError, match=r"sample val/\w+/\d\.bmp \(id \d+\): expected the content that"):
        complete(run.job, GALLERY, [gallery])
