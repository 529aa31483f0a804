"""Which image, of which network, a card is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from configs.asked import OnSplits
from configs.load import ConfigError
from configs.schema import Config
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.report.cautions import at_chance
from tasks.steps.common.activations import activations_spec, batches_of, first_input
from tasks.steps.common.manifest import positions
from tasks.steps.common.question import Answer, Shared
from tasks.steps.common.standing import most_frequent
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
    classes : the data set whose classes are the network's outputs; None where none is known
    labelled : whether the labels of the image's data set are these classes
    """

    name: str
    seed: int
    spec: StageSpec
    manifest: StageSpec
    split: str
    answers: Mapping[str, Any]  # Any: answers of the question's own class
    classes: StageSpec | None
    labelled: bool


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
    own = data_of(config, name)
    data = _known("--data", wanted.data, config.data) or own or next(iter(config.data))
    manifest, training = shared.manifests[data], shared.trainings.get((name, seed))
    split = _held_out(store, config, name, data, manifest)
    spec = activations_spec(
        name, config.networks[name], manifest, training, layer="last-map", split=split, dtype="float32"
    )
    found = {question: _answer(answers.get(question, ()), name, seed) for question in JOINED}
    asked = {question: answer for question, answer in found.items() if answer is not None}
    classes = None if own is None else shared.manifests[own]
    labelled = classes is not None and same_classes(store, manifest, classes)
    return Chosen(name, seed, spec, manifest, split, asked, classes, labelled)


def choose_subject(store: Store, chosen: Chosen, wanted: Wanted) -> Subject:
    """Return the image that is asked about, as the network takes it.

    Raises
    ------
    ConfigError : no such sample, no such file, or fewer wrong answers
    """
    if wanted.image is not None:
        return file_subject(store, chosen.spec, chosen.manifest, wanted.image)
    if wanted.sample is not None:
        sample = find_sample(store, chosen.manifest, wanted.sample)
        return sample_subject(store, chosen.spec, sample if chosen.labelled else replace(sample, label=None))
    assert wanted.wrong is not None
    if not chosen.labelled:
        raise ConfigError(
            f"--wrong: expected a data set with the classes of {chosen.name}, found "
            f"data.{chosen.manifest.place['name']} with others; name one by --data, or take --sample"
        )
    return sample_subject(store, chosen.spec, wrong_sample(store, chosen, wanted.wrong))


def data_of(config: Config, name: str) -> str | None:
    """Return the data set of a network's images: of its training or of a question on splits; None without either."""
    if (learned := config.learned(name)) is not None:
        return learned[0]
    for section in ON_SPLITS:
        asked = config.asked.get(section)
        if asked is not None and name in asked.networks:
            return config.data_of(name, section)
    return None


def same_classes(store: Store, one: StageSpec, other: StageSpec) -> bool:
    """Say whether two data sets have the same classes: the same one, or equal names and labels within them."""
    if one.path == other.path:
        return True
    names, known = (open_finished(store, spec).summary["class_names"] for spec in (one, other))
    labels, ours = (
        {label for split in open_finished(store, spec).summary["splits"].values() for label in split["labels"]}
        for spec in (one, other)
    )
    return bool(names == known and labels <= ours)


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


def warning_of(store: Store, chosen: Chosen) -> str:
    """Warn of a network whose stored answers to held-out images are hardly better than the most frequent class."""
    spec = _stored_answers(chosen)
    if spec is None:
        return ""
    logits, labels = (open_finished(store, spec).read(name) for name in ("logits", "label"))
    right = float((logits.argmax(axis=1) == labels).mean())
    return at_chance(chosen.name, right, most_frequent(labels), len(labels))


def _stored_answers(chosen: Chosen) -> StageSpec | None:
    """Return a stage with the network's logits on the held-out split; None where no question has one."""
    for question, stage in (("interpretation", "held_out"), ("decomposition", "evaluate")):
        spec: StageSpec | None = getattr(chosen.answers.get(question), stage, None)
        same = spec is not None and spec.inputs["data"].path == chosen.manifest.path
        if spec is not None and same and spec.parameters["split"] == chosen.split:
            return spec
    return None


def held_out_logits(store: Store, chosen: Chosen) -> NDArray[np.float32]:
    """Return the logits of the held-out split by position: of a question that has them, else by a forward pass."""
    if (spec := _stored_answers(chosen)) is not None:
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


def _held_out(store: Store, config: Config, name: str, data: str, manifest: StageSpec) -> str:
    """Return the split of a data set that a network is tested on: first as what is about both of them says."""
    train, there = config.networks[name].train, list(open_finished(store, manifest).summary["splits"])
    wanted = []
    for question in ON_SPLITS:
        if isinstance(section := config.asked.get(question), OnSplits):
            about = name in section.networks and config.data_of(name, question) == data
            wanted.append((about, section.evaluate))
    if (tracing := config.tracing) is not None:
        learned = config.learned(name)
        about = name in tracing.networks and (tracing.queries.data or (learned and learned[0])) == data
        wanted.append((about, tracing.queries.split))
    if train is not None:
        wanted.append((train.data == data, train.evaluate))
    ordered = sorted(wanted, key=lambda one: not one[0])
    return next((split for _, split in ordered if split in there), there[-1])
