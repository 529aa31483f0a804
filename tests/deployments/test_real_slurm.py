"""A real SLURM: clusters whose jobs end, fail, are cancelled, come back or never start, and runs that are jobs."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from benchmarks.kills.stores import digests
from flows import exits
from storage.stores import Store
from tests.deployments.conftest import DEPLOYMENTS
from tests.deployments.slurm_here import Slurm, slurm_here
from tests.deployments.test_slurm import JOIN, OUTLIVE, section

if TYPE_CHECKING:
    from tests.conftest import Run

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore")]

Tree = dict[str, Any]  # Any: YAML
SCRIPT = DEPLOYMENTS / "slurm" / "run.sbatch"


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A SLURM for the tests of this file."""
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue: pip install '.[slurm]'")
    with slurm_here(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture
def slurm(started: Slurm) -> Iterator[Slurm]:
    """The same without jobs, before and after each test."""
    started.clear()
    yield started
    started.clear()


@pytest.fixture
def config(tiny_tree: Tree, tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny config with a cluster and other changes of its training."""

    def written(cluster: Tree | None = None, **train: object) -> Path:
        tree = {**tiny_tree, "cluster": cluster or {"kind": "serial"}}
        tree["networks"]["small"]["train"] |= train
        place = tmp_path / "run.yaml"
        place.write_text(yaml.safe_dump(tree, sort_keys=False))
        return place

    return written


def of_jobs(folder: Path, kind: str = "cpu", timeout: float | None = None, **changes: Any) -> Tree:
    """Return a cluster section whose jobs run on this SLURM."""
    found: Tree = json.loads(section(DEPLOYMENTS, folder, kind, **changes))
    return {**found, "memory_limit": "2GB", "worker_timeout": timeout}


def run_refused(slurm: Slurm, config: Path) -> str:
    """Run a config that cannot run, and return its only line of error."""
    started = slurm.processes.start("layerlore", "run", config)
    number = len(slurm.processes.started) - 1
    code = started.wait(timeout=300)
    slurm.processes.started.remove(started)
    text = slurm.processes.text(number)
    assert code == exits.FAILED, text
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in text
    return line


def no_job_is_left(slurm: Slurm) -> bool:
    """Say whether SLURM has no job that runs or waits."""
    return slurm.call("squeue", "--noheader").strip() == ""


def records(store: str) -> int:
    """Return the number of partitions and stages that are done."""
    return len(list(Path(store).glob("*/*/markers/*.json")))


def test_jobs_join_and_are_cancelled(slurm: Slurm, tmp_path: Path) -> None:
    before = {*slurm.jobs()}
    asked = section(DEPLOYMENTS, tmp_path, "gpu")
    assert "[(-3, 3), (-2, 2), (-1, 1)]" in slurm.call(sys.executable, "-c", JOIN, asked)
    new = {number: job for number, job in slurm.jobs().items() if number not in before}
    assert len(new) == 2
    assert {job["TresPerNode"] for job in new.values()} == {"gres:gpu:1"}
    slurm.processes.wait_for(lambda: no_job_is_left(slurm), "the end of all jobs")
    assert {slurm.state(number) for number in new} <= {"CANCELLED", "COMPLETED"}


def test_jobs_that_end_are_replaced(slurm: Slurm, tmp_path: Path) -> None:
    before = {*slurm.jobs()}
    changes = {"cores": 1, "processes": 1, "worker_extra_args": ["--lifetime", "15s"]}  # 36 s of work for two
    assert slurm.call(sys.executable, "-c", OUTLIVE, section(DEPLOYMENTS, tmp_path, "cpu", **changes)) == "24\n"
    assert len({*slurm.jobs()} - before) > 2


def test_jobs_that_are_cancelled_come_back(slurm: Slurm, tmp_path: Path) -> None:
    before = {*slurm.jobs()}
    asked = section(DEPLOYMENTS, tmp_path, "cpu", cores=1, processes=1)
    joined = "    pool.client.wait_for_workers(2, timeout=240)\n    print('joined', flush=True)\n"
    program = OUTLIVE.replace("    print(len", f"{joined}    print(len")
    process = slurm.processes.start(sys.executable, "-c", program, asked)
    number = len(slurm.processes.started) - 1

    def running() -> list[int]:
        return [n for n, job in slurm.jobs().items() if n not in before and job["JobState"] == "RUNNING"]

    slurm.processes.wait_for(lambda: "joined" in slurm.processes.text(number), "two workers")
    slurm.call("scancel", running()[0])
    assert process.wait(timeout=300) == 0, slurm.processes.text(number)
    slurm.processes.started.remove(process)
    assert slurm.processes.text(number).splitlines()[-1] == "24"
    assert len({*slurm.jobs()} - before) > 2


def test_a_job_that_is_cancelled_while_it_waits_is_asked_for_again(slurm: Slurm, tmp_path: Path) -> None:
    """Two jobs that each need the whole node: one works, the other waits."""
    before = {*slurm.jobs()}
    whole = {"cores": 1, "processes": 1, "job_extra_directives": ["--exclusive"]}
    asked = section(DEPLOYMENTS, tmp_path, "cpu", **whole)
    process = slurm.processes.start(sys.executable, "-c", OUTLIVE, asked)
    number = len(slurm.processes.started) - 1

    def of_state(state: str) -> list[int]:
        return [n for n, job in slurm.jobs().items() if n not in before and job["JobState"] == state]

    slurm.processes.wait_for(
        lambda: of_state("RUNNING") and of_state("PENDING"), "one job that runs and one that waits"
    )
    (waiting,) = of_state("PENDING")
    slurm.call("scancel", waiting)
    slurm.processes.wait_for(lambda: {*of_state("PENDING")} - {waiting}, "another job in its place")
    assert slurm.state(waiting) == "CANCELLED"
    assert process.wait(timeout=300) == 0, slurm.processes.text(number)
    slurm.processes.started.remove(process)
    assert slurm.processes.text(number).splitlines()[-1] == "24"


def test_jobs_that_fail_end_the_run_in_one_line(slurm: Slurm, config: Callable[..., Path], tmp_path: Path) -> None:
    line = run_refused(slurm, config(of_jobs(tmp_path, timeout=20, job_script_prologue=["exit 3"])))
    assert line.startswith("error: cluster.worker_timeout: expected a worker within 20 s, found none"), line
    assert no_job_is_left(slurm)


def test_jobs_that_wait_for_a_drained_node_end_the_run_in_one_line(
    slurm: Slurm, config: Callable[..., Path], tmp_path: Path
) -> None:
    slurm.update_node("State=DRAIN", "Reason=test")
    line = run_refused(slurm, config(of_jobs(tmp_path, timeout=15)))
    assert line.startswith("error: cluster.worker_timeout: expected a worker within 15 s, found none"), line
    slurm.processes.wait_for(lambda: no_job_is_left(slurm), "the queue's end")


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("cpu", {"job_mem": "900GB"}, "Requested node configuration is not available"),
        ("gpu", {"job_extra_directives": ["--gres=gpu:3"]}, "Requested node configuration is not available"),
        ("cpu", {"queue": "none"}, "Invalid partition name specified"),
    ],
    ids=["memory", "gpus", "partition"],
)
def test_jobs_that_slurm_refuses_are_one_line(
    slurm: Slurm, config: Callable[..., Path], tmp_path: Path, kind: str, changes: dict[str, Any], reason: str
) -> None:
    line = run_refused(slurm, config(of_jobs(tmp_path, kind, timeout=20, **changes)))
    assert line.startswith("error: cluster.worker_timeout: expected a worker"), line
    text = slurm.processes.text(len(slurm.processes.started))
    assert text.count("the batch system refused a job: ") == 1
    assert reason in text


def test_more_jobs_than_gpus_wait_and_the_others_work(slurm: Slurm, tmp_path: Path) -> None:
    before = {*slurm.jobs()}
    asked = json.loads(section(DEPLOYMENTS, tmp_path, "gpu"))
    program = JOIN.replace("print(", "import subprocess; print(subprocess.getoutput('squeue -h -o %T:%r'));print(", 1)
    text = slurm.call(sys.executable, "-c", program, json.dumps({**asked, "workers": 3}))
    assert "[(-3, 3), (-2, 2), (-1, 1)]" in text
    assert sorted(line.partition(":")[0] for line in text.splitlines()[:3]) == ["PENDING", "RUNNING", "RUNNING"], text
    assert len({*slurm.jobs()} - before) == 3


def test_a_run_on_jobs_gives_the_same_bytes(
    slurm: Slurm, config: Callable[..., Path], tmp_path: Path, tiny_tree: Tree, finished_run: "Run"
) -> None:
    changes: dict[str, Any] = {"cores": 1, "processes": 1, "memory": "2GB"}
    slurm.call("layerlore", "run", config(of_jobs(tmp_path, **changes)))
    assert digests(Store(tiny_tree["store"])) == digests(Store(finished_run.config.store))


def submitted(slurm: Slurm, config: Path, *options: str) -> int:
    """Submit a run as a job, with the output in a file of its own."""
    small = ("--mem=3G", "--cpus-per-task=1", f"--output={config.parent}/job.log")
    return slurm.submit(*small, *options, SCRIPT, config)


def finished(slurm: Slurm, job: int, config: Path) -> str:
    """Wait until a job is complete, and return what it printed."""
    slurm.wait_for_state(job, "COMPLETED")
    return (config.parent / "job.log").read_text()


def test_a_run_that_is_a_job_tells_its_end(slurm: Slurm, config: Callable[..., Path], tiny_tree: Tree) -> None:
    place = config()
    text = finished(slurm, submitted(slurm, place), place)
    assert text.splitlines()[-1] == f"report: {tiny_tree['store']}/reports/tiny/index.html"
    bad = place.with_name("bad.yaml")
    bad.write_text(place.read_text().replace("epochs: 2", "epochs: -2"))
    job = submitted(slurm, bad)
    slurm.wait_for_state(job, "FAILED")
    assert (slurm.jobs()[job]["ExitCode"], slurm.jobs()[job]["Restarts"]) == ("2:0", "0")


def test_a_run_that_is_stopped_is_queued_again_and_goes_on(
    slurm: Slurm, config: Callable[..., Path], tiny_tree: Tree, finished_run: "Run"
) -> None:
    place, store = config(), tiny_tree["store"]
    job = submitted(slurm, place)
    slurm.processes.wait_for(lambda: records(store) >= 3, "three partitions")
    slurm.call("scancel", "--batch", "--signal=TERM", job)  # as SLURM does before the walltime, by --signal=B:TERM
    slurm.processes.wait_for(lambda: slurm.jobs()[job]["Restarts"] == "1", "the second start")
    text = finished(slurm, job, place)
    assert f"interrupted; no result is lost: `layerlore run {place}` resumes this work" in text
    assert "Traceback" not in text
    assert digests(Store(store)) == digests(Store(finished_run.config.store))


def test_a_run_whose_node_dies_is_queued_again_and_one_on_a_drained_node_goes_on(
    slurm: Slurm, config: Callable[..., Path], tiny_tree: Tree, finished_run: "Run"
) -> None:
    place, store = config(), tiny_tree["store"]
    job = submitted(slurm, place)
    slurm.processes.wait_for(lambda: records(store) >= 2, "two partitions")
    slurm.update_node("State=DOWN", "Reason=test")
    slurm.wait_for_state(job, "PENDING")
    slurm.resume()
    slurm.wait_for_state(job, "RUNNING")
    slurm.update_node("State=DRAIN", "Reason=test")  # takes no new job; the one that runs goes on
    finished(slurm, job, place)
    assert digests(Store(store)) == digests(Store(finished_run.config.store))


@pytest.mark.slow
def test_a_walltime_stops_the_run_before_its_end(slurm: Slurm, config: Callable[..., Path], tiny_tree: Tree) -> None:
    """SLURM counts walltimes in minutes, and sends the signal up to a minute early: one start may make nothing yet."""
    place = config(epochs=100_000)
    job = submitted(slurm, place, "--time=2", "--signal=B:TERM@20")
    slurm.processes.wait_for(
        lambda: int(slurm.jobs()[job]["Restarts"]) > 0 and records(tiny_tree["store"]) > 0,
        "a second start, and what was made",
        patience=600,
    )
    slurm.call("scancel", job)
