"""The planted-captions stage: how often captions name the label of neurons that are made to follow that label.

The exemplars of a planted neuron are the images that its label covers most, with noise, and its regions are where the
label is; images without label maps are regions as a whole. The same neurons with exchanged regions are the null.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import Layout
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.io.annotations import Annotated
from tasks.io.sources import open_source
from tasks.steps.common.activations import MAX_BATCH, batch_size, first_input
from tasks.steps.common.manifest import data_of
from tasks.steps.common.networks import choose_device
from tasks.steps.common.samples import read_positions
from tasks.steps.concepts.annotations import LabelMaps
from tasks.steps.concepts.detector import Probed
from tasks.steps.concepts.encoder import Encoder, count_features, encoder_bytes, encoder_identity
from tasks.steps.concepts.milan import (
    BEST,
    caption_texts,
    describe_neurons,
    exchanged,
    milan_settings,
    search_bytes,
)
from tasks.steps.concepts.regions import top_positions
from tasks.steps.concepts.truth import Truth, planted_shares, planted_summary, true_coverage
from tasks.steps.concepts.words import count_words

VERSION = 2  # every caption ends with its stop
FILE = "planted.parquet"
COLUMNS = ["neuron", "word", "rank", "caption", "null_rank", "null_caption"]

Floats = NDArray[np.float32]


def planted_captions_spec(probed: Probed, settings: Mapping[str, Json], common: Document) -> StageSpec:
    """Return the spec of what a captioner says of planted neurons.

    Parameters
    ----------
    probed : the captioner that describes their regions, and the words, labels of the probing set
    settings : of detector milan
    common : split, noise and seed
    """
    captioner = probed.captioner
    assert captioner is not None
    parameters, place, digests, inputs = encoder_identity(captioner)
    own = {**common, **milan_settings(settings), "exemplars": captioner.parameters["exemplars"]}
    inputs |= {"captioner": captioner, "words": probed.words}
    label = f"{inputs['data'].label} milan"
    return PLANTED_CAPTIONS.spec({**parameters, **own}, inputs, digests=digests, place=place, label=label)


def caption_ranks(captions: Sequence[Sequence[str]], names: Sequence[str]) -> NDArray[np.int64]:
    """Return the rank of the first caption of each neuron with its name, BEST without one, (L,).

    Parameters
    ----------
    captions : of each neuron, best first
    names : of each neuron, one word or several that follow each other
    """
    from tasks.detectors.caption_words import words_of

    def holds(caption: str, name: str) -> bool:
        return f" {' '.join(words_of(name))} " in f" {' '.join(words_of(caption))} "

    ranks = [
        next((rank for rank, text in enumerate(texts) if holds(text, name)), BEST)
        for texts, name in zip(captions, names, strict=True)
    ]
    return np.array(ranks, np.int64)


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Plant neurons, describe them, and rank the captions that name their labels."""
    truth = true_coverage(work.stage.store, work.stage.spec)
    table = _described(work, truth) if truth.names else pd.DataFrame({name: [] for name in COLUMNS})
    with work.stage.partition(number) as part:
        part.write_file(FILE, table_bytes(table))
        part.numbers.update(measured(**planted_shares(table)))


def _described(work: Work, truth: Truth) -> pd.DataFrame:
    """Return the captions of planted neurons, one or more, and of the null, and the rank of those with the label."""
    import torch

    from tasks.concepts.planted import planted_activations

    torch.set_num_threads(1)
    spec, store = work.stage.spec, work.stage.store
    seed = int(spec.parameters["seed"])
    activations = planted_activations(truth.coverage, float(spec.parameters["noise"]), seed)
    top = top_positions(activations, int(spec.parameters["exemplars"]))
    features = _features(work, truth, top)
    alive = np.zeros(len(features), np.bool_)
    found: dict[str, NDArray[np.int64] | list[str]] = {}
    for name, given in (("", features), ("null_", exchanged(features, alive, seed))):
        captions = caption_texts(store, spec, describe_neurons(store, spec, given, alive)[0])
        found |= {f"{name}rank": caption_ranks(captions, truth.names), f"{name}caption": [each[0] for each in captions]}
    return pd.DataFrame({"neuron": np.arange(len(features)), "word": list(truth.names), **found}, columns=COLUMNS)


def _features(work: Work, truth: Truth, top: NDArray[np.int64]) -> Floats:
    """Return the features (L, n, features) of the regions of planted neurons."""
    spec, store = work.stage.spec, work.stage.store
    manifest, split = spec.inputs["data"], spec.parameters["split"]
    maps = LabelMaps(store, manifest, split) if isinstance(open_source(data_of(manifest)), Annotated) else None
    encoder, at = Encoder(store, spec, choose_device(work.device)), np.unique(top)
    size = batch_size(tuple(first_input(store, spec).shape[1:]))
    found: dict[tuple[int, int], Floats] = {}
    for start in range(0, len(at), size):
        here = at[start : start + size]
        inputs = read_positions(store, spec, split, here)
        neurons = [np.flatnonzero((top == position).any(axis=1)) for position in here]
        planes = None if maps is None else maps.read(here)
        masks = [
            np.ones((len(each), *inputs.shape[2:]), np.float32)
            if planes is None
            else np.stack([(planes[i] == number).any(axis=0) for number in truth.label[each]]).astype(np.float32)
            for i, each in enumerate(neurons)
        ]
        for position, each, rows in zip(here.tolist(), neurons, encoder.of_inputs(inputs, masks), strict=True):
            found |= {(int(neuron), position): row for neuron, row in zip(each, rows, strict=True)}
    return np.stack([[found[neuron, int(position)] for position in row] for neuron, row in enumerate(top)])


def _size(spec: StageSpec, survey: Survey) -> Size:
    n = survey.data(spec.inputs["data"]).count(spec.parameters["split"])
    labels = count_words(spec.inputs["words"], survey)
    width, exemplars = count_features(spec, survey), min(n, int(spec.parameters["exemplars"]))
    features = 4 * labels * exemplars * width
    shares = 4 * 4 * n * labels
    search = search_bytes(spec.parameters, exemplars, width)
    return Size(256 * labels, 4 * features + shares + search + encoder_bytes(spec, survey, MAX_BATCH))


PLANTED_CAPTIONS = Step("planted-captions", VERSION, _layout, _partition, _size, summary=planted_summary, network=True)
