"""Libraries that the workers of a run load before its first partition, while Prefect's server still starts."""

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from configs.schema import Config

LIBRARIES = ("pandas", "zarr", "torch")  # what nearly every partition needs
TRAINING = ("torch._dynamo",)  # torch loads it with the first optimiser, which takes as long as torch itself


def libraries_of(config: Config) -> Sequence[str]:
    """Return the modules that the partitions of a run need first."""
    trains = any(network.train is not None for network in config.networks.values())
    return (*LIBRARIES, *TRAINING) if trains else LIBRARIES


def load_ahead(names: Sequence[str], dask_worker: Any) -> None:  # Any: distributed has no types
    """Let a Dask worker load modules in the thread of its partitions; do not wait."""
    dask_worker.executor.submit(_load, names)


def _load(names: Sequence[str]) -> None:
    """Load modules; what cannot be loaded is reported by the partition that needs it."""
    for name in names:
        with suppress(Exception):
            import_module(name)
