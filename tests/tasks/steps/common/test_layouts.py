"""Layers of every layout through the stages: planted values by hand, and question 1 on twins that differ in layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from configs.schema import Config
from flows.plan import make_plan
from flows.progress import planned_stages
from storage.stages import FinishedStage, open_finished
from tests.conftest import Run, tiny_config
from tests.plans import cells, galleries, interpreted, kept_layers, learned
from tests.tasks.layout_networks import Planted, tiny_swin, tiny_vit

Tree = dict[str, Any]  # Any: YAML
LAYOUTS = ["channels-first", "channels-last", "tokens"]


def planted(tree: Tree, path: Path, layout: str, channels: int = 3) -> Tree:
    """Return a config of one planted network with weights from a file, the same for every layout."""
    torch.manual_seed(0)
    torch.save(Planted(channels=channels).state_dict(), path / "weights.pt")
    arguments = {"layout": layout, "channels": channels}
    model = {"model": "tests.tasks.layout_networks:Planted", "arguments": arguments, "preprocessing": {"mode": "L"}}
    return {**tree, "networks": {"small": {**model, "weights": str(path / "weights.pt")}}}


def kept(tree: Tree, layers: list[str], **settings: Any) -> Tree:  # Any: YAML
    """Return the config with named layers instead of question 1."""
    rest = {key: value for key, value in tree.items() if key != "interpretation"}
    return {**rest, "activations": {"networks": ["small"], "layers": layers, "keep": ["pooled", "maps"], **settings}}


def layers_of(tree: Tree) -> FinishedStage:
    """Return the finished stage of named layers on the validation split."""
    run = Run.of(tree)
    planned_stages(run.plan, None)
    run.finish()
    return open_finished(run.job.store, kept_layers(run.plan)["small", 0, "val"])


def read(stage: FinishedStage, name: str) -> NDArray[np.float64]:
    """Return an array of a stage in double precision."""
    return stage.read(name).astype(np.float64)


def patch_means(stage: FinishedStage) -> NDArray[np.float64]:
    """Return the means of the four patches of a stage's digits, (n, 2, 2), from scikit-learn's own images."""
    pixels = np.rint(load_digits().images[stage.read("sample_id")] * 255 / 16) / 255
    means: NDArray[np.float64] = pixels.reshape(-1, 2, 4, 2, 4).mean((2, 4))
    return means


@pytest.mark.parametrize("channels", [2, 3, 4])  # with 2 maps, with 4 tokens are square
@pytest.mark.parametrize("layout", LAYOUTS)
def test_pooled_are_means_over_positions(tiny_tree: Tree, tmp_path: Path, layout: str, channels: int) -> None:
    stage = layers_of(kept(planted(tiny_tree, tmp_path, layout, channels), ["layer", "fc"]))
    means, factors = patch_means(stage), np.arange(1.0, channels + 1)
    np.testing.assert_allclose(read(stage, "pooled.layer"), means.mean((1, 2))[:, None] * factors, rtol=1e-5)
    maps = means[..., None] * factors
    shape = (len(maps), 4, channels) if layout == "tokens" else maps.shape
    np.testing.assert_allclose(read(stage, "maps.layer"), maps.reshape(shape), rtol=1e-5, atol=1e-7)
    assert stage.summary["layouts"] == {"layer": layout, "fc": "vectors"}
    assert read(stage, "maps.fc").shape == (len(maps), 10)  # vectors need no layout


def test_the_config_says_another_layout(tiny_tree: Tree, tmp_path: Path) -> None:
    tree = planted(tiny_tree, tmp_path, "channels-last")
    stage = layers_of(kept(tree, ["layer", "conv"], layout={"layer": "channels-first"}))
    means = patch_means(stage)
    rows = means.mean(2) * 2  # means over columns and channels 1, 2, 3
    np.testing.assert_allclose(read(stage, "pooled.layer"), rows, rtol=1e-5)
    np.testing.assert_allclose(read(stage, "pooled.conv"), means.mean((1, 2))[:, None] * [1, 2, 3], rtol=1e-5)


def test_an_unknown_layout_can_be_said(tiny_tree: Tree, tmp_path: Path) -> None:
    tree = planted(tiny_tree, tmp_path, "unknown")
    stage = layers_of(kept(tree, ["layer"], layout="channels-last"))
    expected = patch_means(stage).mean((1, 2))[:, None] * [1, 2, 3]
    np.testing.assert_allclose(read(stage, "pooled.layer"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("builder", "layer", "shape"),
    [("tiny_vit", "encoder.ln", (17, 24)), ("tiny_swin", "features.1", (8, 8, 8)), ("tiny_swin", "norm", (4, 4, 16))],
)
def test_transformers_layers_are_stored_by_channel(
    tiny_tree: Tree, tmp_path: Path, builder: str, layer: str, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    model = {"tiny_vit": tiny_vit, "tiny_swin": tiny_swin}[builder]().eval()
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    preprocessing = {"mode": "RGB", "convert": True, "resize": [16, 16]}
    network = {"model": f"tests.tasks.layout_networks:{builder}", "weights": str(tmp_path / "weights.pt")}
    tree = {**tiny_tree, "networks": {"small": {**network, "preprocessing": preprocessing}}}
    stage = layers_of(kept(tree, [layer, "conv_proj" if builder == "tiny_vit" else "permute"]))
    maps, pooled = read(stage, f"maps.{layer}"), read(stage, f"pooled.{layer}")
    assert maps.shape[1:] == shape
    np.testing.assert_allclose(pooled, maps.mean(tuple(range(1, maps.ndim - 1))), rtol=1e-5, atol=1e-6)
    if layer == "encoder.ln":  # what a layer norm puts out has mean 0 and variance 1 over its channels
        np.testing.assert_allclose(maps.mean(-1), 0, atol=1e-5)
        np.testing.assert_allclose(maps.var(-1), 1, rtol=1e-3)
    if layer == "norm":  # the network's own permutation of it, channels last again
        np.testing.assert_array_equal(read(stage, "maps.permute"), maps)
        np.testing.assert_array_equal(read(stage, "pooled.permute"), pooled)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Question 1 on three networks that differ in the layout of their last map alone."""
    found = {}
    for layout in LAYOUTS:
        folder = tmp_path_factory.mktemp(layout)
        tree = planted(tiny_config(str(folder / "store")), folder, layout)
        asked = {**tree["interpretation"], "interpreters": {"ice": {"components": 2}}, "layer": "layer", "gallery": 2}
        tree = {**tree, "interpretation": asked}
        run = Run.of(tree)
        planned_stages(run.plan, None)
        found[layout] = run.finish()
    return found


@pytest.mark.parametrize("layout", ["channels-last", "tokens"])
def test_question_1_does_not_depend_on_the_layout(twins: dict[str, Run], layout: str) -> None:
    one, other = twins["channels-first"], twins[layout]
    for mine, theirs in zip(one.plan.stages, other.plan.stages, strict=False):
        if mine.stage == theirs.stage and mine.stage in ("activations", "selection", "features", "evaluation"):
            left, right = open_finished(one.job.store, mine), open_finished(other.job.store, theirs)
            for name in left.layout.arrays:
                found = read(right, name)
                expected = read(left, name).reshape(found.shape)
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=f"{mine.title} {name}")
    finished = open_finished(other.job.store, learned(other.plan)["small", 0])
    assert finished.summary["layout"] == layout
    assert finished.summary["map"] == [2, 2, 3]
    means = patch_means(finished)
    np.testing.assert_allclose(read(finished, "pooled"), means.mean((1, 2))[:, None] * [1, 2, 3], rtol=1e-5)
    # All channels are multiples of one map, so one component of two rebuilds it, and with it every decision.
    measures = finished_measures(other)
    np.testing.assert_allclose(measures["agreement"], 1)
    np.testing.assert_allclose(measures["error_val"], 0, atol=1e-3)


def finished_measures(run: Run) -> dict[str, NDArray[np.float64]]:
    """Return the measures of a run's first evaluation by name."""
    stage = open_finished(run.job.store, cells(run.plan)[0].evaluation)
    return dict(zip(stage.summary["measures"], read(stage, "values").T, strict=True))


def test_heat_maps_do_not_depend_on_the_layout(twins: dict[str, Run]) -> None:
    heats = []
    for layout in LAYOUTS:
        run = twins[layout]
        heats.append(open_finished(run.job.store, next(iter(galleries(run.plan).values()))).read("heat").astype(int))
    assert np.abs(heats[0] - heats[1]).max() <= 1
    assert np.abs(heats[0] - heats[2]).max() <= 1
    assert heats[0].max() == 255


@pytest.mark.parametrize("layout", ["channels-last", "tokens"])
def test_cards_do_not_depend_on_the_layout(twins: dict[str, Run], layout: str) -> None:
    cards = []
    for run in (twins["channels-first"], twins[layout]):
        (answer,) = interpreted(run.plan)
        (reference,) = answer.references.values()
        stage = open_finished(run.job.store, answer.cards[reference.path])
        cards.append(
            {name: read(stage, name)[:, 0] for name in stage.layout.arrays if name not in ("label", "searched")}
        )
    one, other = cards
    for name in ("importance", "activity", "position", "value"):
        np.testing.assert_allclose(other[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(other["box"][other["position"] >= 0], one["box"][other["position"] >= 0])


def test_a_layout_that_is_not_said_is_no_part_of_a_key(tiny_tree: Tree, tmp_path: Path) -> None:
    tree = planted(tiny_tree, tmp_path, "channels-last")
    both = {**tree, **kept(tree, ["layer"]), "interpretation": {**tree["interpretation"], "layer": "layer"}}
    plan = make_plan(Config.model_validate(both))
    specs = [kept_layers(plan)["small", 0, "val"], learned(plan)["small", 0]]
    assert all("layout" not in spec.parameters for spec in specs)
    for section in ("activations", "interpretation"):
        both[section] = {**both[section], "layout": "channels-last"}
    said = make_plan(Config.model_validate(both))
    again = [kept_layers(said)["small", 0, "val"], learned(said)["small", 0]]
    assert all(spec.parameters["layout"] == "channels-last" for spec in again)
    assert all(old.key != new.key for old, new in zip(specs, again, strict=True))
