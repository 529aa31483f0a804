"""SLURM: the job scripts that the sections give, jobs that really join over TLS, and a run that is queued again."""

import contextlib
import gc
import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.deployments.conftest import Processes

pytestmark = pytest.mark.timeout(900)

GOLDEN = Path(__file__).parent / "golden"

# A SLURM of this machine: sbatch runs the script in the background and prints a job's number, scancel ends it.
SBATCH = """#!/bin/sh
cp "$1" "$JOBS/$$.sh"
setsid sh "$JOBS/$$.sh" >"$JOBS/$$.log" 2>&1 &
echo "$!" >"$JOBS/$$.pid"
echo "Submitted batch job $$"
"""
SCANCEL = """#!/bin/sh
kill -TERM "-$(cat "$JOBS/$1.pid")"
"""
JOIN = """
import json, sys
from configs.cluster import Cluster
from tasks.cluster.parallel import open_pool
with open_pool(Cluster.model_validate(json.loads(sys.argv[1]))) as pool:
    pool.client.wait_for_workers(2, timeout=240)
    print(sorted(pool.map(abs, [-1, -2, -3], network=True)))
    workers = pool.client.scheduler_info(n_workers=-1)["workers"]
    pool.client.gather([pool.client.submit(abs, 1, workers=[name], pure=False) for name in workers])
"""
OUTLIVE = """
import json, sys, time
from configs.cluster import Cluster
from tasks.cluster import attendance
from tasks.cluster.parallel import open_pool
attendance.LOOK, attendance.LEFT = 0.5, 3.0
with open_pool(Cluster.model_validate(json.loads(sys.argv[1]))) as pool:
    print(len([item for item, _ in pool.map(time.sleep, [1.5 + number / 1000 for number in range(24)])]))
"""
STOPPED = """#!/bin/sh
trap 'kill $!; exit {code}' TERM
echo "$@"
sleep 600 &
wait
"""


def arguments(deployments: Path, name: str, folder: Path) -> dict[str, Any]:  # Any: the class's own
    """Return a section's arguments with folders of the test."""
    found = yaml.safe_load((deployments / "slurm" / name).read_text())["cluster"]["arguments"]
    shared = folder / "tls"
    shared.mkdir(mode=0o700)
    return {**found, "log_directory": str(folder / "logs"), "shared_temp_directory": str(shared)}


def program(folder: Path, name: str, text: str) -> None:
    """Write a program."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.mark.cluster  # opens the scheduler's port
@pytest.mark.filterwarnings("ignore")  # Dask's own
@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_job_script_is_the_golden_one(
    deployments: Path, tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue: pip install '.[slurm]'")
    given = arguments(deployments, f"cluster-{kind}.yaml", tmp_path)
    given["scheduler_options"]["host"] = "127.0.0.1"
    with jobqueue.SLURMCluster(**given) as cluster:
        script = cluster.job_script()
    gc.collect()  # dask-jobqueue leaves its files open: the warning belongs here
    for found, name in (
        (sys.executable, "PYTHON"),
        (r"tls://127\.0\.0\.1:\d+", "SCHEDULER"),
        (rf"{re.escape(str(tmp_path))}/tls/[^ ]+", "PEM"),
        (re.escape(str(tmp_path)), "FOLDER"),
    ):
        script = re.sub(found, name, script)
    golden = GOLDEN / f"slurm-{kind}.sh"
    if request.config.getoption("--update-golden"):
        golden.write_text(script)
    assert script == golden.read_text()


@pytest.fixture
def jobs(tmp_path: Path, processes: Processes) -> Iterator[Path]:
    """The folder in which the stand-in of SLURM keeps its jobs, of which none outlives the test."""
    pytest.importorskip("dask_jobqueue", reason="needs dask-jobqueue: pip install '.[slurm]'")
    folder = tmp_path / "jobs"
    folder.mkdir()
    program(tmp_path / "bin", "sbatch", SBATCH)
    program(tmp_path / "bin", "scancel", SCANCEL)
    processes.environment["PATH"] = f"{tmp_path / 'bin'}:{processes.environment['PATH']}"
    processes.environment["JOBS"] = str(folder)
    yield folder
    for pid in pids(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait(timeout=120)


def pids(jobs: Path) -> list[int]:
    """Return the processes of all jobs so far."""
    return [int(file.read_text()) for file in jobs.glob("*.pid")]


def section(deployments: Path, folder: Path, kind: str, **changes: object) -> str:
    """Return a section whose jobs run on this machine alone, as JSON."""
    given = arguments(deployments, f"cluster-{kind}.yaml", folder)
    given = {**given, "memory": "1GB", "local_directory": str(folder / "scratch"), **changes}
    given["scheduler_options"]["host"] = "127.0.0.1"
    given["worker_extra_args"] += ["--host", "127.0.0.1"]
    resource = {"gpu_resource": "GPU"} if kind == "gpu" else {}
    return json.dumps({"kind": "dask_jobqueue.SLURMCluster", "workers": 2, **resource, "arguments": given})


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
def test_jobs_join_and_are_cancelled(deployments: Path, tmp_path: Path, processes: Processes, jobs: Path) -> None:
    asked = section(deployments, tmp_path, "gpu")
    assert "[(-3, 3), (-2, 2), (-1, 1)]" in processes.call(sys.executable, "-c", JOIN, asked)
    assert len(pids(jobs)) == 2
    for job in jobs.glob("*.sh"):
        assert "--tls-ca-file" in job.read_text()
        messages = " ".join(job.with_suffix(".log").read_text().split())
        assert "Registered to: tls://127.0.0.1:" in messages
        assert set(re.findall(r"(?:Listening to|dashboard at): (?:\w+://)?([\d.]+):", messages)) == {"127.0.0.1"}


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")  # Dask's own
@pytest.mark.parametrize("of_a_job", [1, 2])
def test_jobs_that_end_are_replaced(
    deployments: Path, tmp_path: Path, processes: Processes, jobs: Path, of_a_job: int
) -> None:
    brief = ["--dashboard-address", "127.0.0.1:0", "--lifetime", "15s"]  # 36 s of work for two
    changes = {"cores": of_a_job, "processes": of_a_job, "worker_extra_args": brief}
    assert processes.call(sys.executable, "-c", OUTLIVE, section(deployments, tmp_path, "cpu", **changes)) == "24\n"
    assert len(pids(jobs)) > 2 // of_a_job


@pytest.mark.parametrize(("code", "requeued"), [(130, True), (1, False), (0, False)])
def test_a_run_that_its_walltime_ends_is_queued_again(
    deployments: Path, processes: Processes, code: int, requeued: bool
) -> None:
    folder = processes.folder / "bin"
    program(folder, "layerlore", STOPPED.format(code=code))
    program(folder, "scontrol", f'#!/bin/sh\necho "$@" >"{processes.folder}/requeued"\n')
    processes.environment["PATH"] = f"{folder}:{processes.environment['PATH']}"
    job = processes.start("bash", deployments / "slurm" / "run.sbatch", "my.yaml", SLURM_JOB_ID="41")
    processes.wait_for(lambda: "run my.yaml" in processes.text(0) and catches_term(job.pid), "the run")
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=120) == code
    asked = processes.folder / "requeued"
    assert (asked.read_text() == "requeue 41\n") if requeued else not asked.exists()


def catches_term(pid: int) -> bool:
    """Say whether a process has begun to catch SIGTERM."""
    (caught,) = re.findall(r"^SigCgt:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_a_run_that_ends_by_itself_gives_its_code(deployments: Path, processes: Processes) -> None:
    program(processes.folder / "bin", "layerlore", "#!/bin/sh\nexit 2\n")
    processes.environment["PATH"] = f"{processes.folder / 'bin'}:{processes.environment['PATH']}"
    job = processes.start("bash", deployments / "slurm" / "run.sbatch", "my.yaml")
    assert job.wait(timeout=120) == 2
