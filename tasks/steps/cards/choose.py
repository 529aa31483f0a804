"""Which image, of which network, a card is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from configs.asked import OnSplits
from configs.load import ConfigError
from configs.schema import Config
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.common.activations import activations_spec, batches_of, first_input
from tasks.steps.common.manifest import positions
from tasks.steps.common.question import Answer, Shared
from tasks.steps.common.subject import Sample, Subject, answers_to, file_subject, find_sample, sample_subject

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOINED = ("interpretation", "decomposition", "concepts", "tracing")
ON_SPLITS = ("interpretation", "decomposition")


@dataclass(frozen=True)
class Wanted:
    """What a user asks a card of: one of a sample, an image file, and the N-th wrong answer.

    Attributes
    ----------
    sample : id or key
    image : path or URL of a file
    wrong : number of a wrong answer on held-out images, from 1, the surest first
    network, seed, data : names in the config; None for the first that fits

    Raises
    ------
    ConfigError : none of the three, or several; a number below 1
    """

    sample: str | None = None
    image: str | None = None
    wrong: int | None = None
    network: str | None = None
    seed: int | None = None
    data: str | None = None

    def __post_init__(self) -> None:
        given = [f"--{name}" for name in ("sample", "image", "wrong") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ConfigError(f"card: expected one of --sample, --image and --wrong, found {found}")
        if self.wrong is not None and self.wrong < 1:
            raise ConfigError(f"--wrong: expected a number from 1 on, found {self.wrong}")


@dataclass(frozen=True)
class Chosen:
    """One network and seed of a run, with its answers by question.

    Attributes
    ----------
    spec : a stage with the network on the data set of the image, of which only the identity counts
    manifest : the data set of the image
    split : the held-out split of the network
    """

    name: str
    seed: int
    spec: StageSpec
    manifest: StageSpec
    split: str
    answers: Mapping[str, Any]  # Any: answers of the question's own class


def choose_network(
    store: Store, config: Config, shared: Shared, answers: Mapping[str, Sequence[Answer]], wanted: Wanted
) -> Chosen:
    """Return the network that a card is about: the one that is asked of, else the one with most questions.

    Raises
    ------
    ConfigError : a network, seed or data set that the config does not have
    """
    name = _known("--network", wanted.network, config.networks) or _most_asked(config)
    if wanted.seed is not None and wanted.seed not in config.seeds:
        known = ", ".join(map(str, config.seeds))
        raise ConfigError(f"--seed: expected one of {known}, found {wanted.seed}")
    seed = config.seeds[0] if wanted.seed is None else wanted.seed
    data = _known("--data", wanted.data, config.data) or data_of(config, name)
    manifest, training = shared.manifests[data], shared.trainings.get((name, seed))
    split = _held_out(store, config, name, manifest)
    spec = activations_spec(
        name, config.networks[name], manifest, training, layer="last-map", split=split, dtype="float32"
    )
    own = {question: _answer(answers.get(question, ()), name, seed) for question in JOINED}
    return Chosen(name, seed, spec, manifest, split, {key: found for key, found in own.items() if found is not None})


def choose_subject(store: Store, chosen: Chosen, wanted: Wanted) -> Subject:
    """Return the image that is asked about, as the network takes it.

    Raises
    ------
    ConfigError : no such sample, no such file, or fewer wrong answers
    """
    if wanted.image is not None:
        return file_subject(store, chosen.spec, chosen.manifest, wanted.image)
    if wanted.sample is not None:
        return sample_subject(store, chosen.spec, find_sample(store, chosen.manifest, wanted.sample))
    assert wanted.wrong is not None
    return sample_subject(store, chosen.spec, wrong_sample(store, chosen, wanted.wrong))


def data_of(config: Config, name: str) -> str:
    """Return the data set of a network's images: of its training, of a question on splits, else the first."""
    if (learned := config.learned(name)) is not None:
        return learned[0]
    for section in ON_SPLITS:
        asked = config.asked.get(section)
        if asked is not None and name in asked.networks:
            return config.data_of(name, section)
    return next(iter(config.data))


def wrong_sample(store: Store, chosen: Chosen, number: int) -> Sample:
    """Return the N-th held-out sample with a wrong answer, the surest answer first."""
    rows = positions(store, chosen.manifest.path, chosen.split)
    logits, labels = held_out_logits(store, chosen).astype(np.float64), rows["label_given"].to_numpy(np.int64)
    largest = logits.max(axis=1)
    surest = 1 / np.exp(logits - largest[:, None]).sum(axis=1)
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    ordered = wrong[np.argsort(-surest[wrong], kind="stable")]
    if number > len(ordered):
        raise ConfigError(
            f"--wrong: expected 1 to {len(ordered)}, the wrong answers of {chosen.name} on split {chosen.split!r} of "
            f"data.{chosen.manifest.place['name']}, found {number}"
        )
    row = rows.iloc[int(ordered[number - 1])]
    return _sample(chosen, row)


def held_out_logits(store: Store, chosen: Chosen) -> NDArray[np.float32]:
    """Return the logits of the held-out split by position: of a question that has them, else by a forward pass."""
    for question, stage in (("interpretation", "held_out"), ("decomposition", "evaluate")):
        spec = getattr(chosen.answers.get(question), stage, None)
        same = spec is not None and spec.inputs["data"].path == chosen.manifest.path
        if spec is not None and same and spec.parameters["split"] == chosen.split:
            found: NDArray[np.float32] = open_finished(store, spec).read("logits").astype(np.float32, copy=False)
            return found
    keys = positions(store, chosen.manifest.path, chosen.split)["key"].tolist()
    shape = tuple(first_input(store, chosen.spec).shape[1:])
    return np.concatenate(
        [answers_to(store, chosen.spec, batch.inputs) for _, batch in batches_of(chosen.spec, keys, shape, "cpu")]
    )


def _sample(chosen: Chosen, row: pd.Series[Any]) -> Sample:  # Any: columns of a manifest
    """Return the sample of a row of the manifest."""
    return Sample(chosen.manifest, chosen.split, int(row["id"]), str(row["key"]), int(row["label_given"]))


def _known(option: str, asked: str | None, names: Mapping[str, object]) -> str | None:
    """Return a name after checking that the config has it."""
    if asked is not None and asked not in names:
        raise ConfigError(f"{option}: expected one of {', '.join(names)}, found {asked!r}")
    return asked


def _most_asked(config: Config) -> str:
    """Return the network that most questions are asked of, the first of equal ones."""
    asked = [section.networks for question, section in config.asked.items() if question in JOINED]
    return max(config.networks, key=lambda name: sum(name in networks for networks in asked))


def _answer(answers: Sequence[Answer], name: str, seed: int) -> Answer | None:
    """Return the answer for a network and seed; that of its only seed where it has one for all."""
    mine = [answer for answer in answers if answer.network == name]
    exact = [answer for answer in mine if answer.seed == seed]
    return next(iter(exact or (mine if len({answer.seed for answer in mine}) == 1 else [])), None)


def _held_out(store: Store, config: Config, name: str, manifest: StageSpec) -> str:
    """Return the split of a data set that a network is tested on."""
    train, there = config.networks[name].train, list(open_finished(store, manifest).summary["splits"])
    asked = [config.asked.get(section) for section in ON_SPLITS]
    wanted = [section.evaluate for section in asked if isinstance(section, OnSplits)]
    wanted += [] if config.tracing is None else [config.tracing.queries.split]
    wanted += [] if train is None else [train.evaluate]
    return next((split for split in wanted if split in there), there[-1])
