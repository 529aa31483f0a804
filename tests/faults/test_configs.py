"""The configs of the campaign of kills: every kind of stage, archive and question is in one of them."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.kills.configs import CONFIGS
from benchmarks.kills.whole import PARTS
from configs.schema import Config
from flows.plan import make_plan
from storage.packs import PACKED
from storage.stores import open_store
from tasks.engine.life import complete, open_job
from tasks.recording import ARCHIVES
from tasks.steps.common.courses import n_segments
from tasks.steps.interpretation.methods import METHODS
from tasks.steps.questions import QUESTIONS, STEPS
from tests.conftest import SilentObserver

Tree = dict[str, Any]  # Any: YAML


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tree]:
    """All configs by name, with the files that they read."""
    folder = tmp_path_factory.mktemp("configs")
    return {name: config(folder) for name, config in CONFIGS.items()}


def test_every_kind_of_stage_is_in_a_config(trees: dict[str, Tree]) -> None:
    plans = [make_plan(Config.model_validate(tree)) for tree in trees.values()]
    assert {spec.stage for plan in plans for spec in plan.stages} == {*STEPS}


def test_all_questions_are_asked_with_each_kind_of_archive(trees: dict[str, Tree]) -> None:
    asked, interpreters = {*QUESTIONS} - {"activations"}, set[str]()
    for kind in ARCHIVES:
        tree = trees[kind]
        assert tree["networks"]["small"]["train"]["record"] == {"kind": kind}
        assert tree["networks"]["small"]["train"]["snapshots"]  # question 3 monitors the training
        assert asked <= tree.keys()
        assert {"index", "aggregate"} == tree["tracing"]["derive"].keys()
        interpreters |= tree["interpretation"]["interpreters"].keys()
    assert interpreters == {*METHODS}


def test_configs_have_names_of_their_own_and_parts_name_configs(trees: dict[str, Tree]) -> None:
    assert {name: tree["name"] for name, tree in trees.items()} == {name: name for name in CONFIGS}
    for given in PARTS.values():
        named = [*given[given.index("--configs") + 1 :], "--"] if "--configs" in given else ["--"]
        end = next(at for at, word in enumerate(named) if word.startswith("--"))
        assert {*named[:end]} <= {*CONFIGS}


def test_a_config_has_stages_whose_partition_records_are_packed(trees: dict[str, Tree], tmp_path: Path) -> None:
    """Those of the campaign's aims; the segments of their archive are those of its training."""
    config = Config.model_validate(trees["packed"] | {"store": str(tmp_path / "lore")})
    plan = make_plan(config)
    specs = {spec.stage: spec for spec in plan.stages}
    with open_job(config, open_store(config.store, create=True), SilentObserver()) as job:
        (manifest,) = complete(job, STEPS["manifest"], [specs["manifest"]])
    assert n_segments(specs["training"], manifest.summary) >= PACKED
    assert {"contributions", "index"} <= specs.keys()
