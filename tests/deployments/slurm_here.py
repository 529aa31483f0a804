"""A real SLURM on loopback: controller, one node that says it has 16 cores and two GPUs, and their own munge."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.conftest import PATIENCE, Processes, clean_environment, free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
# Any two device files count as GPUs. SLURM hands them out by number, and names them in CUDA_VISIBLE_DEVICES.
GRES = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"
CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldPort={controller}
SlurmdPort={node}
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=1
KillWait=5
MinJobAge=600
OverTimeLimit=0
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=20000 Gres=gpu:2 State=UNKNOWN
PartitionName=normal Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


@dataclass(frozen=True)
class Slurm:
    """A running SLURM; commands find it by the environment of its processes."""

    processes: Processes
    host: str

    def call(self, *command: object) -> str:
        """Run one of SLURM's programs and return what it prints."""
        return self.processes.call(*command)

    def submit(self, *arguments: object) -> int:
        """Submit a job script and return the job's number."""
        return int(self.call("sbatch", "--parsable", *arguments).strip().splitlines()[-1])

    def jobs(self) -> dict[int, dict[str, str]]:
        """Return what SLURM knows of each job, the ended ones too."""
        found = [dict(w.split("=", 1) for w in line.split() if "=" in w) for line in self._lines()]
        return {int(job["JobId"]): job for job in found if "JobId" in job}

    def state(self, job: int) -> str:
        """Return the state of a job."""
        return self.jobs()[job]["JobState"]

    def wait_for_state(self, job: int, *wanted: str, patience: float = PATIENCE) -> None:
        """Wait until a job has one of the states; another end fails."""

        def reached() -> bool:
            found = self.state(job)
            assert found in wanted or found not in ENDED, (found, self.jobs()[job])
            return found in wanted

        self.processes.wait_for(reached, f"job {job} in {wanted}", patience)

    def update_node(self, *settings: str) -> None:
        """Change the node, as an operator does."""
        self.call("scontrol", "update", f"NodeName={self.host}", *settings)

    def clear(self) -> None:
        """End all jobs and bring the node back."""
        self.call("scancel", "--user", getpass.getuser(), "--full")
        self.processes.wait_for(lambda: all(job["JobState"] in ENDED for job in self.jobs().values()), "the jobs' end")
        self.resume()
        self.processes.wait_for(lambda: self._node() == "idle", "an idle node")

    def resume(self) -> None:
        """Bring a drained or dead node back, unless it comes back by itself, also between the look and the command."""

        def back() -> bool:
            if not any(word in self._node() for word in ("drain", "down")):
                return True
            with suppress(AssertionError):
                self.update_node("State=RESUME")
            return False

        self.processes.wait_for(back, "a node that is back")

    def _node(self) -> str:
        return self.call("sinfo", "--noheader", "--format=%T", "--partition=normal").strip()

    def _lines(self) -> list[str]:
        return self.call("scontrol", "show", "jobs", "--oneliner").splitlines()


@contextmanager
def slurm_here(folder: Path) -> Iterator[Slurm]:
    """Start a SLURM in a folder and stop it; skips where SLURM is not installed, or this machine cannot run it."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    if missing := [name for name in PROGRAMS if shutil.which(name, path=path) is None]:
        pytest.skip(f"needs SLURM ({', '.join(missing)} not found): make slurm")
    if os.geteuid() != 0:
        pytest.skip("needs root: SLURM's node starts jobs as their users")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    host, conf = socket.gethostname().partition(".")[0], folder / "slurm.conf"
    ports = {"controller": free_port(), "node": free_port()}
    conf.write_text(CONF.format(host=host, user=getpass.getuser(), folder=folder, **ports))
    (folder / "gres.conf").write_text(GRES)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    environment = clean_environment(SLURM_CONF=str(conf))
    processes = Processes(folder, {**environment, "PATH": f"{environment['PATH']}{os.pathsep}/usr/sbin"})
    try:
        parts = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{option}={folder}/munge.{end}" for option, end in parts.items()]
        processes.start("munged", "--foreground", "--force", *munge)
        processes.wait_for((folder / "munge.socket").exists, "munged")
        processes.start("slurmctld", "-D", "-f", conf)
        processes.start("slurmd", "-D", "-f", conf)
        found = Slurm(processes, host)
        processes.wait_for(lambda: _idle(processes), "an idle node")
        yield found
        found.clear()
    finally:
        processes.stop()


def _idle(processes: Processes) -> bool:
    """Say whether the controller answers and its node is idle."""
    command: list[Any] = ["sinfo", "--noheader", "--format=%T", "--partition=normal"]
    done = subprocess.run(command, env=processes.environment, capture_output=True, text=True, check=False, timeout=60)
    time.sleep(0.2)
    return done.stdout.strip() == "idle"
