"""Options and builders that tests share."""

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Config
from flows.plan import Plan, make_plan
from storage.stores import open_store
from tasks.parallel import SerialPool
from tasks.steps.activations import ACTIVATIONS
from tasks.steps.evaluation import EVALUATION
from tasks.steps.features import FEATURES
from tasks.steps.gallery import GALLERY
from tasks.steps.layers import LAYERS
from tasks.steps.life import Job, complete
from tasks.steps.manifest import MANIFEST
from tasks.steps.records import recorded
from tasks.steps.selection import SELECTION
from tasks.steps.training import TRAINING

Tree = dict[str, Any]  # Any: YAML


class SilentObserver:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.titles: list[str] = []
        self.texts: list[str] = []

    def begin(self, title: str, total: int, done: int) -> None:
        self.titles.append(title)

    def advance(self, title: str) -> None:
        pass

    def end(self, title: str, seconds: float) -> None:
        pass

    def say(self, text: str) -> None:
        self.texts.append(text)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data", default=None, help="folder with real data and weights; tests that need it skip without")
    parser.addoption("--update-golden", action="store_true", help="write tests/golden.json anew from the tiny run")


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder with real data."""
    given = request.config.getoption("--data")
    if given is None:
        pytest.skip("needs real data: give its folder with --data")
    return Path(given)


def tiny_config(store: str) -> Tree:
    """Return a whole config that runs in about two seconds: 120 digits, one epoch, two budgets."""
    return {
        "name": "tiny",
        "store": store,
        "cluster": {"kind": "serial"},
        "data": {"digits": {"source": "sklearn-digits", "per_class": {"train": 12, "val": 4}}},
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 4},
                "train": {
                    "data": "digits",
                    "epochs": 2,
                    "optimizer": {"kind": "sgd", "lr": 0.05},
                    "batches": {"size": 16},
                    "checkpoint_every": 5,
                },
                "preprocessing": {"mode": "L"},
            }
        },
        "interpretation": {
            "networks": ["small"],
            "selectors": {"random": {"repeats": 2}, "moderate": {}},
            "budgets": [0.5, 1.0],
            "interpreters": {"ice": {"components": 3}},
            "gallery": 2,
        },
    }


@pytest.fixture
def tiny_tree(tmp_path: Path) -> Tree:
    """The tiny config, with a store of the test's own."""
    return tiny_config(str(tmp_path / "store"))


@dataclass(frozen=True)
class Run:
    """A run of some config, made or not."""

    tree: Tree
    config: Config
    plan: Plan
    job: Job

    def at(self, store: str) -> "Run":
        """Return the same run in a copy of its store."""
        shutil.copytree(self.config.store, store)
        return Run.of({**copy.deepcopy(self.tree), "store": store})

    @classmethod
    def of(cls, tree: Tree) -> "Run":
        """Return the run of a config whose store exists or will."""
        config = Config.model_validate(tree)
        return cls(tree, config, make_plan(config), serial_job(config))

    def finish(self) -> "Run":
        """Make all stages in this process, as `layerlore run` does, without Prefect."""
        with recorded(self.config, self.plan.stages):
            complete_plan(self.plan, self.job)
        return self


def serial_job(config: Config) -> Job:
    """Return a job that works in this process."""
    return Job(open_store(config.store, create=True), SerialPool(), SilentObserver())


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run, made once for all tests: not to be changed."""
    return Run.of(tiny_config(str(tmp_path_factory.mktemp("finished") / "store"))).finish()


@pytest.fixture
def copied_run(finished_run: Run, tmp_path: Path) -> Run:
    """The tiny run in a copy of the store that a test may damage."""
    return finished_run.at(str(tmp_path / "copied"))


@pytest.fixture
def new_run() -> Callable[[Tree], Run]:
    """A function from a config to its run, of which nothing is made yet."""
    return Run.of


@pytest.fixture
def make_job() -> Callable[[Config], Job]:
    """A function from a config to a job that works in this process."""

    def build(config: Config) -> Job:
        return serial_job(config)

    return build


def complete_plan(plan: Plan, job: Job) -> None:
    """Make every stage of a plan in order, as the flows do, without Prefect."""
    fitted = [*plan.references.values(), *(cell.features for cell in plan.cells)]
    complete(job, MANIFEST, list(plan.manifests.values()))
    complete(job, TRAINING, list(plan.trainings.values()))
    complete(job, LAYERS, list(plan.layers.values()))
    complete(job, ACTIVATIONS, [*plan.learn.values(), *plan.held_out.values()])
    complete(job, SELECTION, [spec.inputs["selection"] for spec in fitted])
    complete(job, FEATURES, fitted)
    complete(job, EVALUATION, [cell.evaluation for cell in plan.cells])
    complete(job, GALLERY, list(plan.galleries.values()))


@pytest.fixture
def run_tiny(tiny_tree: Tree, make_job: Callable[[Config], Job]) -> Callable[[], tuple[Plan, Job]]:
    """A function that makes all stages of the tiny config, as it stands when called."""

    def make() -> tuple[Plan, Job]:
        config = Config.model_validate(tiny_tree)
        plan, job = make_plan(config), make_job(config)
        complete_plan(plan, job)
        return plan, job

    return make
