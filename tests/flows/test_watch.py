"""The live watch: a training that runs, a folder that grows, kills, two watchers, a store that moves, alerts."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import torch

from configs.load import ConfigError
from configs.schema import Config
from flows.plan import make_plan
from flows.progress import finished_paths
from flows.watching import Watching, begin_watch
from storage.stages import open_finished
from storage.stores import StoreError, open_store
from tasks.engine import alerts, life
from tasks.engine.failures import ServerError
from tasks.engine.life import complete
from tasks.engine.records import recorded
from tasks.engine.step import Work
from tasks.steps.common.snapshots import SNAPSHOTS
from tasks.steps.plan import waves
from tasks.steps.questions import STEPS
from tasks.steps.report import report_is_current
from tests.conftest import Run, SilentObserver
from tests.flows.command import Tree, Write, layerlore, refused
from tests.flows.watches import folder_tree, made, save_checkpoint, trained_tree
from tests.plans import complete_plan

if TYPE_CHECKING:
    from tasks.engine.alerts import Alert

QUIET = 0.3  # seconds, of the folders here


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list["Alert"]:
    """The alerts that go to Prefect, for which a list stands in."""
    found: list[Alert] = []
    monkeypatch.setattr("flows.watching.send_to_prefect", found.append)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of checkpoints."""
    return tmp_path / "checkpoints"


def watching(tree: Tree) -> tuple[Watching, list[str]]:
    """Return a watch before its first look, and the lines that it says."""
    observer = SilentObserver()
    return begin_watch(Config.model_validate(tree), observer, complete), observer.texts


def looked_at(watch: Watching) -> list[str]:
    """Return the labels of the snapshots on the page, in order."""
    table = pd.read_parquet(Path(watch.address).parent / "tables" / "monitor.parquet")
    return list(dict.fromkeys(table.sort_values("snapshot")["label"]))


def make_stages(run: Run) -> None:
    """Make the trainings of a run and their snapshots."""
    for wave in waves(run.plan.base):
        complete(run.job, STEPS[wave[0].stage], wave)


@contextlib.contextmanager
def after_segments(act: Callable[[int], object]) -> Iterator[None]:
    """Call a function after each segment of a training, while the training is under way."""
    real, inside = life.run_partition, [False]

    def between(function: Callable[[Work, int], None], item: life.Assignment) -> None:
        real(function, item)
        if item.work.stage.spec.stage == "training" and not inside[0]:
            inside[0] = True
            act(item.number)
            inside[0] = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(life, "run_partition", between)
        yield


def test_snapshots_of_a_training_are_looked_at_while_it_runs(probed_tree: Tree, sent: list["Alert"]) -> None:
    run = Run.of(trained_tree(probed_tree))
    watch, said = watching(run.tree)
    assert not watch.turn()  # no training yet
    counts: list[int] = []

    def look(segment: int) -> None:
        watch.turn()
        counts.append(len(looked_at(watch)))
        assert not watch.over

    with recorded(run.job.store, run.config, run.plan.stages), after_segments(look):
        complete_plan(run.plan, run.job)
    assert counts == [2, 3, 3, 4]  # steps 0 and 5 after 5 steps, 8 after 10, none after 15, 16 at the end
    watch.turn()
    assert watch.over
    assert report_is_current(run.job.store, run.plan.made())  # the page is that of the whole run
    assert looked_at(watch) == ["step 0", "step 5", "step 8", "step 16"]
    assert [line for line in said if line.startswith("small seed 0")][-1].endswith("4, the last is step 16")


def test_snapshots_of_a_running_training_are_those_of_a_finished_one(probed_tree: Tree, tmp_path: Path) -> None:
    tree = trained_tree(probed_tree)
    early, late = Run.of(tree), Run.of({**tree, "store": str(tmp_path / "late")})
    snapshots = {spec.parameters["step"]: spec for spec in early.plan.shared.snapshots}
    ready = {0: [0, 5], 1: [8], 3: [16]}  # after segments of 5 steps

    def make(segment: int) -> None:
        complete(early.job, SNAPSHOTS, [snapshots[step] for step in ready.get(segment, [])])

    with after_segments(make):
        make_stages(early)
    make_stages(late)
    for spec in snapshots.values():
        files = [open_finished(run.job.store, spec).note["files"] for run in (early, late)]
        assert files[0] == files[1]


def test_a_folder_that_grows(probed_tree: Tree, folder: Path, sent: list["Alert"]) -> None:
    watch, _ = watching(folder_tree(probed_tree, folder))
    assert not watch.turn()
    assert watch.address == "none, as there was no snapshot"
    for number in (3, 10):
        save_checkpoint(folder / f"epoch_{number}.pt", number)
        assert watch.turn()  # it has changed a moment ago
        time.sleep(QUIET)
        assert watch.turn()
        assert not watch.turn()
        assert not watch.over
    assert looked_at(watch) == ["epoch_3", "epoch_10"]
    config = Config.model_validate(watch.config.model_dump())
    store = open_store(config.store)
    plan = make_plan(config)
    assert len(finished_paths(plan, store)) == len(plan.stages)
    assert report_is_current(store, plan.made())
    assert layerlore("status", config.store).stdout.count(f"{len(plan.stages)} of {len(plan.stages)}") == 1


@pytest.mark.parametrize("size", [1, 200, -1])
def test_a_half_written_file_is_waited_for(probed_tree: Tree, folder: Path, size: int, tmp_path: Path) -> None:
    tree = folder_tree(probed_tree, folder)
    watch, said = watching(tree)
    save_checkpoint(tmp_path / "whole.pt", 1)
    data, file = (tmp_path / "whole.pt").read_bytes(), folder / "epoch_1.pt"
    for part in (data[:size], data[: len(data) // 2], data[:-1]):  # it grows between looks, always truncated
        file.write_bytes(part)
        assert watch.turn()
        assert watch.address.startswith("none")
    assert not [line for line in said if "left out" in line]
    file.write_bytes(data)
    assert watch.turn()
    time.sleep(QUIET)
    assert watch.turn()
    assert looked_at(watch) == ["epoch_1"]


def test_a_file_that_stays_truncated_is_left_out_until_it_is_written_again(probed_tree: Tree, folder: Path) -> None:
    watch, said = watching(folder_tree(probed_tree, folder))
    save_checkpoint(folder / "epoch_1.pt", 1)
    data = (folder / "epoch_1.pt").read_bytes()
    save_checkpoint(folder / "epoch_2.pt", 2)
    (folder / "epoch_1.pt").write_bytes(data[:-40])
    watch.turn()
    time.sleep(QUIET)
    watch.turn()
    watch.turn()
    assert looked_at(watch) == ["epoch_2"]
    (line,) = [line for line in said if "left out" in line]
    assert line.startswith("concepts.checkpoints.small: epoch_1.pt is left out: ")
    (folder / "epoch_1.pt").write_bytes(data)
    watch.turn()
    time.sleep(QUIET)
    watch.turn()
    assert looked_at(watch) == ["epoch_1", "epoch_2"]


def test_an_old_file_needs_no_second_look(probed_tree: Tree, folder: Path) -> None:
    tree = folder_tree(probed_tree, folder)
    tree["concepts"]["watch"]["quiet"] = 50.0
    save_checkpoint(folder / "epoch_1.pt", 1)
    hour = time.time() - 3600
    os.utime(folder / "epoch_1.pt", (hour, hour))
    watch, _ = watching(tree)
    assert watch.turn()
    assert looked_at(watch) == ["epoch_1"]


def test_a_file_written_again_is_another_snapshot(probed_tree: Tree, folder: Path) -> None:
    watch, _ = watching(folder_tree(probed_tree, folder))
    neurons = []
    for seed in (1, 2):
        save_checkpoint(folder / "epoch_1.pt", seed)
        watch.turn()
        time.sleep(QUIET)
        watch.turn()
        neurons.append(watch.finals)
        assert looked_at(watch) == ["epoch_1"]
    assert neurons[0] != neurons[1]


def test_a_planted_fall_of_diversity_raises_one_alert(probed_tree: Tree, folder: Path, sent: list["Alert"]) -> None:
    tree = folder_tree(probed_tree, folder)
    tree["concepts"]["watch"]["falls"] = {"mean_pairwise": 0.9}
    for number in (1, 2):
        save_checkpoint(folder / f"epoch_{number}.pt", number)
    watch, said = watching(tree)
    watch.turn()
    time.sleep(QUIET)
    watch.turn()
    assert sent == []
    for number in (3, 4):  # all neurons of a layer are the same: no distance is left between them
        save_checkpoint(folder / f"epoch_{number}.pt", number, identical=True)
        watch.turn()
        time.sleep(QUIET)
        watch.turn()
    (alert,) = sent  # of the fall, not of each snapshot after it
    numbers = alert.numbers
    assert (numbers["snapshot"], numbers["layer"], numbers["measure"]) == ("epoch_3", "8", "mean_pairwise")
    assert numbers["value"] < 0.1 * numbers["best"]
    assert alert.text in said
    tree["concepts"]["watch"]["quiet"] = 0.0
    again, _ = watching(tree)  # as after a crash, and as a second watcher
    again.turn()
    assert looked_at(again) == ["epoch_1", "epoch_2", "epoch_3", "epoch_4"]
    assert sent == [alert]


def test_an_alert_that_prefect_does_not_take_is_raised_later(
    probed_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, said, taken = open_store(str(tmp_path / "store"), create=True), list[str](), list[str]()
    alert = alerts.Alert("run", "key", "diversity falls", {})

    def refuse(alert: alerts.Alert) -> None:
        raise ServerError("Prefect's server http://x: expected an answer, found none")

    alerts.raise_once(store, alert, refuse, said.append)
    assert said[-1].startswith("this alert is not in Prefect: Prefect's server http://x")
    for _ in range(2):
        alerts.raise_once(store, alert, lambda one: taken.append(one.key), said.append)
    assert taken == ["key"]


RUN_LOGGED = """
import signal
import sys
from pathlib import Path
from tests.flows.watches import log_partitions
import flows.watching
log_partitions(Path(sys.argv[1]))
flows.watching.send_to_prefect = lambda alert: None
sys.argv = ["layerlore", *sys.argv[2:]]
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
from flows.cli import main
main()
"""


def start(log: Path, config: str, *options: str) -> "subprocess.Popen[str]":
    """Start `layerlore watch` in a process of its own that logs the partitions it makes."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN_LOGGED, str(log), "watch", config, *options],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_killed_watchers_and_two_at_once_make_each_stage_once(
    probed_tree: Tree, folder: Path, write: Write, tmp_path: Path
) -> None:
    tree, log = folder_tree(probed_tree, folder), tmp_path / "log"
    path, rng = write(tree), random.Random(0)
    save_checkpoint(folder / "epoch_1.pt", 1)
    for attempt in range(4):  # killed while it looks at the first snapshots, at random moments
        process = start(log, path)
        time.sleep(rng.uniform(2.0, 9.0))
        save_checkpoint(folder / f"epoch_{attempt + 2}.pt", attempt + 2)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    both = [start(log, path, "--idle", "6") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert out.strip().endswith("reports/probed/index.html")
        assert "no new snapshot for 6 s: the watch ends" in err
    assert max(made(log).values()) == 1
    config = Config.model_validate(tree)
    plan, store = make_plan(config), open_store(config.store)
    assert len(finished_paths(plan, store)) == len(plan.stages)
    assert report_is_current(store, plan.made())
    logged = {key.split(" ")[0] for key in made(log)}
    assert sum(spec.path in logged for spec in plan.stages) >= len(plan.stages) - 4  # a kill may come before a line


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_from_outside_ends_cleanly(probed_tree: Tree, folder: Path, write: Write, stop: int) -> None:
    process = start(folder.parent / "log", write(folder_tree(probed_tree, folder)))
    assert process.stderr is not None
    assert process.stderr.readline().startswith("watching small in ")
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = err.splitlines()
    assert line.startswith("interrupted; no result is lost: `layerlore watch ")


def test_a_watch_ends_after_its_idle_time(probed_tree: Tree, folder: Path, write: Write) -> None:
    path = write(folder_tree(probed_tree, folder))
    result = layerlore("watch", path, "--idle", "0")
    assert (result.exit_code, result.stdout) == (0, "report: none, as there was no snapshot\n")


def test_a_watch_ends_with_its_training(probed_run: Run, tmp_path: Path, write: Write, sent: list["Alert"]) -> None:
    run = probed_run.at(str(tmp_path / "store"))
    result = layerlore("watch", write(run.tree))
    assert result.exit_code == 0, result.output
    assert report_is_current(run.job.store, run.plan.made())
    assert result.stdout.strip().endswith("reports/probed/index.html")


def test_a_store_that_is_removed_moved_or_replaced(probed_tree: Tree, folder: Path, tmp_path: Path) -> None:
    watch, _ = watching(folder_tree(probed_tree, folder))
    store = Path(watch.config.store)
    watch.turn()
    store.rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="expected the store that the watch began with, found none; watch again"):
        watch.turn()
    open_store(str(store), create=True)
    with pytest.raises(StoreError, match="expected the store that the watch began with, found another; watch again"):
        watch.turn()
    shutil.rmtree(store)
    with pytest.raises(StoreError, match="found none"):
        watch.turn()
    assert not store.exists()


def test_a_store_that_moves_while_a_snapshot_is_looked_at(probed_tree: Tree, folder: Path, tmp_path: Path) -> None:
    watch, _ = watching(folder_tree(probed_tree, folder))
    save_checkpoint(folder / "epoch_1.pt", 1)
    watch.turn()
    time.sleep(QUIET)
    watch.make = lambda *_: Path(watch.config.store).rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="expected the store that the watch began with, found none"):
        watch.turn()


def test_a_store_with_another_run(finished_run: Run, probed_tree: Tree, tmp_path: Path, write: Write) -> None:
    other = finished_run.at(str(tmp_path / "other"))
    tree = {**trained_tree(probed_tree), "store": other.config.store}
    text = refused(layerlore("watch", write(tree)), code=1)
    assert "expected a run with the trainings of 'probed', found only tiny; `layerlore run` the config first" in text


def test_a_run_of_the_same_name_that_becomes_another(probed_tree: Tree) -> None:
    tree = trained_tree(probed_tree)
    watch, _ = watching(tree)
    watch.turn()
    changed = json.loads(json.dumps(tree))
    changed["networks"]["small"]["train"]["epochs"] = 1
    run = Run.of(changed)
    with recorded(run.job.store, run.config, run.plan.stages):
        pass
    with pytest.raises(StoreError, match="expected the trainings of run 'probed' as configured, found a run of this"):
        watch.turn()


def test_a_folder_that_is_removed(probed_tree: Tree, folder: Path) -> None:
    watch, _ = watching(folder_tree(probed_tree, folder))
    folder.rmdir()
    with pytest.raises(ConfigError, match=r"concepts\.checkpoints\.small\.folder: expected a folder, found none at"):
        watch.turn()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"concepts": None}, "concepts: expected a section of question 3 to watch, found none; add it"),
        ({"watch": {"every": 0}}, "concepts.watch.every: "),
        ({"watch": {"quiet": -1}}, "concepts.watch.quiet: "),
        ({"watch": {"falls": {"d_anchor": 1.5}}}, "concepts.watch.falls.d_anchor: "),
        ({"watch": {"falls": {"beauty": 0.5}}}, "concepts.watch.falls.beauty"),
        ({"detectors": {"clip": {}}}, "concepts.detectors.clip: unknown detector"),
    ],
)
def test_bad_configs_are_refused_in_one_line(
    probed_tree: Tree, folder: Path, write: Write, change: Tree, text: str
) -> None:
    tree = folder_tree(probed_tree, folder)
    save_checkpoint(folder / "epoch_1.pt", 1)
    os.utime(folder / "epoch_1.pt", (1e9, 1e9))
    if "concepts" in change:
        del tree["concepts"]
        tree["activations"] = {"networks": ["small"], "layers": ["2"], "data": "probe"}
    else:
        tree["concepts"] |= change
    assert text in refused(layerlore("watch", write(tree), "--idle", "0"))


def test_a_training_that_does_not_fit_is_refused_before_it_begins(probed_tree: Tree, write: Write) -> None:
    tree = trained_tree(probed_tree)
    tree["concepts"]["layers"] = ["nowhere"]
    text = refused(layerlore("watch", write(tree)))
    assert text.startswith("networks.small: layer 'nowhere': expected a module, found none")


def test_a_network_that_does_not_fit_is_refused_at_its_first_checkpoint(probed_tree: Tree, folder: Path) -> None:
    tree = folder_tree(probed_tree, folder)
    tree["concepts"]["layers"] = ["nowhere"]
    watch, _ = watching(tree)
    save_checkpoint(folder / "epoch_1.pt", 1)
    watch.turn()
    time.sleep(QUIET)
    with pytest.raises(ConfigError, match=r"networks\.small: layer 'nowhere': expected a module, found none"):
        watch.turn()


def test_weights_of_another_network_are_left_out(probed_tree: Tree, folder: Path) -> None:
    watch, said = watching(folder_tree(probed_tree, folder))
    torch.save({"other": torch.zeros(3)}, folder / "epoch_1.pt")
    watch.turn()
    time.sleep(QUIET)
    watch.turn()
    assert [line for line in said if "epoch_1.pt is left out" in line]
    assert watch.address.startswith("none")
