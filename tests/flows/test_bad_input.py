"""Bad input through the whole pipeline: what is said, and that nothing half-written looks whole."""

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import zarr.storage
from PIL import Image

from configs.load import ConfigError
from flows.progress import finished_paths, planned_stages
from storage.claims import StageHeldError, claim
from storage.stages import find_finished, open_finished
from storage.stores import Store
from storage.verify import stage_paths
from tasks.cluster.parallel import PartitionError
from tasks.engine.life import Job, complete
from tasks.io.networks import build_model
from tasks.steps.common.manifest import MANIFEST
from tasks.steps.interpretation.results import class_table
from tasks.steps.report import write_report
from tests.plans import cells, learned

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
AddImage = Callable[..., None]


def fails(run: "Run", kind: str, error: type[Exception] = PartitionError) -> str:
    """Return what a run says that fails at a stage of `kind`, after checking that this does not look whole."""
    with pytest.raises(error) as caught:
        run.finish()
    done = finished_paths(run.plan, run.job.store)
    failed = [spec.path for spec in run.plan.stages if spec.stage == kind and spec.path not in done]
    assert failed
    assert not any(run.job.store.names(f"{path}/markers") for path in failed)  # stages of one partition
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    return text


def refused(run: "Run") -> str:
    """Return what the plan says that refuses a config, after checking that it is one line."""
    with pytest.raises(ConfigError) as caught:
        planned_stages(run.plan, None)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def images(run_or_tree: Tree) -> Path:
    """Return the folder with train/ and val/."""
    return Path(run_or_tree["data"]["pets"]["paths"]["train"]).parent


def arrays_of(store: str) -> dict[str, str]:
    """Return the digests of every finished stage's arrays, from the completion records."""
    opened = Store(store)
    stages = {path: find_finished(opened, path) for path in stage_paths(opened)}
    return {f"{p}/{name}": d for p, s in stages.items() if s is not None for name, d in s.note["arrays"].items()}


def test_the_folder_run_is_sound(folder_tree: Tree, new_run: NewRun) -> None:
    run = new_run(folder_tree)
    assert len(planned_stages(run.plan, None)) == len(run.plan.stages)
    run.finish()
    table = class_table(run.job.store, cells(run.plan))
    whole = table[table["budget"] == 1.0]
    np.testing.assert_allclose(whole[["distance_0", "distance_05", "distance_1"]], 0, atol=1e-6)
    assert table["class_name"].tolist() == ["cat", "dog"] * 2


def test_a_corrupted_image_is_named(folder_tree: Tree, new_run: NewRun) -> None:
    bad = images(folder_tree) / "train" / "dog" / "3.png"
    bad.write_bytes(bad.read_bytes()[:60])
    text = fails(new_run(folder_tree), "activations")
    assert "dog/3.png" in text
    assert "partition 0 of activations net last-map train" in text


def test_an_image_of_another_mode_is_named_with_the_remedy(
    folder_tree: Tree, new_run: NewRun, add_image: AddImage
) -> None:
    add_image(images(folder_tree) / "train" / "cat" / "2.png", 0, "L")
    text = fails(new_run(folder_tree), "activations")
    assert "cat/2.png" in text
    assert "L" in text
    assert "RGB" in text
    assert "convert: true" in text
    folder_tree["networks"]["net"]["preprocessing"] = {"convert": True}
    new_run(folder_tree).finish()


def test_an_image_of_another_size_is_named_with_the_remedy(folder_tree: Tree, new_run: NewRun) -> None:
    Image.new("RGB", (9, 8)).save(images(folder_tree) / "val" / "cat" / "1.png")
    text = fails(new_run(folder_tree), "activations")
    assert "cat/1.png: expected input (3, 8, 8) as before, found (3, 8, 9); set `resize` and `crop`" in text


def test_an_image_of_another_size_is_named_by_a_training_too(folder_tree: Tree, new_run: NewRun) -> None:
    del folder_tree["networks"]["net"]["weights"]
    folder_tree["networks"]["net"]["train"] = {"data": "pets", "epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.1}}
    Image.new("RGB", (9, 8)).save(images(folder_tree) / "train" / "cat" / "1.png")
    text = fails(new_run(folder_tree), "training")
    assert "cat/1.png: expected input (3, 8, 8) as before, found (3, 8, 9); set `resize` and `crop`" in text


def test_an_empty_class_is_named(folder_tree: Tree, new_run: NewRun) -> None:
    for image in (images(folder_tree) / "train" / "dog").iterdir():
        image.unlink()
    run = new_run(folder_tree)
    assert "dog" in refused(run)
    assert "dog" in fails(run, "manifest")


def test_a_class_of_only_one_split_is_named(folder_tree: Tree, new_run: NewRun) -> None:
    shutil.rmtree(images(folder_tree) / "val" / "dog")
    folder_tree["data"]["pets"]["classes"] = {"cat": 0, "dog": 1}
    run = new_run(folder_tree)
    text = refused(run)
    assert "dog" in text or "class 1" in text


def test_a_class_with_one_sample_works(folder_tree: Tree, new_run: NewRun) -> None:
    for split in ("train", "val"):
        for image in sorted((images(folder_tree) / split / "dog").iterdir())[1:]:
            image.unlink()
    run = new_run(folder_tree).finish()
    table = class_table(run.job.store, cells(run.plan)).set_index(["budget", "class_name"])
    assert table.loc[(0.5, "dog"), "n_kept"] == 1  # at least one is kept
    assert table.loc[(0.5, "dog"), "n_class"] == 1
    assert table.loc[(0.5, "dog"), "n_rows"] == 64  # positions of one image
    assert table.loc[(1.0, "dog"), "distance_0"] == pytest.approx(0, abs=1e-6)


def test_a_class_with_one_row_is_left_out_and_counted(folder_tree: Tree, new_run: NewRun, tmp_path: Path) -> None:
    for image in sorted((images(folder_tree) / "val" / "dog").iterdir())[1:]:
        image.unlink()
    network = folder_tree["networks"]["net"]
    network["arguments"] = {"side": 8}  # the map is 1 x 1
    folder_tree["interpretation"]["layer"] = "act"
    torch.save(build_model(network["model"], network["arguments"], 0).state_dict(), network["weights"])
    run = new_run(folder_tree).finish()
    table = class_table(run.job.store, cells(run.plan))
    assert table.loc[table["class_name"] == "dog", ["distance_0", "null_05", "self_1"]].isna().all(axis=None)
    assert table.loc[table["class_name"] == "cat", "distance_0"].notna().all()
    write_report(run.job.store, run.plan.made(), created="now", reused=frozenset())
    budgets = pd.read_parquet(Path(run.config.store, "reports/folder/tables/by_budget.parquet"))
    assert budgets["left_out"].tolist() == [1, 1]
    assert budgets["n_classes"].tolist() == [2, 2]
    assert budgets["phi_0"].notna().all()


def test_nan_in_activations_names_layer_and_sample(folder_tree: Tree, new_run: NewRun) -> None:
    Image.new("RGB", (8, 8), "white").save(images(folder_tree) / "train" / "dog" / "4.png")
    run = new_run(folder_tree)
    text = fails(run, "activations")
    table = pd.read_parquet(
        Path(run.config.store, next(iter(run.plan.shared.manifests.values())).path, "files/manifest.parquet")
    )
    white = table.loc[table["key"].str.endswith("dog/4.png"), "id"].item()
    assert "'last-map'" in text
    assert f"sample {white}" in text or f"sample id {white}" in text


def test_what_float16_cannot_hold_names_layer_and_sample(folder_tree: Tree, new_run: NewRun) -> None:
    folder_tree["networks"]["net"]["arguments"] = {"gain": 1e6}
    folder_tree["interpretation"]["dtype"] = "float16"
    text = fails(new_run(folder_tree), "activations")
    assert "last-map" in text
    assert "65504" in text
    folder_tree["interpretation"]["dtype"] = "float32"
    new_run(folder_tree).finish()


def test_float16_is_kept_as_such(folder_tree: Tree, new_run: NewRun) -> None:
    wide = new_run(folder_tree).finish()
    folder_tree["interpretation"]["dtype"] = "float16"
    narrow = new_run(folder_tree).finish()
    a, b = (open_finished(r.job.store, learned(r.plan)["net", 0]).read("maps") for r in (wide, narrow))
    assert b.dtype == np.float16
    np.testing.assert_array_equal(np.asarray(a, np.float16), b)


def test_labels_beyond_the_outputs_are_named(folder_tree: Tree, new_run: NewRun) -> None:
    folder_tree["data"]["pets"]["classes"] = {"cat": 0, "dog": 2}
    run = new_run(folder_tree)
    assert "labels 0 to 1, as the network has 2 outputs, found 2 (" in refused(run)
    assert "found 2 (6 of 12 samples)" in fails(run, "activations", ValueError)


def test_weights_of_another_architecture_are_named(folder_tree: Tree, new_run: NewRun) -> None:
    weights = folder_tree["networks"]["net"]["weights"]
    torch.save({"layer.weight": torch.zeros(3)}, weights)
    text = refused(new_run(folder_tree))
    assert text.startswith("networks.net: ")
    assert weights in text
    assert "conv.weight" in text
    folder_tree["networks"]["net"]["arguments"] = {"width": 5}
    assert "networks.net: " in refused(new_run(folder_tree))


def test_weights_that_change_after_the_plan_are_refused(folder_tree: Tree, new_run: NewRun) -> None:
    run = new_run(folder_tree)
    state = torch.load(folder_tree["networks"]["net"]["weights"], weights_only=True)
    torch.save({k: v + 1 for k, v in state.items()}, folder_tree["networks"]["net"]["weights"])
    text = fails(run, "activations", ValueError)
    assert "expected the file that the run was planned with, found another; start the run again" in text


def test_a_network_without_maps_is_refused(folder_tree: Tree, new_run: NewRun) -> None:
    network = folder_tree["networks"]["net"]
    network["model"] = network["model"].replace(":Small", ":flat")
    torch.save(build_model(network["model"], {}, 0).state_dict(), network["weights"])
    text = refused(new_run(folder_tree))
    assert text.startswith("networks.net: ")
    assert text.endswith("it has no maps; name a module")


def test_a_missing_image_is_named(folder_tree: Tree, new_run: NewRun) -> None:
    run = new_run(folder_tree)
    assert planned_stages(run.plan, None)
    complete(run.job, MANIFEST, list(run.plan.shared.manifests.values()))
    (images(folder_tree) / "val" / "cat" / "2.png").unlink()
    text = fails(run, "activations")
    assert "cat/2.png" in text


def test_data_that_changed_between_two_extractions_are_named(
    folder_tree: Tree, new_run: NewRun, add_image: AddImage
) -> None:
    first = new_run(folder_tree).finish()
    add_image(images(folder_tree) / "train" / "dog" / "1.png", 999)
    folder_tree["networks"]["net"]["arguments"] = {"gain": 2.0}  # another network on the same data
    second = new_run(folder_tree)
    with pytest.raises(PartitionError, match=r"sample .*dog/1\.png \(id \d+\): expected the content that") as caught:
        second.finish()
    assert learned(first.plan)["net", 0].path in str(caught.value)
    assert learned(second.plan)["net", 0].path not in finished_paths(second.plan, second.job.store)


def test_an_unchanged_second_extraction_passes(folder_tree: Tree, new_run: NewRun) -> None:
    new_run(folder_tree).finish()
    folder_tree["networks"]["net"]["arguments"] = {"gain": 2.0}
    run = new_run(folder_tree).finish()
    assert len(finished_paths(run.plan, run.job.store)) == len(run.plan.stages)


@pytest.mark.parametrize("nth", [3, 8, 15, 26])
def test_a_full_disk_stops_the_run_which_goes_on_later(
    folder_tree: Tree, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, nth: int, tmp_path: Path
) -> None:
    whole = new_run({**folder_tree, "store": str(tmp_path / "whole")}).finish()
    run, written = new_run(folder_tree), 0
    with monkeypatch.context() as patch:
        write, put = Store.write, zarr.storage.LocalStore.set

        def full() -> None:
            nonlocal written
            written += 1
            if written >= nth:
                raise OSError(errno.ENOSPC, "No space left on device")

        def limited_write(store: Store, path: str, data: bytes) -> None:
            full()
            write(store, path, data)

        async def limited_put(self: Any, *args: Any, **more: Any) -> None:  # Any: passed on
            full()
            await put(self, *args, **more)

        patch.setattr(Store, "write", limited_write)
        patch.setattr(zarr.storage.LocalStore, "set", limited_put)
        with pytest.raises((OSError, PartitionError), match="No space left on device"):
            run.finish()
        before = finished_paths(run.plan, run.job.store)
        assert len(before) < len(run.plan.stages)
    again = new_run(folder_tree).finish()
    assert arrays_of(again.config.store) == arrays_of(whole.config.store)


def test_a_stage_that_another_run_holds_is_waited_for_or_left(folder_tree: Tree, new_run: NewRun) -> None:
    run = new_run(folder_tree)
    spec = next(iter(run.plan.shared.manifests.values()))
    job = Job(run.job.store, run.job.pool, run.job.observer, wait=False)
    with (
        claim(run.job.store, spec.path, "somebody"),
        pytest.raises(StageHeldError, match=r"manifest-\w+ is held by somebody \(pid \d+ on .*\)"),
    ):
        complete(job, MANIFEST, [spec])
    complete(job, MANIFEST, [spec])
    assert spec.path in finished_paths(run.plan, run.job.store)
