"""Real runs in processes of their own: interrupted, killed, robbed of a worker, two at once."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from benchmarks.kills.servers import is_worker
from benchmarks.kills.stores import Digests, digests
from flows import exits
from storage.claims import claim
from storage.stores import Store
from storage.verify import stage_paths, verify_stage
from tests.shared import prefect_home

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
ADDRESS = re.compile(r"(Prefect: http://127\.0\.0\.1:\d+/\S+|Dask: http://127\.0\.0\.1:\d+/status)")
Start = Callable[..., "subprocess.Popen[str]"]
Variables = dict[str, str]  # of the environment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
PATIENCE = 600  # seconds


@pytest.fixture
def config(tiny_tree: Tree, tmp_path: Path) -> Path:
    """The tiny config with two worker processes."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**tiny_tree, "cluster": {"kind": "local"}}, sort_keys=False))
    return path


@pytest.fixture
def own_server(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Variables:
    """The variables of a run that starts a Prefect server of its own."""
    return {"PREFECT_HOME": str(prefect_home(tmp_path_factory, tmp_path / "prefect"))}


@pytest.fixture
def start(tmp_path: Path, standing_server: Variables) -> Iterator[Start]:
    """Return a function that starts `layerlore` in a process group of its own; what still runs is killed."""
    started: list[subprocess.Popen[str]] = []

    def launch(*arguments: str, server: Variables = standing_server) -> "subprocess.Popen[str]":
        environment = {**os.environ, **server, "COLUMNS": "200"}
        command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
        with (tmp_path / f"stderr-{len(started)}").open("w") as stream:
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=stream, text=True, start_new_session=True
            )
        started.append(process)
        return process

    yield launch
    for process in started:
        kill_group(process)


def kill_group(process: "subprocess.Popen[str]") -> None:
    """Kill a run with its workers and its server."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for child in children:
        child.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a run and return its code and output."""
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def wait_until(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until something is so, as long as a run lives."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, process.returncode
        assert time.monotonic() < until
        time.sleep(0.02)


def records(store: str) -> int:
    """Return the number of partitions and stages that are done."""
    return len(list(Path(store).glob("*/*/markers/*.json")))


def more_than(store: str, number: int) -> bool:
    """Say whether more partitions and stages are done than `number`."""
    return records(store) > number


def made(store: str) -> Digests:
    """Return the digests of all arrays and files of all stages, and of what their notes state."""
    return digests(Store(store))


def errors(tmp_path: Path, number: int = 0) -> str:
    """Return what a run wrote to its error stream."""
    return (tmp_path / f"stderr-{number}").read_text()


def test_a_run_says_what_it_does_and_nothing_else(
    start: Start, own_server: Variables, config: Path, tiny_tree: Tree, tmp_path: Path, finished_run: "Run"
) -> None:
    code, output = finish(start("run", str(config), server=own_server))
    assert code == exits.DONE, errors(tmp_path)
    assert output == f"report: {tiny_tree['store']}/reports/tiny/index.html\n"
    lines = errors(tmp_path).splitlines()
    assert lines[0] == f"21 of 21 stages to make, in {tiny_tree['store']}"
    epoch = r"epoch [12] of 2, loss [\d.]+, accuracy [\d.]+, lr 0.05"
    steps = r"\d+ steps, loss [\d.]+"  # of an epoch that takes long
    allowed = re.compile(rf"[a-z-]+ .*: (\d+ of \d+( partitions to do)?|done in [\d.]+ s|{epoch}|{steps})")
    others = [line for line in lines[1:] if not allowed.fullmatch(line)]
    assert [line for line in others if not ADDRESS.fullmatch(line)] == []
    assert made(tiny_tree["store"]) == made(finished_run.config.store)
    assert Path(tiny_tree["store"], "reports/tiny/index.html").is_file()


def test_an_interrupt_stops_the_run_which_goes_on(
    start: Start, own_server: Variables, config: Path, tiny_tree: Tree, tmp_path: Path, finished_run: "Run"
) -> None:
    process = start("run", str(config), server=own_server)
    wait_until(lambda: records(tiny_tree["store"]) >= 3, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    code, output = finish(process)
    assert (code, output) == (exits.INTERRUPTED, ""), errors(tmp_path)
    lines = errors(tmp_path).splitlines()
    assert lines[-1] == f"interrupted; no result is lost: `layerlore run {config}` resumes this work"
    assert not any("Traceback" in line or "Error" in line for line in lines), lines
    _, alive = psutil.wait_procs(children, timeout=120)
    assert alive == []
    code, _ = finish(start("run", str(config)))
    assert code == exits.DONE, errors(tmp_path, 1)
    assert made(tiny_tree["store"]) == made(finished_run.config.store)


def test_a_killed_run_goes_on_to_the_same_bytes(
    start: Start, config: Path, tiny_tree: Tree, tmp_path: Path, finished_run: "Run"
) -> None:
    moments = random.Random(5)
    for number in range(2):
        process = start("run", str(config))
        # Soon after the start, however fast the machine is: the whole run makes many more.
        wait_until(partial(more_than, tiny_tree["store"], records(tiny_tree["store"]) + moments.randrange(3)), process)
        kill_group(process)
        assert all(not list(verify_stage(Store(tiny_tree["store"]), p)) for p in stage_paths(Store(tiny_tree["store"])))
        assert "Traceback" not in errors(tmp_path, number)
    code, _ = finish(start("run", str(config)))
    assert code == exits.DONE, errors(tmp_path, 2)
    assert made(tiny_tree["store"]) == made(finished_run.config.store)
    assert not list(Path(tiny_tree["store"]).rglob("*.partial"))


@pytest.mark.parametrize("what", ["worker", "server"])
def test_a_killed_worker_costs_its_partitions_only(
    start: Start, config: Path, tiny_tree: Tree, tmp_path: Path, finished_run: "Run", what: str
) -> None:
    """The server is the process that workers are forked from."""
    process = start("run", str(config))
    wait_until(lambda: records(tiny_tree["store"]) >= 3, process)
    workers = [p for p in psutil.Process(process.pid).children(recursive=True) if is_worker(p)]
    assert workers
    server = workers[0].parent()
    assert server is not None
    if sys.platform.startswith("linux"):
        assert server.pid != process.pid
    (server if what == "server" else workers[0]).kill()
    code, _ = finish(process)
    assert code == exits.DONE, errors(tmp_path)
    assert made(tiny_tree["store"]) == made(finished_run.config.store)
    assert "Traceback" not in errors(tmp_path)


def test_a_failing_stage_is_one_line(start: Start, config: Path, tiny_tree: Tree, tmp_path: Path) -> None:
    code, output = finish(start("run", str(config), "--set", "networks.small.train.optimizer.lr=1e30"))
    assert (code, output) == (exits.FAILED, "")
    lines = errors(tmp_path).splitlines()
    assert re.fullmatch(
        r"error: partition \d of training small seed 0 \[\w{8}\]: step \d+: expected a finite loss, found nan; "
        r"lower the learning rate",
        lines[-1],
    ), lines
    assert sum(line.startswith("error") for line in lines) == 1
    lines = [line for line in lines if not ADDRESS.fullmatch(line)]
    assert not any("Traceback" in line or "prefect" in line.lower() for line in lines), lines
    assert len(lines) < 10


def test_two_runs_at_once(start: Start, config: Path, tiny_tree: Tree, tmp_path: Path, finished_run: "Run") -> None:
    Path(tiny_tree["store"]).mkdir()
    (Path(tiny_tree["store"]) / "layerlore-store").write_text("1\n")
    manifest = finished_run.plan.shared.manifests["digits"].path
    with claim(Store(tiny_tree["store"]), manifest, "run other"):
        first = start("run", str(config), "--set", "cluster.kind=serial")
        left = start("run", str(config), "--set", "cluster.kind=serial", "--no-wait")
        code, _ = finish(left)
        assert code == exits.HELD, errors(tmp_path, 1)
        assert f"error: {manifest.replace('/', '-')} is held by run other" in errors(tmp_path, 1).splitlines()[-1]
        wait_until(lambda: "is held by run other" in errors(tmp_path), first)
        second = start("run", str(config), "--set", "cluster.kind=serial")
        wait_until(lambda: "is held by run other" in errors(tmp_path, 2), second)
    for number, process in ((0, first), (2, second)):
        code, _ = finish(process)
        assert code == exits.DONE, errors(tmp_path, number)
    assert made(tiny_tree["store"]) == made(finished_run.config.store)
    done = [re.findall(r"^(\w+ .*): done in", errors(tmp_path, number), re.M) for number in (0, 2)]
    assert not set(done[0]) & set(done[1])  # no stage was made twice
