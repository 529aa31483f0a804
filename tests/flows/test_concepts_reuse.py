"""What another config of question 3 takes from a store: detectors one after the other, word lists, order of layers."""

import copy
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from configs.schema import Config
from flows.plan import make_plan
from storage.stages import find_finished, open_finished
from tasks.steps.concepts.results import concept_results
from tests.flows.command import Tree
from tests.plans import complete_plan

if TYPE_CHECKING:
    from tests.conftest import Run

CLIP = {"soft_wpmi": {"top_k": 10}}
DISSECTION = {"network-dissection": {"quantile": 0.05}}


def asking(tree: Tree, **settings: Any) -> Tree:  # Any: of the section
    """Return a config with other settings of the question."""
    return {**copy.deepcopy(tree), "concepts": {**copy.deepcopy(tree["concepts"]), **settings}}


@pytest.mark.parametrize("maps", ["stored", "recomputed"])
def test_network_dissection_after_clip_makes_only_its_own_stages(
    probed_tree: Tree, probed_run: "Run", new_run: Callable[[Tree], "Run"], maps: str
) -> None:
    run = new_run(asking(probed_tree, detectors=CLIP)).finish()
    for spec in run.plan.stages:
        if spec.stage == "responses":
            assert not any(name.startswith("maps.") for name in open_finished(run.job.store, spec).layout.arrays)
    both = {**CLIP, "network-dissection": {"quantile": 0.05, "maps": maps}}
    plan = make_plan(Config.model_validate(asking(probed_tree, detectors=both)))
    new = [spec for spec in plan.stages if find_finished(run.job.store, spec.path) is None]
    own = {"dissection-thresholds": 4, "network-dissection": 4, "neurons": 4, "planted": 1, "plane": 1}
    assert dict(Counter(spec.stage for spec in new)) == own
    complete_plan(plan, run.job)
    kept = {spec.path for spec in probed_run.plan.stages}
    for spec in new:
        if spec.stage in ("dissection-thresholds", "network-dissection"):
            assert spec.path in kept
            here, there = (open_finished(store, spec).note for store in (run.job.store, probed_run.job.store))
            assert (here["arrays"], here["files"]) == (there["arrays"], there["files"]), spec.title


def test_clip_after_network_dissection_makes_no_responses(probed_tree: Tree) -> None:
    alone, both = (
        {spec.path for spec in make_plan(Config.model_validate(asking(probed_tree, detectors=asked))).stages}
        for asked in (DISSECTION, CLIP | DISSECTION)
    )
    assert {path.split("/")[0] for path in both - alone} == {
        *("image-features", "concept-side", "clip-dissect", "neurons", "planted", "plane", "exemplars")
    }


@pytest.mark.parametrize("count", [2, 3])
def test_few_drawn_images_can_be_probed(probed_tree: Tree, new_run: Callable[[Tree], "Run"], count: int) -> None:
    probed_tree["data"]["probe"]["count"] = count
    run = new_run(asking(probed_tree, detectors=DISSECTION, shown=1)).finish()
    found = concept_results(run.job.store, run.plan.answers["concepts"], "show")
    assert found.facts.n_images == count
    assert len(found.monitor) == 2 * 2  # snapshots, layers


def test_labels_of_stages_name_the_layer_once(probed_run: "Run") -> None:
    labels: dict[str, set[str]] = {}
    for spec in probed_run.plan.stages:
        labels.setdefault(spec.stage, set()).add(spec.label)
    layers = {f"small step {step} {layer}" for step in (0, 16) for layer in "28"}
    assert labels["responses"] == labels["dissection-thresholds"] == layers
    assert labels["clip-dissect"] == {f"{layer} soft_wpmi" for layer in layers}
    assert labels["network-dissection"] == {f"{layer} network-dissection" for layer in layers}
    assert labels["neurons"] == labels["clip-dissect"] | labels["network-dissection"]
    assert labels["exemplars"] == {"small step 16"}


def test_word_lists_of_one_file_name_are_two_views_in_one_plane(probed_tree: Tree, tmp_path: Path) -> None:
    paths = [str(tmp_path / folder / "few.txt") for folder in "ab"]
    for path, words in zip(paths, ("red\nblue\n", "striped\nred\n"), strict=True):
        Path(path).parent.mkdir()
        Path(path).write_text(words)
    config = Config.model_validate(asking(probed_tree, words=["labels", *paths]))
    (answer,) = make_plan(config).answers["concepts"]
    names = [view.name for view in answer.views]
    assert names == ["soft_wpmi", *(f"soft_wpmi ({path})" for path in paths), "network-dissection"]
    planned = [spec.path for role, spec in answer.plane.inputs.items() if role.startswith("neurons")]
    assert planned == [seen.neurons.path for seen in answer.seen]
    assert len(planned) == 2 * 2 * 4  # snapshots, layers, views


def test_layers_in_results_are_in_the_order_of_the_network(probed_run: "Run", tmp_path: Path) -> None:
    run = probed_run.at(str(tmp_path / "store"))
    plan = make_plan(Config.model_validate(asking(run.tree, layers=["8", "2"], shown=0)))
    complete_plan(plan, run.job)  # the plane alone
    monitor = concept_results(run.job.store, plan.answers["concepts"], "show").monitor
    assert monitor["layer"].tolist() == ["2", "2", "8", "8"] * 2
    assert monitor["detector"].tolist() == ["soft_wpmi", "network-dissection"] * 4
    assert monitor["snapshot"].tolist() == [0] * 4 + [1] * 4
