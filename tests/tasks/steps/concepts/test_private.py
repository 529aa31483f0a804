"""Probing images that are training images under another name: refused where the report must not show them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from configs.load import ConfigError
from configs.schema import AnyDataSet, Config
from flows.plan import make_plan
from storage.specs import StageSpec
from tasks.steps.common.manifest import manifest_spec
from tasks.steps.concepts.private import same_images

Tree = dict[str, Any]  # Any: YAML


def manifest(**settings: object) -> StageSpec:
    """Return the manifest of a data set."""
    data: AnyDataSet = TypeAdapter(AnyDataSet).validate_python(settings)
    return manifest_spec("some", data)


def archive(place: Path, seed: int) -> str:
    """Write an archive of other images for each seed, and return its path."""
    images = np.random.default_rng(seed).integers(0, 255, (4, 8, 8), np.uint8)
    np.savez(place / f"{seed}.npz", images=images, labels=np.arange(4))
    return str(place / f"{seed}.npz")


@pytest.mark.parametrize(
    ("probe", "data", "same"),
    [
        ({"source": "sklearn-digits", "per_class": 3}, {"source": "sklearn-digits"}, True),
        ({"source": "mini-broden", "count": 9}, {"source": "mini-broden", "count": 20, "seed": 0}, True),
        ({"source": "mini-broden", "count": 9, "seed": 1}, {"source": "mini-broden", "count": 9}, False),
        ({"source": "mini-broden"}, {"source": "sklearn-digits"}, False),
    ],
)
def test_sources_without_files_are_compared_by_what_they_draw(probe: Tree, data: Tree, same: bool) -> None:
    assert same_images(manifest(**probe), manifest(**data), "train") is same


def test_files_of_the_split_that_is_trained_on_are_compared(tmp_path: Path) -> None:
    first, second, third = (archive(tmp_path, seed) for seed in range(3))
    data = manifest(source="npz", paths={"train": [first, second], "val": third})
    for path, same in ((first, True), (second, True), (third, False)):
        probe = manifest(source="npz", paths={"probe": path})
        assert same_images(probe, data, "train") is same
        assert same_images(probe, data, "val") is not same
    whole = manifest(source="npz", paths={"all": first}, split={"train": 0.5, "val": 0.5})
    assert same_images(manifest(source="npz", paths={"probe": first}), whole, "train")


def test_folders_are_compared_by_their_files_and_tables_by_themselves(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "cat").mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / name / "cat" / f"{name}.png")
        (tmp_path / f"{name}.csv").write_text(f"path,label\n{name}/cat/{name}.png,0\n")
    for source, one, two in (("image-folder", "one", "two"), ("csv", "one.csv", "two.csv")):
        first, second = (manifest(source=source, paths={"train": str(tmp_path / name)}) for name in (one, two))
        assert same_images(manifest(source=source, paths={"probe": str(tmp_path / one)}), first, "train")
        assert not same_images(second, first, "train")


@pytest.mark.parametrize("shown", ["ids", "none", "show"])
def test_the_plan_refuses_training_images_under_another_name(probed_tree: Tree, shown: str) -> None:
    probed_tree["data"]["other"] = {"source": "sklearn-digits", "per_class": 5}
    probed_tree["concepts"] |= {"probe": {"data": "other", "size": 16}, "detectors": {"soft_wpmi": {"top_k": 10}}}
    probed_tree["report"] = {"training_images": shown}

    def planned(count: int) -> Callable[[], object]:
        probed_tree["concepts"]["shown"] = count
        config = Config.model_validate(probed_tree)
        return lambda: make_plan(config)

    planned(0)()
    if shown == "show":
        planned(2)()
        return
    with pytest.raises(ConfigError, match=r"^concepts\.probe\.data: with `report\.training_images: ") as found:
        planned(2)()
    assert "the source of networks.small.train.data under another name" in str(found.value)
    assert "\n" not in str(found.value)
