"""The code that a process runs: compared between a run and its workers, and stored in records."""

import hashlib
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

COMPARED = ("numpy", "scipy", "scikit-learn", "pillow", "torch", "torchvision", "zarr", "distributed")


@lru_cache(maxsize=1)
def code_facts() -> dict[str, str]:
    """Return the digest of layerlore's source and the versions that must agree between a run and its workers.

    The versions are those of all libraries that compute numbers, such as Pillow, which resizes images.
    """
    source = hashlib.sha256()
    root = Path(__file__).parents[2]
    for package in ("configs", "flows", "storage", "tasks"):
        for file in sorted((root / package).rglob("*.py")):
            source.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return {"layerlore source": source.hexdigest()[:12], **{name: version(name) for name in COMPARED}}


def code_difference(worker: str, theirs: dict[str, str], ours: dict[str, str]) -> str:
    """Return one line on the difference between a worker's code and a run's; "" where there is none."""
    for name, value in ours.items():
        if theirs.get(name) != value:
            return f"worker {worker}: expected {name} {value}, found {theirs.get(name)}; restart the worker"
    return ""
