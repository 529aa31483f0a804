"""The accuracy of snapshots under attack: a linear network's exact worst case, bytes, keys, refusals."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from configs.concepts import Attack
from configs.load import ConfigError, load_config
from configs.schema import Config, Network, Npz, Preprocessing
from flows.plan import make_plan
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from tasks.engine.life import Job, complete
from tasks.steps.common.manifest import MANIFEST, manifest_spec
from tasks.steps.common.survey import PlanSurvey
from tasks.steps.concepts import attacked
from tasks.steps.concepts.attacked import ATTACKED, attack_text, attacked_spec, attacked_table
from tasks.steps.concepts.watched import UNKNOWN_STEP, Watched
from tests.tasks.engine.two_stages import job_at

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
Floats = NDArray[np.float64]
N, SIDE, ROWS = 70, 4, 32
MEAN, STD = 0.4, 0.3
EPSILON = 0.05


@pytest.fixture(autouse=True)
def _small_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacked, "ROWS", ROWS)


def linear() -> nn.Module:
    """Return a linear network of images (n, 1, 4, 4) with two classes."""
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2))


def labelled(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Write random images with the labels of a noisy rule, and return both."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, SIDE, SIDE), dtype=np.uint8)
    images[:20] = 255 * (images[:20] > 127)  # at the ends of the pixels' range, where an attack is cut off
    labels = (images[:, :2].mean((1, 2)) + rng.normal(0, 8, N) > images[:, 2:].mean((1, 2))).astype(np.int64)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return images, labels


def stage_of(folder: Path, **settings: Any) -> tuple[Job, StageSpec, StageSpec]:  # Any: of the attack
    """Return a job, the manifest, and the attack on a linear network with given weights."""
    labelled(folder)
    torch.manual_seed(0)
    model = linear()
    with torch.no_grad():  # the rule of the labels, so that most images are right
        weight = 0.3 * torch.tensor([1.0] * 8 + [-1.0] * 8)
        model.get_parameter("1.weight").copy_(torch.stack([-weight, weight]) + 0.05 * torch.randn(2, 16))
    torch.save(model.state_dict(), folder / "weights.pt")
    network = Network(
        model=f"{__name__}:linear",
        weights=str(folder / "weights.pt"),
        preprocessing=Preprocessing(mode="L", mean=(MEAN,), std=(STD,)),
    )
    manifest = manifest_spec("two", Npz(source="npz", paths={"test": str(folder / "images.npz")}), ["attacked"])
    watched = Watched("linear", "given weights", UNKNOWN_STEP, network)
    job = job_at(folder / "store")
    complete(job, MANIFEST, [manifest])
    asked = Attack(data="two", epsilon=EPSILON, step=EPSILON / 2, steps=5, restarts=1, **settings)
    return job, manifest, attacked_spec(watched, network, manifest, asked)


def worst_margins(folder: Path) -> tuple[Floats, Floats]:
    """Return the margins of the true class, as the images are and in the worst case, by a loop over pixels."""
    with np.load(folder / "images.npz") as archive:
        found = dict(archive)
    state = torch.load(folder / "weights.pt", weights_only=True)
    weight, bias = state["1.weight"].double().numpy(), state["1.bias"].double().numpy()
    clean, worst = np.zeros(N), np.zeros(N)
    for i, (image, label) in enumerate(zip(found["images"], found["labels"], strict=True)):
        direction = weight[label] - weight[1 - label]
        clean[i] = worst[i] = bias[label] - bias[1 - label]
        for pixel, along in zip(image.ravel() / 255, direction, strict=True):
            clean[i] += along * (pixel - MEAN) / STD
            moved = max(pixel - EPSILON, 0.0) if along > 0 else min(pixel + EPSILON, 1.0)
            worst[i] += along * (moved - MEAN) / STD
    return clean, worst


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_a_linear_networks_answers_are_those_of_its_exact_worst_case(tmp_path: Path, loss: str) -> None:
    job, _, spec = stage_of(tmp_path, loss=loss)
    (finished,) = complete(job, ATTACKED, [spec])
    order = np.argsort(finished.read("sample_id"))
    clean, worst = worst_margins(tmp_path)
    assert np.abs(np.concatenate([clean, worst])).min() > 1e-4  # no image lies at the border
    assert (finished.read("right")[order] == (clean > 0)).all()
    assert (finished.read("robust")[order] == (worst > 0)).all()
    assert 0 < (worst > 0).sum() < (clean > 0).sum() < N
    assert finished.summary["clean"] == (clean > 0).mean()
    assert finished.summary["robust"] == (worst > 0).mean()
    assert finished.layout.partitions == 3


def test_some_images_are_evenly_spread(tmp_path: Path) -> None:
    job, _, spec = stage_of(tmp_path, count=8)
    (finished,) = complete(job, ATTACKED, [spec])
    assert finished.summary["images"] == 8
    assert len(finished.read("robust")) == 8


def test_the_first_images_are_those_of_smallest_id(tmp_path: Path) -> None:
    """Positions are class by class, so the first images of the file are not the first positions."""
    job, _, spec = stage_of(tmp_path, count=9, images="first")
    (finished,) = complete(job, ATTACKED, [spec])
    ids = finished.read("sample_id")
    clean, worst = worst_margins(tmp_path)
    assert sorted(ids.tolist()) == list(range(9))
    assert (finished.read("robust") == (worst[ids] > 0)).all()
    assert finished.summary == {"images": 9, "clean": (clean[:9] > 0).mean(), "robust": (worst[:9] > 0).mean()}


def test_more_first_images_than_there_are_take_all(tmp_path: Path) -> None:
    job, _, spec = stage_of(tmp_path, count=N + 1, images="first")
    (finished,) = complete(job, ATTACKED, [spec])
    assert finished.summary["images"] == N


def test_another_store_gives_the_same_bytes(tmp_path: Path) -> None:
    """Random starts follow (seed, partition), so they do not depend on what was made before."""
    job, _, spec = stage_of(tmp_path)
    complete(job, ATTACKED, [spec])
    whole = content(open_finished(job.store, spec))
    (tmp_path / "other").mkdir()
    other, _, same = stage_of(tmp_path / "other")
    assert same.key == spec.key
    complete(other, ATTACKED, [same])
    assert content(open_finished(other.store, same)) == whole


def content(finished: FinishedStage) -> dict[str, bytes]:
    """Return the bytes of each array."""
    return {name: finished.read(name).tobytes() for name in finished.layout.arrays}


def test_the_key_knows_each_setting(tmp_path: Path) -> None:
    _, _, spec = stage_of(tmp_path)
    assert spec.parameters["attack"].keys() == {"epsilon", "step", "steps", "restarts", "count", "seed"}
    keys = {spec.key}
    for settings in ({"count": 3}, {"seed": 1}, {"images": "first"}, {"loss": "margin"}):
        keys.add(stage_of(tmp_path, **settings)[2].key)
    assert len(keys) == 5
    assert stage_of(tmp_path, images="spread")[2].key == spec.key == stage_of(tmp_path, networks=("linear",))[2].key


def asking(tree: Tree, **settings: object) -> Tree:
    """Return the probed config with an attack on the digits."""
    changed = copy.deepcopy(tree)
    changed["concepts"]["attack"] = {"data": "digits", "split": "val", "steps": 2, "count": 10, **settings}
    return changed


def test_a_run_attacks_each_snapshot_on_its_own_preprocessing(probed_tree: Tree) -> None:
    (answer,) = make_plan(Config.model_validate(asking(probed_tree))).answers["concepts"]
    assert len(answer.attacked) == len(answer.snapshots) == 2
    for spec, watched in zip(answer.attacked, answer.snapshots, strict=True):
        assert spec.inputs["snapshot"] == watched.stage
        assert "resize" not in spec.parameters["network"]["preprocessing"]  # digits stay as they are
    assert all(spec in answer.finals for spec in answer.attacked)


def test_only_the_named_networks_are_attacked(probed_tree: Tree) -> None:
    """Others may have other classes."""
    tree = asking(probed_tree, networks=["small"])
    tree["networks"]["other"] = copy.deepcopy(tree["networks"]["small"])
    tree["concepts"]["networks"] = ["other", "small"]
    other, small = make_plan(Config.model_validate(tree)).answers["concepts"]
    assert (other.network, other.attacked) == ("other", ())
    assert len(small.attacked) == 2
    assert attack_text([other, small]) == attack_text([small])


def test_the_table_has_a_row_for_each_snapshot(
    probed_run: "Run", probed_tree: Tree, tmp_path: Path, new_run: Callable[[Tree], "Run"]
) -> None:
    """The weights are those of the finished run; its training has 16 steps, with snapshots before and after."""
    run = new_run(asking({**probed_run.at(str(tmp_path / "copy")).tree}))
    (answer,) = run.plan.answers["concepts"]
    complete(run.job, ATTACKED, list(answer.attacked))
    table = attacked_table(run.job.store, [answer])
    assert table[["network", "seed", "snapshot", "images"]].values.tolist() == [
        ["small", 0, 0, 10],
        ["small", 0, 1, 10],
    ]
    assert (table["robust"] <= table["clean"]).all()
    assert attack_text([answer]) == "2 attacks of 2 steps of 2/255 within 8/255 on images of digits, val"
    assert attack_text([replace(answer, attacked=())]) == ""
    other = new_run(asking(probed_tree, loss="margin", images="first")).plan.answers["concepts"]
    assert attack_text(other) == (
        "2 attacks of 2 steps of 2/255, which raise the margin, within 8/255 on the first images of digits, val"
    )


def test_labels_beyond_the_outputs_are_refused_by_the_plan(tmp_path: Path) -> None:
    job, _, spec = stage_of(tmp_path)
    assert ATTACKED.size(spec, PlanSurvey(job.store)).peak > 0
    with np.load(tmp_path / "images.npz") as archive:
        found = dict(archive)
    np.savez(tmp_path / "more.npz", images=found["images"], labels=found["labels"] + 1)
    more = manifest_spec("more", Npz(source="npz", paths={"test": str(tmp_path / "more.npz")}), ["attacked"])
    expected = (
        r"expected labels 0 to 1, as the network has 2 outputs, found 2 \(1 of 2 samples\); map labels by `classes` or "
        r"change the network, or name the networks to attack in `concepts.attack.networks`"
    )
    with pytest.raises(ValueError, match=expected):
        ATTACKED.size(replace(spec, inputs={**spec.inputs, "data": more}), PlanSurvey(job.store))


def test_bad_settings_are_named(probed_tree: Tree, tmp_path: Path) -> None:
    for settings, text in (
        ({"epsilon": 0}, "concepts.attack.epsilon"),
        ({"epsilon": 1.5}, "concepts.attack.epsilon"),
        ({"steps": 0}, "concepts.attack.steps"),
        ({"loss": "hinge"}, "concepts.attack.loss"),
        ({"images": "last"}, "concepts.attack.images"),
        ({"networks": []}, "concepts.attack.networks"),
        ({"networks": ["big"]}, "attack.networks: expected names from `networks`, found 'big'; add it to `networks`"),
        ({"networks": ["small", "small"]}, "attack.networks: expected different entries, found the same one twice"),
        ({"data": "digit"}, "concepts.attack.data: expected one of digits, probe, found 'digit'"),
    ):
        file = tmp_path / "bad.yaml"
        file.write_text(yaml.safe_dump(asking(probed_tree, **settings)))
        with pytest.raises(ConfigError) as error:
            make_plan(load_config(str(file)))
        assert text in str(error.value)
        assert "\n" not in str(error.value)
