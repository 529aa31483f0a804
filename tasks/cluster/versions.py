"""What code a process runs: compared between a run and its workers, and told in markers and records."""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

COMPARED = ("numpy", "scipy", "scikit-learn", "pillow", "torch", "torchvision", "zarr", "distributed")


@lru_cache(maxsize=1)
def code_facts() -> dict[str, str]:
    """Return the digest of layerlore's source and the versions that must agree between a run and its workers.

    Those of all that computes numbers: resized pixels depend on Pillow, for one.
    """
    source = hashlib.sha256()
    root = Path(__file__).parent.parent
    for package in ("configs", "flows", "storage", "tasks"):
        for file in sorted((root / package).rglob("*.py")):
            source.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return {"layerlore source": source.hexdigest()[:12], **{name: version(name) for name in COMPARED}}


def code_difference(worker: str, theirs: dict[str, str], ours: dict[str, str]) -> str:
    """Return in one line how a worker's code differs from a run's; empty where it does not."""
    for name, value in ours.items():
        if theirs.get(name) != value:
            return f"worker {worker} has {name} {theirs.get(name)}, this run has {value}; start it anew"
    return ""
