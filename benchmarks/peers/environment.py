"""An environment of the peers' own: it sees the running environment's packages, and never changes them."""

import json
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

NETREP_URL = "git+https://github.com/ahwillia/netrep"
RUNNING = "running.pth"  # the file that shows the running environment's packages to the peers' environment
REASONS = "reasons.json"
PATIENCE = 900  # seconds for one installation

# Packages that pip looks for, in order. Of pyDVL 0.10, pip is asked for the package alone: it wants numpy < 2, and its
# older versions, which pip would choose instead, do not import with a newer one.
INSTALLED: dict[str, tuple[tuple[str, ...], ...]] = {
    "captum": (("captum",),),
    "kronfluence": (("kronfluence",),),
    "dattri": (("dattri",),),
    "netrep": (("--no-deps", NETREP_URL),),
    "pyDVL": (("more-itertools", "cvxpy", "pyDeprecate"), ("--no-deps", "pyDVL>=0.10")),
}
PEERS = (*INSTALLED, "scikit-learn")


@dataclass(frozen=True)
class Peer:
    """A peer: its version here, or why it is not here."""

    name: str
    version: str | None
    reason: str = ""


def make_environment(folder: Path) -> Path:
    """Make the environment, or complete the one that is there, and install what is missing; return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    (packages / RUNNING).write_text(f"{sysconfig.get_path('purelib')}\n")
    constraints = folder / "constraints.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(running_versions().items())))
    reasons = {}
    for name, orders in INSTALLED.items():
        if not any(packages.glob(f"{name}-*.dist-info")) and (reason := install(python, constraints, orders)):
            reasons[name] = reason
    (folder / REASONS).write_text(json.dumps(reasons, indent=1))
    return python


def running_versions() -> dict[str, str]:
    """Return name and version of each package of this environment: pip keeps these, and downloads no other torch."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions(path=[sysconfig.get_path("purelib")])}
    return {name: version for name, version in found.items() if name not in ("layerlore", "pip", "setuptools")}


def install(python: Path, constraints: Path, orders: tuple[tuple[str, ...], ...]) -> str:
    """Install the packages of each order; return why that failed, "" if it did not."""
    for packages in orders:
        command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints), *packages]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return f"pip did not end within {PATIENCE} s"
        if done.returncode:
            return cause(done.stderr)
    return ""


def cause(lines: str) -> str:
    """Return the line of pip's errors that says most: git's, then pip's own, then the first."""
    found = [line.strip() for line in lines.splitlines() if line.strip()]
    for begin in ("fatal", "error"):
        for line in found:
            if line.lower().startswith(begin):
                return line
    return next(iter(found), "pip failed")


def peers_here() -> list[Peer]:
    """Return the peers as this process finds them."""
    kept = Path(sys.prefix) / REASONS
    reasons = json.loads(kept.read_text()) if kept.exists() else {}
    return [_peer(name, reasons.get(name, "")) for name in PEERS]


def _peer(name: str, reason: str) -> Peer:
    """Return a peer as this process finds it."""
    try:
        return Peer(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Peer(name, None, reason or "not installed")
