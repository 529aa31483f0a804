"""The queue of a batch system: which jobs of a cluster are no longer in it."""

import getpass
import subprocess
from typing import Any

PATIENCE = 10.0  # seconds for SLURM to answer


def jobs_not_queued(cluster: Any) -> set[object]:  # Any: distributed has no types
    """Return the names of a cluster's SLURM jobs that neither wait nor run; none where SLURM does not answer.

    Dask does not learn that a job ended before its worker joined: it was cancelled while it waited, or it failed.
    """
    jobs = {name: str(job.job_id) for name, job in list(cluster.workers.items()) if _is_of_slurm(job)}
    if not jobs:
        return set()
    command = ["squeue", "--noheader", "--format=%A", "--user", getpass.getuser()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return set()
    queued = {*done.stdout.split()}
    return {name for name, number in jobs.items() if number not in queued}


def _is_of_slurm(job: Any) -> bool:  # Any: distributed has no types
    """Return whether a worker of a cluster is a job that SLURM has accepted."""
    return str(getattr(job, "cancel_command", "")).split(" ")[0] == "scancel" and bool(getattr(job, "job_id", None))
