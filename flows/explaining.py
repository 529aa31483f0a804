"""Explanations from the command line: from finished stages where a run has them, else from its archives."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from pydantic import ValidationError

from configs.load import ConfigError, config_of_text
from configs.schema import Config
from configs.section import check_distinct
from configs.tracing import Tracing
from flows.plan import Plan, make_plan
from storage.runs import RunRecord, choose_run, records, run_names
from storage.specs import StageSpec
from storage.stages import find_finished
from storage.stores import Store, StoreError
from storage.updates.facts import archive_states
from tasks.steps.common.subject import Watch
from tasks.steps.tracing.bare import BareRequest, explain_archive
from tasks.steps.tracing.explain import Explanation, explanations, of_network
from tasks.steps.tracing.ondemand import NotHereError, Recorded, Request, explain_now, from_archive
from tasks.steps.tracing.preview import preview_now


@dataclass(frozen=True)
class Bare:
    """What a user says of the archive of a loop that has no config."""

    model: str | None = None
    inputs: str | None = None
    program: str | None = None

    @property
    def given(self) -> bool:
        """Whether the user says anything."""
        return self != Bare()


@dataclass(frozen=True)
class Asked:
    """What a user asks to explain: one of a query of the run, a sample and an image file.

    Raises
    ------
    ConfigError : none of them, or several; a layer with units
    """

    query: int | None
    sample: str | None
    image: str | None
    layer: str | None
    units: tuple[str, ...]
    count: int
    preview: bool = False
    bare: Bare = Bare()
    network: str | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        if self.bare.given:
            self._check_bare()
            return
        given = [f"--{name}" for name in ("query", "sample", "image") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ConfigError(f"explain: expected one of --query, --sample and --image, found {found}")
        if self.layer is not None and self.units:
            raise ConfigError("--layer: expected no --unit with it, found both; leave one out")
        try:
            check_distinct("--unit", self.units)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.preview and self.units:
            raise ConfigError("--preview: expected no --unit with it, whose directions have no index; leave one out")

    def _check_bare(self) -> None:
        """Raise ConfigError unless an archive without a config can be asked."""
        if self.bare.model is None or self.bare.inputs is None:
            raise ConfigError("explain: expected --model and --inputs together, found one of them; give both")
        others = {
            **{name: getattr(self, name) is not None for name in ("sample", "image", "network", "run")},
            **{"unit": bool(self.units), "preview": self.preview},
        }
        if given := [f"--{name}" for name, stated in others.items() if stated]:
            raise ConfigError(
                f"explain: expected --query alone with --model, found {' and '.join(given)}; leave it out"
            )


def explained(store: Store, asked: Asked, watch: Watch) -> Iterator[Explanation]:
    """Yield the explanations of all networks and seeds of a run, or that of the archive of a loop.

    Parameters
    ----------
    asked : its `run` is None for the only run with tracing, else for the only one
    watch : yields the segments of an archive while they are read, with a title for a progress bar

    Raises
    ------
    ConfigError : a layer, unit, sample or file that cannot be used; a config that this version does not take. Networks
        without a layer or sample that others of the run have are left out
    StoreError : the run has neither a tracing nor a finished recording
    """
    bare = asked.bare
    if bare.model is not None and bare.inputs is not None:
        alone = BareRequest(bare.model, bare.inputs, asked.query or 0, bare.program, asked.layer, asked.count)
        yield explain_archive(store.url, alone, watch)
        return
    if asked.run is None and not run_names(store) and archive_states(store):
        raise ConfigError(
            "explain: expected --model and --inputs for the archive of a loop, found neither; give both, or trace it "
            "in a config: networks.NAME.updates"
        )
    record = records(store, choose_run(store, asked.run, "influence"))[-1]
    if asked.query is not None and not asked.units and not asked.preview:
        yield from explanations(store, record, asked.query, asked.layer, asked.network)
        return
    config = recorded_config(record)
    plan = make_plan(config)
    trainings = list(_trainings(store, plan))
    if not trainings:
        raise StoreError(
            f"run {record.name}: expected a finished training with `record`, found none; `layerlore run` a config first"
        )
    settings = config.tracing or Tracing(networks=tuple(dict.fromkeys(str(t.spec.place["network"]) for t in trainings)))
    missing, answered = None, False
    labels = [training.spec.label for training in trainings]
    for training in itertools.compress(trainings, of_network(labels, asked.network)):
        request = Request(
            sample=_sample(store, plan, training, asked),
            image=asked.image,
            layer=asked.layer,
            units=asked.units,
            count=asked.count,
        )
        try:
            if asked.preview:
                found = preview_now(store, training, settings, request, _index(store, plan, training.spec))
            else:
                found = explain_now(store, training, settings, request, partial(from_archive, watch=watch))
                found = replace(found, title=f"{found.title}, from its archive")
        except NotHereError as error:
            missing = missing or error
            continue
        answered = True
        yield found
    if missing is not None and not answered:
        raise missing


def recorded_config(record: RunRecord) -> Config:
    """Return the config of a run's record, in the order of its file where the record has it."""
    text = record.document.get("config_text")
    if isinstance(text, str):
        return config_of_text(text, f"run {record.name}")
    try:
        return Config.model_validate(record.document.get("config"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"run {record.name}: expected a config of this version in its record, found {key}: {first['msg']}; "
            "`layerlore run` its config again"
        ) from None


def _trainings(store: Store, plan: Plan) -> Iterator[Recorded]:
    """Yield the finished recorded trainings of a plan, those of question 4 where it asks that."""
    config = plan.config
    for spec in dict.fromkeys(plan.shared.trainings.values()):  # one trained elsewhere stands there for each seed
        network = config.networks[name := str(spec.place["network"])]
        asked = config.tracing is None or name in config.tracing.networks
        recorded = network.updates is not None or (network.train is not None and network.train.record is not None)
        if asked and recorded and find_finished(store, spec.path):
            data = None if config.tracing is None else config.tracing.queries.data
            yield Recorded(spec, network, spec.inputs["data"] if data is None else plan.shared.manifests[data])


def _index(store: Store, plan: Plan, training: StageSpec) -> tuple[StageSpec, StageSpec | None]:
    """Return the finished index of a training, and its aggregate where the config has one."""
    for trace in plan.answers.get("tracing", ()):
        if trace.training == training and trace.index is not None and find_finished(store, trace.index.path):
            return trace.index, trace.aggregate
    raise ConfigError(
        f"--preview: expected a finished index of {training.label}, found none; set "
        "`tracing.derive: {index: {}}` and run the config, or leave --preview out"
    )


def _sample(store: Store, plan: Plan, training: Recorded, asked: Asked) -> int | str | None:
    """Return the sample to explain: an id or a key; that of a query comes from the finished queries of the training."""
    if asked.query is None:
        return int(asked.sample) if asked.sample is not None and asked.sample.isdecimal() else asked.sample
    for trace in plan.answers.get("tracing", ()):
        queries = find_finished(store, trace.queries.path) if trace.training == training.spec else None
        if queries is not None:
            ids = queries.read("sample_id")
            if asked.query >= len(ids):
                raise StoreError(f"query: expected 0 to {len(ids) - 1} of {training.spec.label}, found {asked.query}")
            return int(ids[asked.query])
    raise StoreError("query: expected the finished queries of a tracing, found none; name a sample by --sample")
