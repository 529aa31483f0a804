"""A card: the answers of all questions about one image, each from its own question, joined by what they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from configs.load import ConfigError
from configs.schema import Config
from storage.specs import StageSpec
from storage.stores import Store
from tasks.report.cards.results import CardResults, Deciding, Holding
from tasks.steps.cards.choose import Chosen, Wanted, choose_network, choose_subject, warning_of
from tasks.steps.cards.missing import how_to_ask
from tasks.steps.cards.privacy import may_be_named, may_be_shown
from tasks.steps.common.layer_titles import layer_titles
from tasks.steps.common.question import Answer, Shared
from tasks.steps.common.subject import Look, Sample, Subject, Watch, class_names_of, class_title
from tasks.steps.questions import QUESTIONS

PARTS = {  # the field of the card by question
    "interpretation": "responding",
    "decomposition": "deciding",
    "concepts": "holding",
    "tracing": "taught",
}
NEAR = 1e-4  # relative difference of two means of one map


def make_card(
    store: Store,
    config: Config,
    plan: tuple[Shared, Mapping[str, Sequence[Answer]]],
    wanted: Wanted,
    watch: Watch = lambda segments, _: segments,
) -> CardResults:
    """Return all that a finished run knows of one image.

    Parameters
    ----------
    plan : the shared stages of the run, and its answers by question
    watch : yields the segments of an archive while they are read, with a title for a progress bar

    Raises
    ------
    ConfigError : no such image or network; or a training image that `report.training_images` keeps in the store
    """
    shared, answers = plan
    chosen = choose_network(store, config, shared, answers, wanted)
    subject = choose_subject(store, chosen, wanted)
    _check_named(config, shared, subject.sample)
    look = Look(store, config, subject, watch)
    parts: dict[str, Any] = {}  # Any: each question's own
    for question, answer in chosen.answers.items():
        card = QUESTIONS[question].card
        if card is not None and (part := card(look, answer)):
            parts[PARTS[question]] = part
    without = [question for question, part in PARTS.items() if part not in parts]
    found = replace(
        _bare(look, chosen, shared),
        **parts,
        missing={question: how_to_ask(look, chosen, question) for question in without},
        asked=tuple(name for name in answers if QUESTIONS[name].page is not None and answers[name]),
    )
    return replace(
        found, words=words_of_features(found.deciding, found.holding), titles=_titles(chosen.spec, found, subject)
    )


def _titles(spec: StageSpec, found: CardResults, subject: Subject) -> dict[str, str]:
    """Return what the layers that a card names are called."""
    maps = {} if found.holding is None else found.holding.maps
    layers = [*maps, *([] if found.taught is None else [found.taught.layer])]
    channels = {layer: int(values.shape[-1]) for layer, values in maps.items()}
    return layer_titles(spec, layers, len(subject.logits), channels) if layers else {}


def _check_named(config: Config, shared: Shared, sample: Sample | None) -> None:
    """Raise ConfigError for a training image that the report must not name."""
    if sample is not None and not may_be_named(config, shared, sample):
        raise ConfigError(
            f"--sample: with `report.training_images: none` expected an image that no network learned from, found "
            f"sample {sample.id} of split {sample.split!r}; choose one of another split"
        )


def _bare(look: Look, chosen: Chosen, shared: Shared) -> CardResults:
    """Return the image with the network's answer, without any question."""
    subject, sample = look.subject, look.subject.sample
    names = {} if chosen.classes is None else class_names_of(look.store, chosen.classes)
    order = np.argsort(-subject.logits, kind="stable")
    answers = pd.DataFrame(
        {
            "class_name": [class_title(names, label) for label in order.tolist()],
            "probability": subject.chances[order],
            "logit": subject.logits[order].astype(np.float64),
        }
    )
    shown = sample is None or may_be_shown(look.config, shared, sample)
    found = CardResults(
        run=look.config.name,
        network=chosen.name,
        seed=chosen.seed,
        title=_title(subject),
        image=subject.image if shown else None,
        given="" if sample is None or sample.label is None else class_title(names, sample.label),
        answers=answers,
        training_images=look.config.report.training_images,
        warning=warning_of(look.store, chosen),
    )
    if sample is None:
        return found
    return replace(found, sample_id=sample.id, key=sample.key, split=sample.split, data=sample.data)


def _title(subject: Subject) -> str:
    """Say what the image is."""
    sample = subject.sample
    if sample is None:
        return subject.said
    return f"sample {sample.id} of data set {sample.data}, split {sample.split}, key {sample.key}"


def words_of_features(deciding: Deciding | None, holding: Holding | None) -> pd.DataFrame:
    """Return the words of the head's features, from the neurons of the layer that gives them.

    Returns
    -------
    feature, layer, neuron, detector, word, similarity, interpretable: a row per feature and detector. Without a layer
    of question 3 whose maps give the head's inputs there are none.
    """
    columns = ["feature", "layer", "neuron", "detector", "word", "similarity", "interpretable"]
    if deciding is None or holding is None:
        return pd.DataFrame(columns=columns)
    for layer, maps in reversed(list(holding.maps.items())):
        neurons = neurons_of_features(deciding.values, maps)
        if neurons is not None:
            features = pd.DataFrame({"feature": np.arange(len(neurons)), "neuron": neurons})
            return holding.words[holding.words["layer"] == layer].merge(features, on="neuron")[columns]
    return pd.DataFrame(columns=columns)


def neurons_of_features(values: np.ndarray, maps: np.ndarray) -> np.ndarray | None:
    """Return the neuron of a layer that each input of the head comes from, (d,); None where they are others.

    Parameters
    ----------
    values : (d,) what the head takes
    maps : (h, w, K) what the layer answers to the same image

    Notes
    -----
    The head may take the means or the maxima of the channels, all values of the map, channel by channel, or the first
    token.
    """
    neurons = np.arange(maps.shape[-1])
    flat = maps.reshape(-1, maps.shape[-1])
    pooled = (
        (flat.mean(axis=0), neurons),
        (flat.max(axis=0), neurons),
        (flat.T.ravel(), neurons.repeat(len(flat))),
        (flat[0], neurons),
    )
    for found, of_neurons in pooled:
        if found.shape == values.shape and values.any() and np.allclose(found, values, rtol=NEAR, atol=1e-6):
            return of_neurons
    return None
