"""Runs on each server: made, resumed, asked about, damaged, killed, raced for; the bytes of a local run throughout."""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml
from typer.testing import CliRunner, Result

from flows import cli, exits
from storage import claims, s3
from storage.claims import claim
from storage.stores import Store
from tasks.engine import life
from tests.forked import ended, forked
from tests.storage.conftest import SkewedClock

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.s3.conftest import Server

pytestmark = [pytest.mark.s3, pytest.mark.long, pytest.mark.timeout(900)]

Tree = dict[str, Any]  # Any: YAML
Spoilt = Callable[..., AbstractContextManager[tuple["Server", dict[str, int]]]]
Reaching = Callable[["Server"], AbstractContextManager[pytest.MonkeyPatch]]
NewRun = Callable[[Tree], "Run"]

real = pytest.mark.parametrize("server", ["swift"], indirect=True, scope="module")  # the other adds nothing here


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminals of one width, without colours."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


def contents(store: Store) -> dict[str, bytes]:
    """Return what stages hold, without partition records, which have times and places."""
    names = [name for name in store.files("") if re.match(r"[a-z]+/[0-9a-f]{20}/(data\.zarr|files)/", name)]
    return {name: store.read(name) for name in names}


def alone(tree: Tree, options: tuple[str, ...]) -> None:
    """Make a run in a process that begins here: without claims, or stopping before it writes a fourth record."""
    from tests.conftest import Run

    if "unclaimed" in options:
        life.claim_all = lambda *given, **options: nullcontext()  # type: ignore[attr-defined,assignment]
    if "stopping" in options:
        write, markers = Store.write, list[str]()

        def stopping(store: Store, path: str, data: bytes | memoryview) -> None:
            markers.extend([path] if "/markers/0" in path else [])
            if len(markers) == 4:
                os.kill(os.getpid(), signal.SIGSTOP)
            write(store, path, data)

        Store.write = stopping  # type: ignore[method-assign,assignment]
    Run.of(tree).finish()


@pytest.fixture
def tree(tiny_tree: Tree, far: str) -> Tree:
    """The tiny config, its store on the server."""
    return {**tiny_tree, "store": far}


def fewer(tree: Tree) -> Tree:
    """Ask less of a config: a third of the requests."""
    asked = {**tree["interpretation"], "selectors": {"random": {"repeats": 1}}, "budgets": [0.5], "gallery": 0}
    return {**tree, "interpretation": asked}


@pytest.fixture
def small(tree: Tree) -> Tree:
    """A config of a few stages, its store on the server."""
    return fewer(tree)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, finished_run: "Run") -> dict[str, bytes]:
    """What the small run leaves on a local disk."""
    tree = fewer({**finished_run.tree, "store": str(tmp_path_factory.mktemp("local") / "store")})
    return contents(type(finished_run).of(tree).finish().job.store)


@pytest.fixture
def config(tree: Tree, tmp_path: Path) -> str:
    """The config as a file."""
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return str(path)


def layerlore(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(cli.app, list(arguments))


def test_a_run_is_made_asked_about_damaged_and_mended(
    tree: Tree, config: str, new_run: NewRun, finished_run: "Run"
) -> None:
    url = tree["store"]
    planned = layerlore("plan", config)
    assert planned.exit_code == 0, planned.output
    assert re.search(r"^(\d+) stages, \1 to make", planned.stdout, re.MULTILINE)
    made = new_run(tree).finish()
    assert contents(made.job.store) == contents(finished_run.job.store)
    done = layerlore("run", config)  # all is there: answered from the store
    assert done.exit_code == 0, done.output
    assert done.stdout == f"report: {url}/reports/tiny/index.html\n"
    assert f"all {len(made.plan.stages)} stages are complete in {url}\n" in done.stderr
    assert made.job.store.read("reports/tiny/index.html").lstrip().startswith(b"<!DOCTYPE html>")
    status = layerlore("status", url)
    stages = len(made.plan.stages)
    assert status.stdout.startswith(f"tiny: done, {stages} of {stages} stages complete")
    assert layerlore("verify", url).stdout == f"{stages} stages read, 0 damaged objects found\n"
    written = layerlore("report", config)
    assert written.stdout == done.stdout
    damage(made, url)
    collect(made, url)


def damage(made: "Run", url: str) -> None:
    """Change a byte of a shard, see it found, remove the stage, see that only it is made again."""
    store = made.job.store
    before = contents(store)
    shard = next(name for name in before if name.startswith("activations/") and "/maps/c/" in name)
    store.write(shard, before[shard][:8] + bytes([before[shard][8] ^ 1]) + before[shard][9:])
    found = layerlore("verify", url)
    assert found.exit_code == exits.FAILED
    assert f"key {shard}: fails its checksum" in found.stdout
    store.remove("/".join(shard.split("/")[:2]))
    made.finish()
    assert contents(store) == before


def collect(made: "Run", url: str) -> None:
    """Give up the run; what it made is garbage, but for a stage that somebody holds."""
    store = made.job.store
    for name in store.names("_runs"):
        store.remove(f"_runs/{name}")
    held = made.plan.stages[0].path
    with claim(store, held, "someone"):
        listed = layerlore("gc", url, "--grace", "0")
        assert listed.stdout.count("would delete: ") == len(made.plan.stages) - 1, listed.output
        assert re.search(rf"^kept \({held.replace('/', '-')} is held by someone .*\): {held} ", listed.stdout, re.M)
        deleted = layerlore("gc", url, "--grace", "0", "--yes")
        assert deleted.stdout.count("deleted: ") == len(made.plan.stages) - 1
    left = {name.split("/")[0] for name in store.files("")}  # logs say what was done, and stay
    assert left - {"_logs"} == {held.split("/")[0], "reports", "layerlore-store"}
    assert store.names("_claims") == []


class StopError(Exception):
    """The run ends here."""


def test_a_run_that_stopped_goes_on_to_the_same_bytes(
    small: Tree, new_run: NewRun, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = Store.write, list[str]()

    def stopping(store: Store, path: str, data: bytes | memoryview) -> None:
        if path.endswith(".json") and "/markers/" in path:
            if len(written) in (2, 9):
                written.append("stopped")
                raise StopError
            written.append(path)
        write(store, path, data)

    def stopping_among(store: Store, objects: dict[str, bytes]) -> None:
        for path, data in objects.items():
            stopping(store, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "write", stopping)
        patch.setattr(Store, "write_all", stopping_among)
        for _ in range(2):
            with pytest.raises(Exception, match=r"^$|partition \d+ of .*: StopError"):
                new_run(small).finish()
    run = new_run(small).finish()
    assert contents(run.job.store) == expected
    assert written.count("stopped") == 2


@pytest.fixture
def killed(small: Tree) -> Tree:
    """The small config after its run was killed in a partition that it held: data are there without their record."""
    with forked(alone, small, ("stopping",)) as process:
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            assert process.is_alive(), process.exitcode
            time.sleep(0.1)
        process.kill()
        assert ended(process) == -signal.SIGKILL
    assert Store(small["store"]).names("_claims")
    return small


@real
def test_a_killed_run_goes_on_at_once_to_the_same_bytes(
    killed: Tree, new_run: NewRun, expected: dict[str, bytes]
) -> None:
    run = new_run(killed).finish()
    messages = run.job.observer.texts  # type: ignore[attr-defined]  # the observer of tests
    assert messages == []  # the run did not wait: it sees that the process is dead
    assert contents(run.job.store) == expected
    assert run.job.store.names("_claims") == []


@real
def test_a_run_killed_elsewhere_blocks_for_a_heartbeat_at_most(
    killed: Tree, new_run: NewRun, expected: dict[str, bytes]
) -> None:
    store = Store(killed["store"])
    for note in store.names("_claims"):
        messages = json.loads(store.read(f"_claims/{note}"))
        written = time.monotonic()
        store.write(f"_claims/{note}", json.dumps({**messages, "process": "another/pid:[1]/1/1"}).encode())
        skewed = SkewedClock()
        with claim(store, note.removesuffix(".json").replace("-", "/"), "us", clock=skewed.clock()):
            age = time.monotonic() - written + 1.0  # servers may give times in whole seconds
            assert claims.HEARTBEAT - age <= sum(skewed.waits) < claims.HEARTBEAT + claims.NOTE_POLL
    run = new_run(killed).finish()
    assert contents(run.job.store) == expected


@real
@pytest.mark.parametrize("options", [(), ("unclaimed",)], ids=["claimed", "unclaimed"])
def test_two_runs_at_once_leave_the_same_bytes(
    small: Tree, options: tuple[str, ...], expected: dict[str, bytes]
) -> None:
    with forked(alone, small, options) as one, forked(alone, small, options) as other:
        assert (ended(one), ended(other)) == (0, 0)
    store = Store(small["store"])
    assert contents(store) == expected
    assert layerlore("verify", store.url).exit_code == 0
    assert store.names("_claims") == []
    assert len(store.names("_runs/tiny")) == 2


def test_a_run_outlives_faults_in_a_tenth_of_its_requests(
    small: Tree,
    spoilt: Spoilt,
    reaching: Reaching,
    new_run: NewRun,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(s3, "FIRST", 0.02)
    monkeypatch.setattr(s3.S3Files, "read_timeout", 2.0)
    with spoilt("--share", 0.1, "--hang", 2.5) as (proxy, counts), reaching(proxy):
        run = new_run(small).finish()
        assert layerlore("verify", small["store"]).exit_code == 0
    assert contents(Store(small["store"])) == expected
    assert run.job.store.names("_claims") == []
    kinds = {"500", "503", "429", "hang", "reset", "lost", "cut", "slow"}
    assert 0.06 < sum(counts[kind] for kind in kinds) / counts["requests"] < 0.14
    assert all(counts[kind] >= 2 for kind in kinds), counts
