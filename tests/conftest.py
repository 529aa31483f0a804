"""Options and builders that tests share."""

import copy
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from configs.schema import Config
from flows.plan import Plan, make_plan
from storage.stores import open_store
from tasks.cluster.parallel import SerialPool
from tasks.engine.life import Job
from tasks.engine.records import recorded
from tests.carded import carded_config
from tests.plans import complete_plan
from tests.probed import FEATURES, probed_config, save_features
from tests.shared import listing, made_once

Tree = dict[str, Any]  # Any: YAML


class SilentObserver:
    """Remembers the progress lines and events that it gets."""

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
    parser.addoption("--update-golden", action="store_true", help="write tests/golden.json again from the tiny run")


def pytest_configure() -> None:
    """Let the programs that tests start see Ctrl-C, also where a shell runs the tests in the background."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _tests_fork_their_own_processes() -> Iterator[None]:
    """Let runs within this process spawn their workers: `tests.forked` has this process's one server of forks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.command.load_ahead", lambda config: None)
        yield


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


def traced_config(store: str) -> Tree:
    """Return a config that asks all of question 4 in a few seconds: 60 digits, single-class batches, every check."""
    return {
        "name": "traced",
        "store": store,
        "cluster": {"kind": "serial"},
        "data": {
            "digits": {
                "source": "sklearn-digits",
                "per_class": {"train": 6, "val": 2},
                "noise": {"share": 0.1, "seed": 1},
            }
        },
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 4},
                "train": {
                    "data": "digits",
                    "epochs": 2,
                    "optimizer": {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
                    "schedule": {"kind": "step", "every": 1, "factor": 0.5},
                    "batches": {"kind": "single-class", "size": 4, "ghosts": 6},
                    "checkpoint_every": 25,
                    "record": {},
                },
                "preprocessing": {"mode": "L"},
            }
        },
        "tracing": {
            "networks": ["small"],
            "queries": {"count": 4},
            "k": 5,
            "ridges": {"classes": 3},
            "evaluation": {"mislabel": True, "randomisation": True, "lds": {"subsets": 3, "retrainings": 2}},
        },
    }


def decomposed_config(store: str) -> Tree:
    """Return a config that asks all of question 2 in a few seconds: 160 digits, a network with gates, retraining."""
    train = {"data": "digits", "epochs": 4, "optimizer": {"kind": "sgd", "lr": 0.1, "momentum": 0.9}}
    return {
        "name": "decomposed",
        "store": store,
        "cluster": {"kind": "serial"},
        "data": {"digits": {"source": "sklearn-digits", "per_class": {"train": 12, "val": 4}}},
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 8},
                "train": {**train, "batches": {"size": 16}, "gates": {"lr": 0.1, "plain_epochs": 1, "period": 2}},
                "preprocessing": {"mode": "L"},
            }
        },
        "decomposition": {
            "networks": ["small"],
            "k1": [3, {"coverage": 0.6}],
            "k2": [4, 2],
            "draws": 3,
            "sample_need": [2],
            "ablation": {
                "noises": ["standard", "feature_moments"],
                "scopes": ["label", "predicted", "union"],
                "draws": 2,
            },
            "retraining": {
                "head": {"epochs": 2, "optimizer": {"kind": "sgd", "lr": 0.05}, "batches": {"size": 16}},
                "network": {"epochs": 1, "optimizer": {"kind": "sgd", "lr": 0.01}, "batches": {"size": 16}},
            },
            "gallery": 3,
        },
    }


@pytest.fixture
def tiny_tree(tmp_path: Path) -> Tree:
    """The tiny config, with a store of the test's own."""
    return tiny_config(str(tmp_path / "store"))


@pytest.fixture
def traced_tree(tmp_path: Path) -> Tree:
    """The traced config, with a store of the test's own."""
    return traced_config(str(tmp_path / "store"))


@pytest.fixture
def probed_tree(tmp_path: Path) -> Tree:
    """The config of question 3, with a store and a file of features of the test's own."""
    save_features(tmp_path / FEATURES)
    return probed_config(str(tmp_path / "store"))


@pytest.fixture
def decomposed_tree(tmp_path: Path) -> Tree:
    """The decomposed config, with a store of the test's own."""
    return decomposed_config(str(tmp_path / "store"))


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
        with recorded(self.job.store, self.config, self.plan.stages):
            complete_plan(self.plan, self.job)
        return self


def serial_job(config: Config) -> Job:
    """Return a job that works in this process."""
    return Job(open_store(config.store, create=True), SerialPool(), SilentObserver())


def shared_run(
    factory: pytest.TempPathFactory,
    name: str,
    config: Callable[[str], Tree],
    prepare: Callable[[Path], object] = lambda _: None,
) -> Iterator[Run]:
    """Yield a finished run that one process of the test run makes and all read; fail where a test changed it."""

    def make(place: Path) -> None:
        prepare(place)
        Run.of(config(str(place / "store"))).finish()

    folder = made_once(factory, name, make)
    before = listing(folder)
    yield Run.of(config(str(folder / "store")))
    assert listing(folder) == before, "a test changed a store that all tests read; it must copy it with Run.at"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The tiny run, made once for all tests: not to be changed."""
    yield from shared_run(tmp_path_factory, "finished", tiny_config)


@pytest.fixture(scope="session")
def traced_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The traced run, made once for all tests: not to be changed."""
    yield from shared_run(tmp_path_factory, "traced", traced_config)


@pytest.fixture(scope="session")
def decomposed_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The decomposed run, made once for all tests: not to be changed."""
    yield from shared_run(tmp_path_factory, "decomposed", decomposed_config)


@pytest.fixture(scope="session")
def probed_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The run of question 3, made once for all tests: not to be changed."""
    yield from shared_run(tmp_path_factory, "probed", probed_config, lambda place: save_features(place / FEATURES))


@pytest.fixture(scope="session")
def carded_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The run of all questions of one network, made once for all tests: not to be changed."""
    yield from shared_run(tmp_path_factory, "carded", carded_config, lambda place: save_features(place / FEATURES))


@pytest.fixture
def copied_run(finished_run: Run, tmp_path: Path) -> Run:
    """The tiny run in a copy of the store that a test may damage."""
    return finished_run.at(str(tmp_path / "copied"))


@pytest.fixture(scope="session")
def new_run() -> Callable[[Tree], Run]:
    """A function from a config to its run, of which nothing is made yet."""
    return Run.of


@pytest.fixture
def make_job() -> Callable[[Config], Job]:
    """A function from a config to a job that works in this process."""

    def build(config: Config) -> Job:
        return serial_job(config)

    return build


@pytest.fixture
def run_tiny(tiny_tree: Tree, make_job: Callable[[Config], Job]) -> Callable[[], tuple[Plan, Job]]:
    """A function that makes all stages of the tiny config, as it stands when called."""

    def make() -> tuple[Plan, Job]:
        config = Config.model_validate(tiny_tree)
        plan, job = make_plan(config), make_job(config)
        complete_plan(plan, job)
        return plan, job

    return make
