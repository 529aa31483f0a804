"""How networks are trained: what settings say, what the config names, and which network each stands next to."""

import copy
from typing import Any

import pytest

from configs.schema import Config
from tasks.steps.concepts.paradigms import paradigms_of

Tree = dict[str, Any]  # Any: YAML


def several(tree: Tree, networks: dict[str, Tree], **settings: object) -> Config:
    """Return a config with several networks, each with other settings of the training."""
    changed = copy.deepcopy(tree)
    plain = changed["networks"]["small"]
    changed["networks"] = {name: {**plain, "train": {**plain["train"], **more}} for name, more in networks.items()}
    changed["concepts"] |= {"networks": list(networks), **settings}
    return Config.model_validate(changed)


def test_settings_say_the_paradigm_and_the_first_standard_one_is_the_reference(probed_tree: Tree) -> None:
    networks: dict[str, Tree] = {
        "attacked": {"adversary": {}},
        "plain": {},
        "pruned": {"lottery": {"stages": 2}, "snapshots": None},
        "spread": {"diversity": {"layer": "8", "words": ["red"]}},
        "tuned": {"start": {"network": "plain"}},
        "fast": {"optimizer": {"kind": "sgd", "lr": 0.5}},
    }
    found = paradigms_of(several(probed_tree, networks, paradigms={"fast": "poor"}))
    assert found == {
        "attacked": ("adversarial", "plain"),
        "pruned": ("lottery", ""),
        "spread": ("diversity", "plain"),
        "tuned": ("fine-tuning", ""),
        "fast": ("poor", "plain"),
    }


def test_a_reference_of_the_same_data_comes_first(probed_tree: Tree) -> None:
    networks: dict[str, Tree] = {
        "elsewhere": {"data": "probe", "split": "all", "evaluate": "all"},
        "plain": {},
        "attacked": {"adversary": {}},
    }
    found = paradigms_of(several(probed_tree, networks))
    assert found["attacked"] == ("adversarial", "plain")


def test_an_unknown_network_is_named(probed_tree: Tree) -> None:
    with pytest.raises(ValueError, match=r"concepts\.paradigms: expected one of small, found 'smal'"):
        several(probed_tree, {"small": {}}, paradigms={"smal": "poor"})


def test_the_way_of_a_network_that_is_not_asked_may_stay(probed_tree: Tree) -> None:
    networks: dict[str, Tree] = {"plain": {}, "fast": {}, "pruned": {"lottery": {"stages": 2}, "snapshots": None}}
    config = several(probed_tree, networks, paradigms={"fast": "poor"})
    assert config.concepts is not None
    asked = config.concepts.model_copy(update={"networks": ("plain", "pruned")})
    assert paradigms_of(Config.model_validate({**config.model_dump(), "concepts": asked.model_dump()})) == {
        "pruned": ("lottery", "")
    }
