"""From a config to its stages: their keys, what is there already, and whether everything fits. Starts no Prefect."""

import inspect
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from configs.load import ConfigError
from configs.schema import Config, Interpretation
from storage.specs import StageSpec
from storage.stages import find_finished
from storage.stores import FORMAT_FILE, Store, open_store
from tasks.coresets import SELECTORS
from tasks.interpreters import INTERPRETERS
from tasks.steps.activations import activations_spec
from tasks.steps.evaluation import evaluation_spec
from tasks.steps.features import features_spec
from tasks.steps.gallery import gallery_spec
from tasks.steps.manifest import manifest_spec
from tasks.steps.report import Answers, Cell
from tasks.steps.selection import selection_spec
from tasks.steps.sizes import LIBRARIES, estimate
from tasks.steps.training import training_spec

Setting = tuple[str, int]  # network, seed


@dataclass(frozen=True)
class Plan:
    """All stages of a run, by role; a stage that serves two roles stands in both."""

    config: Config
    manifests: Mapping[str, StageSpec]
    trainings: Mapping[Setting, StageSpec]
    learn: Mapping[Setting, StageSpec]
    held_out: Mapping[Setting, StageSpec]
    cells: tuple[Cell, ...]
    references: Mapping[tuple[str, int, str], StageSpec]
    galleries: Mapping[str, StageSpec]

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """Every stage once, in the order in which they can run."""
        chain = [
            *self.manifests.values(),
            *self.trainings.values(),
            *self.learn.values(),
            *self.held_out.values(),
            *(cell.selection for cell in self.cells),
            *(reference.inputs["selection"] for reference in self.references.values()),
            *self.references.values(),
            *(cell.features for cell in self.cells),
            *(cell.evaluation for cell in self.cells),
            *self.galleries.values(),
        ]
        return tuple({spec.path: spec for spec in chain}.values())

    def answers(self) -> Answers:
        """Return what the report is made from."""
        return Answers(self.config, self.stages, self.trainings, self.cells, self.galleries)


def make_plan(config: Config) -> Plan:
    """Return the stages of a run: specs and keys only, no store is asked.

    Raises
    ------
    ConfigError : an unknown method or parameter, a missing file
    """
    asked = config.interpretation
    try:
        manifests = {name: manifest_spec(name, data) for name, data in config.data.items()}
        trainings = {
            (name, seed): training_spec(name, network, manifests[network.train.data], seed)
            for name, network in config.networks.items()
            if network.train is not None
            for seed in config.seeds
        }
        if asked is None:
            return Plan(config, manifests, trainings, {}, {}, (), {}, {})
        _check_methods(asked)
        selecting = {*asked.networks, *([asked.coreset_from] if asked.coreset_from else [])}
        settings = [(name, seed) for name in config.networks if name in selecting for seed in config.seeds]
        learn = {s: _activations(config, asked, manifests, trainings, s, asked.learn) for s in settings}
        held_out = {s: _activations(config, asked, manifests, trainings, s, asked.evaluate) for s in settings}
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error
    held_out = {setting: spec for setting, spec in held_out.items() if setting[0] in asked.networks}
    references = dict(_references(config, asked, learn))
    cells = tuple(_cells(config, asked, learn, held_out, references))
    galleries = _galleries(asked, held_out, references, cells) if asked.gallery else {}
    return Plan(config, manifests, trainings, learn, held_out, cells, references, galleries)


def finished_paths(plan: Plan, store: Store) -> frozenset[str]:
    """Return the paths of the stages that are complete in the store."""
    return frozenset(spec.path for spec in plan.stages if find_finished(store, spec.path) is not None)


def network_names(plan: Plan) -> dict[str, str]:
    """Return the network's name by the path of its activations stage."""
    return {spec.path: name for found in (plan.learn, plan.held_out) for (name, _), spec in found.items()}


def _activations(
    config: Config,
    asked: Interpretation,
    manifests: Mapping[str, StageSpec],
    trainings: Mapping[Setting, StageSpec],
    setting: Setting,
    split: str,
) -> StageSpec:
    """Return the activations of a network on a split."""
    name, _ = setting
    manifest = manifests[config.data_of(name)]
    network, training = config.networks[name], trainings.get(setting)
    return activations_spec(name, network, manifest, training, layer=asked.layer, split=split, dtype=asked.dtype)


def _references(
    config: Config, asked: Interpretation, learn: Mapping[Setting, StageSpec]
) -> Iterator[tuple[tuple[str, int, str], StageSpec]]:
    """Yield the features of the full data by (network, seed, interpreter)."""
    for name, seed, interpreter in product(asked.networks, config.seeds, asked.interpreters):
        full = selection_spec(_selects(asked, learn, (name, seed)), "", {}, 1.0, seed, 0)
        parameters = asked.interpreters[interpreter]
        yield (name, seed, interpreter), features_spec(learn[name, seed], full, interpreter, parameters, seed)


def _selects(asked: Interpretation, learn: Mapping[Setting, StageSpec], setting: Setting) -> StageSpec:
    """Return the activations that select the coresets of a network."""
    return learn[asked.coreset_from or setting[0], setting[1]]


def _cells(
    config: Config,
    asked: Interpretation,
    learn: Mapping[Setting, StageSpec],
    held_out: Mapping[Setting, StageSpec],
    references: Mapping[tuple[str, int, str], StageSpec],
) -> Iterator[Cell]:
    """Yield every (network, seed, interpreter, selector, repeat, budget)."""
    for (name, seed, interpreter), reference in references.items():
        for selector, settings in asked.selectors.items():
            parameters = {key: value for key, value in settings.items() if key != "repeats"}
            for repeat, budget in product(range(settings.get("repeats", 1)), sorted(asked.budgets)):
                if budget == 1.0 and repeat:
                    continue  # every draw of everything is the same
                selects = _selects(asked, learn, (name, seed))
                selection = selection_spec(selects, selector, parameters, budget, seed, repeat)
                found = features_spec(learn[name, seed], selection, interpreter, asked.interpreters[interpreter], seed)
                compared = evaluation_spec(found, reference, held_out[name, seed])
                yield Cell(name, seed, interpreter, selector, repeat, budget, selection, found, compared)


def _galleries(
    asked: Interpretation,
    held_out: Mapping[Setting, StageSpec],
    references: Mapping[tuple[str, int, str], StageSpec],
    cells: tuple[Cell, ...],
) -> dict[str, StageSpec]:
    """Return a gallery per (network, interpreter) of the first seed: full data beside each selector's least budget."""
    found: dict[str, StageSpec] = {}
    for (name, seed, interpreter), reference in references.items():
        title = f"{name}, {interpreter}"
        columns = {"full data": reference}
        for cell in cells:
            if (cell.network, cell.seed, cell.interpreter, cell.repeat) == (name, seed, interpreter, 0):
                columns.setdefault(f"{cell.selector} {cell.budget:.0%}", cell.features)
        least: dict[str, tuple[str, StageSpec]] = {}
        for column, spec in columns.items():
            least.setdefault(column.rsplit(" ", 1)[0], (column, spec))
        if title not in found:
            found[title] = gallery_spec(held_out[name, seed], dict(least.values()), asked.gallery)
    return found


def _check_methods(asked: Interpretation) -> None:
    """Raise ConfigError for an unknown method, or parameters that a method cannot take."""
    for name, settings in asked.selectors.items():
        key = f"interpretation.selectors.{name}"
        select = _known(key, name, SELECTORS)
        repeats = settings.get("repeats", 1)
        if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
            raise ConfigError(f"{key}.repeats: an integer of at least 1, found {repeats!r}")
        parameters = {k: v for k, v in settings.items() if k != "repeats"}
        _check_parameters(key, select, parameters, {"features", "rho", "seed"}, {"repeats"})
        _check_values(key, partial(select, np.zeros((1, 1)), 0.5, seed=0, **parameters))
    for name, parameters in asked.interpreters.items():
        key = f"interpretation.interpreters.{name}"
        method = _known(key, name, INTERPRETERS)
        _check_parameters(key, method.fit, parameters, {"maps", "seed"}, set())
        _check_values(key, partial(method.check, **parameters))


def _known(key: str, name: str, methods: Mapping[str, Any]) -> Any:  # Any: a selector or an interpreter
    """Return a method by name."""
    if name not in methods:
        raise ConfigError(f"{key}: unknown method {name!r}; known: {', '.join(methods)}")
    return methods[name]


def _check_parameters(
    key: str, function: Callable[..., object], parameters: Mapping[str, object], own: set[str], more: set[str]
) -> None:
    """Raise for a parameter that `function` does not have."""
    known = sorted((set(inspect.signature(function).parameters) - own) | more)
    for name in parameters:
        if name not in known:
            raise ConfigError(f"{key}.{name}: unknown parameter; known: {', '.join(known) or 'none'}")


def _check_values(key: str, call: Callable[[], object]) -> None:
    """Raise ConfigError where the method refuses its parameters."""
    try:
        call()
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key}: {error}") from error


@dataclass(frozen=True)
class PlannedStage:
    """A line of `layerlore plan`: sizes in bytes, `state` complete, partial or missing."""

    stage: str
    key: str
    label: str
    state: str
    written: int
    peak: int


def existing_store(config: Config) -> Store | None:
    """Return the config's store if there is one; StoreError if it cannot be used."""
    store = Store(config.store)
    return open_store(config.store) if store.exists(FORMAT_FILE) else None


def planned_stages(plan: Plan, store: Store | None) -> list[PlannedStage]:
    """Return every stage with its state and size, after checking that data, networks and memory fit together.

    Raises
    ------
    ConfigError : something does not fit; names the config's key
    """
    try:
        sizes = estimate(plan.config, store, plan.stages, network_names(plan))
    except (ValueError, OSError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    found = []
    for spec in plan.stages:
        size = sizes[spec.path]
        found.append(
            PlannedStage(spec.stage, spec.key, spec.label, stage_state(store, spec.path), size.written, size.peak)
        )
    _check_fit(plan.config, found)
    return found


def stage_state(store: Store | None, path: str) -> str:
    """Return complete, partial or missing."""
    if store is None:
        return "missing"
    if find_finished(store, path) is not None:
        return "complete"
    return "partial" if store.names(f"{path}/markers") else "missing"


def _check_fit(config: Config, stages: list[PlannedStage]) -> None:
    """Raise where a stage needs more memory than a worker has, or all need more disk than there is."""
    todo = [stage for stage in stages if stage.state != "complete"]
    limit = _memory(config.cluster.memory_limit)
    for stage in todo:
        if stage.peak + LIBRARIES > limit:
            need = (stage.peak + LIBRARIES) / 1e9
            raise ConfigError(
                f"cluster.memory_limit: stage {stage.stage} of {stage.label} needs {need:.1f} GB in a worker, "
                f"{config.cluster.memory_limit} are allowed; raise it, keep fewer samples by `per_class`, "
                "or take a smaller layer"
            )
    store = Store(config.store)
    if store.local:
        place = next(p for p in (Path(store.root), *Path(store.root).parents) if p.exists())
        need, free = sum(stage.written for stage in todo), shutil.disk_usage(place).free
        if need > free:
            raise ConfigError(
                f"store: {need / 1e9:.1f} GB may be written, {free / 1e9:.1f} GB are free at {place}; "
                "choose another place, `interpretation.dtype: float16`, or fewer samples by `per_class`"
            )


def _memory(text: str) -> float:
    """Return the bytes that a size such as 4GB or 512 MiB means."""
    number = text.rstrip("kMGTiB ")
    unit = text[len(number) :].strip()
    base = 1024 if "i" in unit else 1000
    power = "kMGT".index(unit[0]) + 1 if unit[0] in "kMGT" else 0
    return float(number) * float(base**power)
