"""A store that an earlier version made is reused whole: kinds, VERSIONs and keys of all stages are still the same.

`old_store/store.zip` is a run of every kind of stage. It was made before the stages were rebuilt as objects. A stage
whose VERSION has risen since is left out of the comparison: a new store is made with
`layerlore run tests/flows/old_store/config.yaml` and packed without records, claims and reports.
"""

import zipfile
from pathlib import Path

import pytest

from configs.load import load_config
from flows.plan import Plan, make_plan
from flows.progress import existing_store, finished_paths
from storage.stores import Store
from storage.verify import verify_stage
from tasks.steps.questions import STEPS

FOLDER = Path(__file__).with_name("old_store")


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
    assert {spec.stage for spec in old[0].stages} == set(STEPS)


def test_every_stage_of_the_old_store_is_reused(old: tuple[Plan, Store]) -> None:
    plan, store = old
    done = finished_paths(plan, store)
    assert [spec.title for spec in plan.stages if spec.path not in done] == []
    assert sorted(done) == sorted(f"{kind}/{key}" for kind in STEPS for key in store.names(kind))


def test_the_old_store_is_sound(old: tuple[Plan, Store]) -> None:
    plan, store = old
    assert [line for spec in plan.stages for line in verify_stage(store, spec.path)] == []
