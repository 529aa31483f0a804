"""The state of a plan's stages in their store, and a check of memory and disk for the missing ones."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.load import ConfigError, visible
from configs.schema import Config
from configs.section import size_bytes
from flows.plan import Plan
from storage.memory import remembering
from storage.stages import find_many
from storage.stores import NoStoreError, Store, open_store
from storage.together import together
from tasks.steps.plan import stage_sizes

LIBRARIES = 1100 * 10**6  # bytes of a worker before any data: torch, NumPy, Zarr


@dataclass(frozen=True)
class PlannedStage:
    """A line of `layerlore plan`: sizes in bytes, `state` complete, partial or missing, and further lines."""

    stage: str
    key: str
    label: str
    state: str
    written: int
    peak: int
    note: str
    about: str


@dataclass(frozen=True)
class Progress:
    """The store of a plan, None before it exists, and the paths of the plan's complete stages."""

    store: Store | None
    finished: frozenset[str]

    def made_store(self, config: Config) -> Store:
        """Return the store, which is made where there is none."""
        return self.store or remembering(open_store(config.store, create=True))


def progress_of(plan: Plan) -> Progress:
    """Return the state of a plan; a run that begins with it does not read the completion records again."""
    store = existing_store(plan.config)
    return Progress(store, finished_paths(plan, store))


def existing_store(config: Config) -> Store | None:
    """Return the config's store, with the token of a new run, or None if there is no store.

    Raises
    ------
    StoreError : it cannot be used, or its bucket is missing
    """
    try:
        return remembering(open_store(config.store))
    except NoStoreError:
        return None


def finished_paths(plan: Plan, store: Store | None) -> frozenset[str]:
    """Return the paths of the stages that are complete in the store, if there is one."""
    if store is None:
        return frozenset()
    return frozenset(find_many(store, [spec.path for spec in plan.stages]))


def planned_stages(plan: Plan, store: Store | None, finished: frozenset[str] | None = None) -> list[PlannedStage]:
    """Return every stage with its state and size, after checking that data, networks and memory fit together.

    Parameters
    ----------
    finished : paths of the complete stages, if they are known already

    Raises
    ------
    ConfigError : data, networks or memory do not fit; names the config's key
    """
    try:
        sizes = stage_sizes(plan.config.cluster, store, plan.stages)
    except (ValueError, OSError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    found, states = [], stage_states(store, [spec.path for spec in plan.stages], finished)
    for spec in plan.stages:
        size, state = sizes[spec.path], states[spec.path]
        found.append(
            PlannedStage(spec.stage, spec.key, spec.label, state, size.written, size.peak, size.note, size.about)
        )
    _check_fit(plan.config, found)
    return found


def notes_of(stages: Sequence[PlannedStage]) -> list[str]:
    """Return the further lines of planned stages that a run shows too, each once."""
    return list(dict.fromkeys(visible(stage.note) for stage in stages if stage.note))


def facts_of(stages: Sequence[PlannedStage]) -> list[str]:
    """Return the further lines of planned stages that only a plan shows, each once."""
    return list(dict.fromkeys(visible(stage.about) for stage in stages if stage.about))


def stage_states(store: Store | None, paths: Sequence[str], finished: frozenset[str] | None = None) -> dict[str, str]:
    """Return the state of each stage by path: complete, partial or missing.

    Parameters
    ----------
    finished : paths of the complete stages, if they are known already
    """
    if store is None:
        return dict.fromkeys(paths, "missing")
    complete = frozenset(find_many(store, paths)) if finished is None else finished
    rest = [path for path in dict.fromkeys(paths) if path not in complete]
    there = _there(store, rest)
    begun = together(store, lambda path: bool(store.names(f"{path}/markers")), there)
    partial = {path for path, some in zip(there, begun, strict=True) if some}
    states = {path: "partial" if path in partial else "missing" for path in rest}
    return {path: states.get(path, "complete") for path in paths}


def _there(store: Store, paths: Sequence[str]) -> list[str]:
    """Return the stages of which anything is in the store, by one listing for each kind."""
    kinds = list(dict.fromkeys(path.partition("/")[0] for path in paths))
    keys = zip(kinds, together(store, store.names, kinds), strict=True)
    found = {f"{kind}/{key}" for kind, names in keys for key in names}
    return [path for path in paths if path in found]


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
