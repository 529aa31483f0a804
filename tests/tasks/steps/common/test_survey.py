"""What a plan looks at before anything runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from configs.schema import ImageFolder, Network, Preprocessing, SklearnDigits
from storage.specs import StageSpec
from tasks.engine.survey import DataSurvey
from tasks.io.files import File, list_files
from tasks.steps.common.activations import activations_spec, map_shapes
from tasks.steps.common.manifest import manifest_spec
from tasks.steps.common.shapes import Shapes
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.common.training import training_spec

if TYPE_CHECKING:
    from tests.conftest import Run

DIGITS = SklearnDigits(source="sklearn-digits", per_class=2)


def digits() -> tuple[StageSpec, DataSurvey]:
    """Return the spec of two digits per class and what is found in them."""
    spec = manifest_spec("digits", DIGITS)
    return spec, PlanSurvey(None).data(spec)


def small(**arguments: int) -> Network:
    """Return the small CNN on one-channel images, its weights never read."""
    preprocessing = Preprocessing(mode="L")
    train = {"data": "digits", "epochs": 1, "optimizer": {"lr": 0.1}}
    return Network.model_validate(
        {"model": "small-cnn", "arguments": arguments, "train": train, "preprocessing": preprocessing}
    )


def shapes_of(network: Network, layer: str) -> Shapes:
    """Return the sizes that a plan finds for a network."""
    manifest, _ = digits()
    training = training_spec("net", network, manifest, 0)
    spec = activations_spec("net", network, manifest, training, layer=layer, split="train", dtype="float32")
    return map_shapes(spec, PlanSurvey(None))


def test_a_listing_and_the_stored_manifest_say_the_same(finished_run: "Run") -> None:
    spec = finished_run.plan.shared.manifests["digits"]
    assert PlanSurvey(None).data(spec) == PlanSurvey(finished_run.job.store).data(spec)


def test_a_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        (tmp_path / split / "cat" / "a.png").touch()
    paths = {split: str(tmp_path / split) for split in ("train", "val")}
    spec, listed = manifest_spec("cats", ImageFolder(source="image-folder", paths=paths)), []

    def noting(url: str) -> list[File]:
        listed.append(url)
        return list_files(url)

    monkeypatch.setattr("tasks.io.folder.list_files", noting)
    found = PlanSurvey(None).data(spec)
    assert found.summary["class_names"] == {"0": "cat"}
    assert sorted(listed) == sorted(paths.values())


def test_counts_by_split() -> None:
    _, found = digits()
    assert found.summary["splits"]["train"] == {"labels": list(range(10)), "counts": [2] * 10}


def test_sizes_of_a_network() -> None:
    shapes = shapes_of(small(width=3), "last-map")
    assert (shapes.inputs, shapes.maps, shapes.logits) == ((1, 8, 8), (6, 4, 4), 10)
    assert shapes_of(small(width=3), "0").maps == (3, 8, 8)


@pytest.mark.parametrize(
    ("arguments", "layer", "expected"),
    [
        ({"classes": 5}, "last-map", "label"),
        ({"channels": 3}, "last-map", "networks.net: "),
        ({"widht": 3}, "last-map", "widht"),
        ({}, "nowhere", "nowhere"),
        (
            {},
            "11",
            "layer '11': expected maps (n, d, h, w), (n, h, w, d) or tokens (n, l, d) for 1 images, found (1, 10)",
        ),
    ],
)
def test_a_network_that_does_not_fit_is_named_in_one_line(arguments: dict[str, int], layer: str, expected: str) -> None:
    with pytest.raises(ValueError, match=r"^networks\.net: ") as caught:
        shapes_of(small(**arguments), layer)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_data_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.pets: .*none"):
        manifest_spec("pets", ImageFolder(source="image-folder", paths={"train": str(tmp_path / "none")}))
