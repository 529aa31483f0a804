"""Plans: what is part of a stage's key, and what is not."""

import copy
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from configs.load import ConfigError
from configs.schema import Config
from flows.plan import Plan, make_plan
from flows.progress import existing_store, planned_stages, stage_states
from tests.plans import cells, galleries, held_out, interpreted, learned, references

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def changed(tree: Tree, key: str, value: object) -> Plan:
    """Return the plan of the config with `key.path` set."""
    tree = copy.deepcopy(tree)
    *parents, last = key.split(".")
    below = tree
    for parent in parents:
        below = below.setdefault(parent, {})
    below[last] = value
    return make_plan(Config.model_validate(tree))


def keys(plan: Plan) -> list[str]:
    """Return the paths of all stages in order."""
    return [spec.path for spec in plan.stages]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("store", "/somewhere/else"),
        ("store", "s3://bucket/prefix"),
        ("name", "another"),
        ("cluster", {"kind": "local", "workers": 7, "memory_limit": "9GB", "device": "cpu"}),
        ("cluster", {"kind": "address", "address": "tcp://127.0.0.1:1"}),
        ("report.training_images", "none"),
        ("data.digits.split", {"train": 0.8, "val": 0.2}),
        ("interpretation.layer", "last-map"),
        ("interpretation.dtype", "float32"),
        ("interpretation.data", "digits"),
        ("networks.small.preprocessing", {"mode": "L", "convert": False}),
        ("interpretation.coreset_from", "small"),
    ],
)
def test_places_defaults_and_looks_are_no_part_of_a_key(tiny_tree: Tree, key: str, value: object) -> None:
    assert keys(changed(tiny_tree, key, value)) == keys(make_plan(Config.model_validate(tiny_tree)))


@pytest.mark.parametrize(
    ("key", "value", "kept"),
    [
        ("data.digits.per_class", 5, set()),
        ("data.digits.split_seed", 1, set()),
        ("networks.small.train.epochs", 3, {"manifest"}),
        ("networks.small.preprocessing", {"mode": "L", "mean": [0.5]}, {"manifest"}),
        ("seeds", [1], {"manifest"}),
        ("interpretation.layer", "3", {"manifest", "training"}),
        ("interpretation.dtype", "float16", {"manifest", "training"}),
        (
            "interpretation.interpreters",
            {"ice": {"components": 4}},
            {"manifest", "training", "activations", "selection"},
        ),
    ],
)
def test_what_changes_results_changes_the_keys_of_what_follows(
    tiny_tree: Tree, key: str, value: object, kept: set[str]
) -> None:
    before = set(keys(make_plan(Config.model_validate(tiny_tree))))
    after = keys(changed(tiny_tree, key, value))
    assert {path.split("/")[0] for path in after if path in before} == kept


def test_keys_do_not_depend_on_names_of_data_and_networks(tiny_tree: Tree) -> None:
    import json

    text = json.dumps(tiny_tree).replace('"digits"', '"numbers"').replace('"small"', '"net"')
    renamed = make_plan(Config.model_validate(json.loads(text)))
    assert keys(renamed) == keys(make_plan(Config.model_validate(tiny_tree)))


def test_another_network_and_another_selector_reuse_everything(tiny_tree: Tree) -> None:
    before = keys(make_plan(Config.model_validate(tiny_tree)))
    wider = copy.deepcopy(tiny_tree["networks"]["small"]) | {"arguments": {"width": 5}}
    assert set(before) < set(keys(changed(tiny_tree, "networks.wider", wider)))
    tree = copy.deepcopy(tiny_tree)
    tree["networks"]["wider"], tree["interpretation"]["networks"] = wider, ["small", "wider"]
    assert set(before) < set(keys(make_plan(Config.model_validate(tree))))
    more = {"random": {"repeats": 3}, "moderate": {}}
    assert set(before) < set(keys(changed(tiny_tree, "interpretation.selectors", more)))


def test_coresets_from_another_network_are_selected_once_next_to_the_own(tiny_tree: Tree) -> None:
    tree = copy.deepcopy(tiny_tree)
    tree["networks"]["wider"] = copy.deepcopy(tree["networks"]["small"]) | {"arguments": {"width": 5}}
    tree["interpretation"]["networks"] = ["wider"]
    own = make_plan(Config.model_validate(tree))
    tree["interpretation"]["coreset_from"] = "small"
    plan = make_plan(Config.model_validate(tree))
    pictures = {spec.path for spec in own.stages if spec.stage == "card-pictures"}  # of the cards of all coresets
    assert set(keys(own)) - pictures < set(keys(plan))  # own coresets stay, with all that follows from them
    small = learned(make_plan(Config.model_validate(tiny_tree)))["small", 0].path
    senders = {cell.selector: cell.selection.inputs["activations"].path for cell in cells(plan) if cell.budget < 1}
    wider = learned(plan)["wider", 0].path
    assert senders == {"random": wider, "moderate": wider, "moderate from small": small}  # random is the same for all
    assert {cell.coreset_from for cell in cells(plan) if cell.budget == 1.0} == {"wider"}
    fitted = {spec.inputs["activations"].path for spec in plan.stages if spec.stage == "features"}
    assert fitted == {learned(plan)["wider", 0].path}
    assert set(held_out(plan)) == {("wider", 0)}


def test_networks_exchange_coresets_and_none_with_itself(tiny_tree: Tree) -> None:
    tree = copy.deepcopy(tiny_tree)
    tree["networks"]["wider"] = copy.deepcopy(tree["networks"]["small"]) | {"arguments": {"width": 5}}
    tree["interpretation"] |= {"networks": ["small", "wider"], "coreset_from": ["small", "wider"]}
    plan = make_plan(Config.model_validate(tree))
    pairs = {(cell.network, cell.coreset_from) for cell in cells(plan)}
    assert pairs == {("small", "small"), ("small", "wider"), ("wider", "wider"), ("wider", "small")}
    references = {cell.evaluation.inputs["reference"].path for cell in cells(plan) if cell.network == "small"}
    assert len(references) == 1  # own and transferred coresets are compared with the same features


def test_random_alone_is_not_transferred(tiny_tree: Tree) -> None:
    tree = copy.deepcopy(tiny_tree)
    tree["networks"]["wider"] = copy.deepcopy(tree["networks"]["small"]) | {"arguments": {"width": 5}}
    tree["interpretation"] |= {"networks": ["small", "wider"], "selectors": {"random": {"repeats": 2}}}
    own = make_plan(Config.model_validate(tree))
    tree["interpretation"]["coreset_from"] = ["small", "wider"]
    assert keys(make_plan(Config.model_validate(tree))) == keys(own)


@pytest.mark.parametrize(
    ("learn", "evaluate", "seen"),
    [("train", "val", ""), ("train", "train", "features"), ("val", "train", "network"), ("val", "val", "features")],
)
def test_images_that_are_not_held_out_are_known(tiny_tree: Tree, learn: str, evaluate: str, seen: str) -> None:
    tree = copy.deepcopy(tiny_tree)
    tree["interpretation"] |= {"learn": learn, "evaluate": evaluate}
    assert [answer.seen for answer in interpreted(make_plan(Config.model_validate(tree)))] == [seen]
    tree["data"]["others"] = {"source": "sklearn-digits", "per_class": 3}
    tree["interpretation"] |= {"data": "others"}  # the network is trained on other data
    assert [answer.seen for answer in interpreted(make_plan(Config.model_validate(tree)))] == [
        seen.replace("network", "")
    ]


def test_stages_come_after_what_they_read(tiny_tree: Tree) -> None:
    plan = changed(tiny_tree, "seeds", [0, 1])
    order = {spec.path: number for number, spec in enumerate(plan.stages)}
    for spec in plan.stages:
        assert all(order[part.path] < order[spec.path] for part in spec.inputs.values()), spec.title


def test_a_plan_is_the_same_every_time(tiny_tree: Tree) -> None:
    tree = copy.deepcopy(tiny_tree)
    tree["interpretation"]["budgets"] = random.Random(0).sample(tree["interpretation"]["budgets"], 2)
    assert keys(make_plan(Config.model_validate(tree))) == keys(make_plan(Config.model_validate(tiny_tree)))


def test_full_data_of_every_selector_are_one_cell_each_and_one_stage(tiny_tree: Tree) -> None:
    plan = make_plan(Config.model_validate(tiny_tree))
    whole = [cell for cell in cells(plan) if cell.budget == 1.0]
    assert [(cell.selector, cell.repeat) for cell in whole] == [("random", 0), ("moderate", 0)]
    assert len({cell.features.path for cell in whole}) == 1
    assert {cell.features.path for cell in whole} == {references(plan)["small", 0, "ice"].path}


def test_galleries_show_the_least_budget(tiny_tree: Tree) -> None:
    plan = make_plan(Config.model_validate(tiny_tree))
    (gallery,) = galleries(plan).values()
    assert gallery.parameters["titles"] == ["full data", "random 50 %", "moderate 50 %"]
    assert galleries(changed(tiny_tree, "interpretation.gallery", 0)) == {}


def test_a_config_without_questions_trains_only(tiny_tree: Tree) -> None:
    del tiny_tree["interpretation"]
    plan = make_plan(Config.model_validate(tiny_tree))
    assert [spec.stage for spec in plan.stages] == ["manifest", "training"]


def test_sizes_and_states(finished_run: "Run", new_run: Callable[[Tree], "Run"], tiny_tree: Tree) -> None:
    there = planned_stages(finished_run.plan, existing_store(finished_run.config))
    missing = planned_stages(new_run(tiny_tree).plan, None)
    assert {stage.state for stage in there} == {"complete"}
    assert {stage.state for stage in missing} == {"missing"}
    assert [(s.key, s.written, s.peak) for s in there] == [(s.key, s.written, s.peak) for s in missing]
    assert all(stage.written > 0 and stage.peak > 0 for stage in there)
    assert stage_states(None, ["x/y"]) == {"x/y": "missing"}


def test_a_network_that_cannot_be_trained_on_the_data_is_refused_by_the_plan(tiny_tree: Tree) -> None:
    del tiny_tree["interpretation"]
    tiny_tree["networks"]["small"]["arguments"] = {"classes": 5}
    with pytest.raises(ConfigError, match=r"networks\.small: data digits: expected labels 0 to \d+, .* found 5"):
        planned_stages(make_plan(Config.model_validate(tiny_tree)), None)
