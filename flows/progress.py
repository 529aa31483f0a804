"""The state of a plan's stages in their store, and a check of memory and disk for the missing ones."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.load import ConfigError, visible
from configs.schema import Config
from configs.section import size_bytes
from flows.plan import Plan
from storage.stages import find_finished
from storage.stores import FORMAT_FILE, Store, open_store
from tasks.steps.plan import stage_sizes

LIBRARIES = 1100 * 10**6  # bytes of a worker before any data: torch, NumPy, Zarr


@dataclass(frozen=True)
class PlannedStage:
    """A line of `layerlore plan`: sizes in bytes, `state` complete, partial or missing, `note` a further line."""

    stage: str
    key: str
    label: str
    state: str
    written: int
    peak: int
    note: str


def existing_store(config: Config) -> Store | None:
    """Return the config's store if there is one; StoreError if it cannot be used, or its bucket is missing."""
    try:
        Store(config.store).read(FORMAT_FILE)  # on S3, `exists` would not report a missing bucket
        return open_store(config.store)
    except (FileNotFoundError, NotADirectoryError):
        return None


def finished_paths(plan: Plan, store: Store | None) -> frozenset[str]:
    """Return the paths of the stages that are complete in the store, if there is one."""
    if store is None:
        return frozenset()
    return frozenset(spec.path for spec in plan.stages if find_finished(store, spec.path) is not None)


def planned_stages(plan: Plan, store: Store | None) -> list[PlannedStage]:
    """Return every stage with its state and size, after checking that data, networks and memory fit together.

    Raises
    ------
    ConfigError : data, networks or memory do not fit; names the config's key
    """
    try:
        sizes = stage_sizes(plan.config.cluster, store, plan.stages)
    except (ValueError, OSError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    found = []
    for spec in plan.stages:
        size, state = sizes[spec.path], stage_state(store, spec.path)
        found.append(PlannedStage(spec.stage, spec.key, spec.label, state, size.written, size.peak, size.note))
    _check_fit(plan.config, found)
    return found


def notes_of(stages: Sequence[PlannedStage]) -> list[str]:
    """Return the further lines of planned stages, each once."""
    return list(dict.fromkeys(visible(stage.note) for stage in stages if stage.note))


def stage_state(store: Store | None, path: str) -> str:
    """Return the state of a stage: complete, partial or missing."""
    if store is None:
        return "missing"
    if find_finished(store, path) is not None:
        return "complete"
    return "partial" if store.names(f"{path}/markers") else "missing"


def _check_fit(config: Config, stages: list[PlannedStage]) -> None:
    """Raise ConfigError where a stage needs more memory than a worker has, or all need more disk than is free."""
    todo = [stage for stage in stages if stage.state != "complete"]
    limit = size_bytes(config.cluster.memory_limit)
    for stage in todo:
        if stage.peak + LIBRARIES > limit:
            need = (stage.peak + LIBRARIES) / 1e9
            raise ConfigError(
                f"cluster.memory_limit: expected at least {need:.1f} GB for stage {stage.stage} of {stage.label}, "
                f"found {config.cluster.memory_limit}; raise it, keep fewer samples by `per_class`, "
                "or choose a smaller layer"
            )
    store = Store(config.store)
    if store.local:
        place = next(p for p in (Path(store.root), *Path(store.root).parents) if p.exists())
        need, free = sum(stage.written for stage in todo), shutil.disk_usage(place).free
        if need > free:
            raise ConfigError(
                f"store: expected {need / 1e9:.1f} GB of free disk at {place}, found {free / 1e9:.1f} GB; "
                "choose another disk, or store less: fewer samples by `per_class`, `interpretation.dtype: float16`, "
                "or `record.layers` and `record.steps` of a training"
            )
