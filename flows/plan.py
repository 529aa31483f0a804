"""From a config to its stages and their keys. Starts no Prefect."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from configs.load import ConfigError
from configs.schema import Config, Interpretation
from storage.specs import StageSpec
from tasks.steps.activations import activations_spec
from tasks.steps.decomposition.plan import Decomposed, make_decompositions
from tasks.steps.evaluation import evaluation_spec
from tasks.steps.features import features_spec
from tasks.steps.gallery import gallery_spec
from tasks.steps.layers import layers_spec
from tasks.steps.manifest import manifest_spec
from tasks.steps.methods import check_methods
from tasks.steps.report import Answers, Cell
from tasks.steps.selection import selection_spec
from tasks.steps.snapshots import snapshot_specs
from tasks.steps.tracing.plan import Projected, Trace, make_traces
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
    layers: Mapping[tuple[str, int, str], StageSpec]
    decomposed: tuple[Decomposed, ...]
    traces: tuple[Trace, ...]

    @property
    def all_traces(self) -> tuple[Projected, ...]:
        """The traces that are asked for, and the projections on permuted labels that they are compared with."""
        return (*self.traces, *(trace.permuted for trace in self.traces if trace.permuted is not None))

    @property
    def all_manifests(self) -> list[StageSpec]:
        """The manifests of the data sets and of their variants with permuted labels."""
        return [*self.manifests.values(), *(trace.training.inputs["data"] for trace in self.all_traces)]

    @property
    def snapshots(self) -> list[StageSpec]:
        """The snapshots of the networks' trainings."""
        asked = ((spec, self.config.networks[name].train) for (name, _), spec in self.trainings.items())
        return [found for spec, train in asked if train is not None for found in snapshot_specs(spec, train.snapshots)]

    @property
    def all_trainings(self) -> list[StageSpec]:
        """The trainings of the networks and those on permuted labels."""
        return [*self.trainings.values(), *(trace.training for trace in self.all_traces)]

    @property
    def stages(self) -> tuple[StageSpec, ...]:
        """Every stage once, in the order in which they can run."""
        chain = [
            *self.manifests.values(),
            *self.trainings.values(),
            *self.snapshots,
            *self.layers.values(),
            *self.learn.values(),
            *self.held_out.values(),
            *(cell.selection for cell in self.cells),
            *(reference.inputs["selection"] for reference in self.references.values()),
            *self.references.values(),
            *(cell.features for cell in self.cells),
            *(cell.evaluation for cell in self.cells),
            *self.galleries.values(),
            *(spec for found in self.decomposed for spec in found.stages),
            *(spec for trace in self.traces for spec in trace.stages),
        ]
        return tuple({spec.path: spec for spec in chain}.values())

    def answers(self) -> Answers:
        """Return what the report is made from."""
        return Answers(
            self.config, self.stages, self.trainings, self.cells, self.galleries, self.decomposed, self.traces
        )


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
        layers, traces = dict(_layers(config, manifests, trainings)), make_traces(config, manifests, trainings)
        decomposed = make_decompositions(config, manifests, trainings)
        if asked is None:
            return Plan(config, manifests, trainings, {}, {}, (), {}, {}, layers, decomposed, traces)
        check_methods(asked)
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
    return Plan(config, manifests, trainings, learn, held_out, cells, references, galleries, layers, decomposed, traces)


def network_names(plan: Plan) -> dict[str, str]:
    """Return the network's name by the path of its training and activations stages."""
    single = {spec.path: name for found in (plan.learn, plan.held_out) for (name, _), spec in found.items()}
    single |= {spec.path: name for (name, _), spec in plan.trainings.items()}
    single |= {spec.path: found.network for found in plan.decomposed for spec in found.stages}
    single |= {spec.path: trace.network for trace in plan.all_traces for spec in trace.stages}
    return single | {spec.path: name for (name, _, _), spec in plan.layers.items()}


def _layers(
    config: Config, manifests: Mapping[str, StageSpec], trainings: Mapping[Setting, StageSpec]
) -> Iterator[tuple[tuple[str, int, str], StageSpec]]:
    """Yield the named layers that the config keeps, by (network, seed, split)."""
    if (asked := config.activations) is not None:
        settings = asked.model_dump(mode="json", include={"layers", "layout", "keep", "dtype"})
        for name, seed, split in product(asked.networks, config.seeds, asked.splits):
            manifest = manifests[config.data_of(name, "activations")]
            network, training = config.networks[name], trainings.get((name, seed))
            yield (name, seed, split), layers_spec(name, network, manifest, training, settings, split)


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
    manifest = manifests[config.data_of(name, "interpretation")]
    network, training = config.networks[name], trainings.get(setting)
    settings = asked.model_dump(include={"layer", "layout", "dtype"})
    return activations_spec(name, network, manifest, training, split=split, **settings)


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
        for selector in asked.selectors:  # cells go by rising budget, so the first is the least
            mine = (name, seed, interpreter, selector)
            cell = next(c for c in cells if (c.network, c.seed, c.interpreter, c.selector) == mine)
            columns[f"{selector} {100 * cell.budget:g} %"] = cell.features
        if title not in found:
            found[title] = gallery_spec(held_out[name, seed], columns, asked.gallery)
    return found
