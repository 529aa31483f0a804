"""A store that an earlier version made is reused: kinds, VERSIONs and keys of its stages are still the same.

`old_store/store.zip` is a run of every kind of stage. It was made before the stages were rebuilt as objects. A kind in
`RISEN` has a higher VERSION since: its stages, and those that read them, have new keys and are made again. A kind in
`PLANNED` came later and reads old stages. A new store is made with `layerlore run tests/flows/old_store/config.yaml`
and packed without records, claims and reports.
"""

import zipfile
from pathlib import Path

import pytest

from configs.load import load_config
from flows.plan import Plan, make_plan
from flows.progress import existing_store, finished_paths
from storage.specs import StageSpec
from storage.stores import Store
from storage.verify import verify_stage
from tasks.steps.questions import OF_JOINS, QUESTIONS, STEPS

FOLDER = Path(__file__).with_name("old_store")
# Small matrices are fitted by scikit-learn; replays are split by example; gradients are summed in another order.
RISEN = {"features", "contributions", "decomposed-training", "strongest", "histogram"}
PLANNED = {  # later kinds that the old config plans too
    *("cards", "card-pictures", "feature-images", "feature-pictures", "comparison"),
}
NEWER = {  # kinds that came later
    *("topics", "topic-scores", "unit-responses", "unit-gram", "units", "unit-evaluation", "unit-pictures"),
    *(
        "unit-cards",
        "pruning",
        "ticket",
        "counterfactual",
        "teachers",
        "suspects",
        "tracin",
        "linked-updates",
        "aggregate",
        "index-basis",
        "index",
        *PLANNED,
    ),
}
MADE_AGAIN = {  # the kinds of RISEN, and those that read them
    *("features", "evaluation", "gallery", "contributions", "influence", "randomisation", "datamodelling"),
    *("strongest", "histogram", "coverage", "head-scores", "ablation", "decomposition-gallery", "head-cost"),
    *("decomposed-training",),
}
PARTLY = {"head-scores"}  # kinds of MADE_AGAIN of which some stages do not read one of RISEN: those of full heads


@pytest.fixture
def old(tmp_path: Path) -> tuple[Plan, Store]:
    """Return the plan of the old run and its store."""
    with zipfile.ZipFile(FOLDER / "store.zip") as archive:
        archive.extractall(tmp_path)
    config = load_config(str(FOLDER / "config.yaml"), [f"store={tmp_path / 'store'}"])
    store = existing_store(config)
    assert store is not None
    return make_plan(config), store


def test_the_old_store_has_every_kind_of_stage(old: tuple[Plan, Store]) -> None:
    later = NEWER | {step.kind for step in (*QUESTIONS["concepts"].steps, *OF_JOINS)}
    assert {spec.stage for spec in old[0].stages} == set(STEPS) - later | PLANNED


def rests_on_risen(spec: StageSpec) -> bool:
    """Say whether a stage is of a kind in RISEN or PLANNED, or reads such a stage at any distance."""
    return spec.stage in RISEN | PLANNED or any(rests_on_risen(one) for one in spec.inputs.values())


def test_only_stages_that_rest_on_a_risen_version_are_made_again(old: tuple[Plan, Store]) -> None:
    plan, store = old
    done = finished_paths(plan, store)
    again = [spec for spec in plan.stages if spec.path not in done]
    assert [spec.title for spec in again] == [spec.title for spec in plan.stages if rests_on_risen(spec)]
    assert {spec.stage for spec in again} == MADE_AGAIN | PLANNED
    kinds = set(STEPS) - MADE_AGAIN - PLANNED
    whole = (path for path in done if path.split("/")[0] not in PARTLY)
    assert sorted(whole) == sorted(f"{kind}/{key}" for kind in kinds for key in store.names(kind))


def test_the_old_stages_of_a_risen_kind_are_as_many_as_the_new(old: tuple[Plan, Store]) -> None:
    plan, store = old
    for kind in MADE_AGAIN:
        assert len(store.names(kind)) == sum(spec.stage == kind for spec in plan.stages), kind


def test_the_old_store_is_sound(old: tuple[Plan, Store]) -> None:
    plan, store = old
    done = finished_paths(plan, store)
    assert [line for path in sorted(done) for line in verify_stage(store, path)] == []
