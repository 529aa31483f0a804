"""Folders that are made once for a whole test run and read by all its processes."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first process to ask fills, and that the others then find full.

    Parameters
    ----------
    factory : pytest's own; with xdist the folder lies next to those of the processes
    name : of the folder, one per test run
    make : fills the empty folder
    """
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    full = folder.with_suffix(".full")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # ends with its process: a dead one blocks no other
        if not full.exists():
            folder.mkdir(exist_ok=True)
            make(folder)
            full.touch()
    return folder


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of every file below a folder: equal as long as no process writes there."""
    files = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (stat.st_size, stat.st_mtime_ns) for path, stat in files}


def prefect_home(factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Make a folder a home of Prefect with an empty database, of which the first costs seconds, and return it."""
    return Path(shutil.copytree(made_once(factory, "prefect", _make_database), folder))


def _make_database(home: Path) -> None:
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
