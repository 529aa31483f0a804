"""The milan stage: captions of the neurons of a layer, from the features of their regions (Hernandez et al. 2022).

The null exchanges the regions of all live neurons at random, and describes what each neuron then has.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.concepts.captioner import CAPTIONER, open_captioner
from tasks.steps.concepts.detector import Detected, Detector, Probed
from tasks.steps.concepts.encoder import count_features
from tasks.steps.concepts.regions import REGIONS, regions_spec
from tasks.steps.concepts.responses import layer_sizes

VERSION = 2  # every caption ends with its stop
KEY = "concepts.detectors.milan"
NEURONS = 64  # of a partition
BATCH = 16  # neurons of one search
BEST = 5  # captions kept of each neuron
NEVER = -1e6  # similarity of a neuron and a caption of other neurons; below every score
NOTHING = "(nothing)"  # in place of a caption without words
DEFAULTS: Document = {"beam": 50, "lam": 0.2, "length": 15}


class Captions(NamedTuple):
    """The captions of a layer's neurons.

    Attributes
    ----------
    texts : all different captions, in alphabetical order
    number : (K, BEST) int64, the captions of each neuron, best first
    scores : (K, BEST) float32, their scores; -inf where there are fewer captions
    """

    texts: tuple[str, ...]
    number: NDArray[np.int64]
    scores: NDArray[np.float32]


def milan_settings(parameters: Mapping[str, Json]) -> Document:
    """Return the parameters of MILAN with their defaults.

    `beam` is the number of captions that the search keeps. `lam` is the weight of the language model in their order.
    `length` is the number of words of a caption at most.

    Raises
    ------
    ValueError : an unknown parameter, or a value that cannot be; names the config's key
    """
    for name, value in parameters.items():
        if name not in DEFAULTS:
            raise ValueError(f"{KEY}.{name}: unknown parameter; known: {', '.join(DEFAULTS)}, temperature, tau")
        whole, lowest = name != "lam", {"beam": BEST, "length": 1, "lam": 0}[name]
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value >= lowest:
            kind = "a whole number" if whole else "a number"
            raise ValueError(f"{KEY}.{name}: expected {kind} from {lowest}, found {value!r}")
    return {**DEFAULTS, **parameters}


@lru_cache(maxsize=8)
def read_captions(store: Store, spec: StageSpec) -> Captions:
    """Return the captions of a finished stage, which this process caches."""
    finished = open_finished(store, spec)
    texts = caption_texts(store, spec, finished.read("tokens").astype(np.int32, copy=False))
    names = tuple(sorted({text for each in texts for text in each}))
    number = {name: i for i, name in enumerate(names)}
    index = np.array([[number[text] for text in each] for each in texts], np.int64)
    return Captions(names, index, finished.read("score").astype(np.float32, copy=False))


def caption_texts(store: Store, spec: StageSpec, tokens: NDArray[np.int32]) -> list[list[str]]:
    """Return the captions (K, BEST) of tokens (K, BEST, length) by the captioner of a stage."""
    _, words = open_captioner(store, spec.inputs["captioner"])
    return [[words.text(row) or NOTHING for row in each] for each in tokens.tolist()]


def exchanged(features: NDArray[np.float32], dead: NDArray[np.bool_], seed: int) -> NDArray[np.float32]:
    """Return the features (K, n, features) with the regions of live neurons exchanged at random."""
    alive = np.flatnonzero(~dead)
    order = np.random.default_rng(seed).permutation(len(alive) * features.shape[1])
    found = features.copy()
    found[alive] = features[alive].reshape(-1, features.shape[2])[order].reshape(len(alive), *features.shape[1:])
    return found


def _plan(responses: StageSpec, probed: Probed, layer: str, parameters: Mapping[str, Json], seed: int) -> StageSpec:
    """Return the spec of the captions of a layer's neurons."""
    assert probed.captioner is not None
    kept = {"layer": layer, "seed": seed, **milan_settings(parameters)}
    inputs = {"responses": responses, "captioner": probed.captioner}
    inputs["regions"] = regions_spec(responses, probed.captioner, layer)
    return MILAN.spec(kept, inputs, label=f"{responses.label} milan")


def _read(store: Store, spec: StageSpec) -> Detected:
    """Return the scores of a finished stage's captions; those of other neurons are below all scores."""
    found, finished = read_captions(store, spec), open_finished(store, spec)
    similarity = np.full((len(found.number), len(found.texts)), NEVER, np.float32)
    rows = np.arange(len(similarity))
    for rank in reversed(range(found.number.shape[1])):  # of equal texts the better one stays
        known = np.isfinite(found.scores[:, rank])
        similarity[rows[known], found.number[known, rank]] = found.scores[known, rank]
    dead = finished.read("dead").astype(np.bool_, copy=False)
    similarity[dead] = 0
    return Detected(similarity, finished.read("null_best").astype(np.float32, copy=False), dead)


def _layout(store: Store, spec: StageSpec) -> Layout:
    neurons = open_finished(store, spec.inputs["regions"]).layout.arrays["dead"].shape[0]
    return _planned(neurons, int(spec.parameters["length"]))


def _planned(neurons: int, length: int) -> Layout:
    """Return the layout for K neurons with captions of `length` tokens."""
    rows = min(NEURONS, neurons)
    arrays = {
        "tokens": ArrayLayout((neurons, BEST, length), "int32", ("neuron", "rank", "token"), rows, rows),
        "score": ArrayLayout((neurons, BEST), "float32", ("neuron", "rank"), rows, rows),
        "null_best": ArrayLayout((neurons,), "float32", ("neuron",), rows, rows),
        "dead": ArrayLayout((neurons,), "bool", ("neuron",), rows, rows),
    }
    return Layout(-(-neurons // rows), arrays)


def _partition(work: Work, number: int) -> None:
    """Describe a range of neurons, and the same number of neurons with exchanged regions."""
    import torch

    torch.set_num_threads(1)
    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    regions = open_finished(store, spec.inputs["regions"])
    features, dead = regions.read("features").astype(np.float32, copy=False), regions.read("dead").astype(np.bool_)
    start, stop = stage.layout.arrays["dead"].span(number)
    null = exchanged(features, dead, int(spec.parameters["seed"]))[start:stop]
    tokens, score = describe_neurons(store, spec, features[start:stop], dead[start:stop])
    _, null_score = describe_neurons(store, spec, null, dead[start:stop])
    with stage.partition(number) as part:
        part.write("tokens", tokens)
        part.write("score", score)
        part.write("null_best", np.ascontiguousarray(null_score[:, 0]))
        part.write("dead", dead[start:stop])
        part.numbers.update(measured(neurons=stop - start))


def describe_neurons(
    store: Store, spec: StageSpec, features: NDArray[np.float32], dead: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return tokens (k, BEST, length) and scores (k, BEST) of neurons; dead ones have no words and the score 0."""
    import torch

    from tasks.detectors.captioning import Search, caption_regions

    model, _ = open_captioner(store, spec.inputs["captioner"])
    settings = spec.parameters
    search = Search(int(settings["beam"]), float(settings["lam"]), int(settings["length"]))
    tokens = np.full((len(features), BEST, search.length), model.start + 1, np.int32)
    score = np.zeros((len(features), BEST), np.float32)
    alive = np.flatnonzero(~dead)
    for first in range(0, len(alive), BATCH):
        rows = alive[first : first + BATCH]
        found, scores = caption_regions(model, torch.from_numpy(features[rows]), search, BEST)
        tokens[rows], score[rows] = found.numpy(), scores.numpy()
    return tokens, score


def _summary(stage: Stage) -> dict[str, Json]:
    return {"neurons": stage.layout.arrays["dead"].shape[0]}


def search_bytes(settings: Mapping[str, Json], exemplars: int, features: int) -> int:
    """Return the memory of a search for neurons of some exemplars with features of this length."""
    hidden, tokens = 512, 10_000
    return 4 * BATCH * int(settings["beam"]) * (2 * exemplars * (features + hidden) + 16 * hidden + 3 * tokens)


def count_neurons(spec: StageSpec, survey: Survey) -> int:
    """Return the number of neurons of a planned stage."""
    return layer_sizes(spec.inputs["responses"], survey)[str(spec.parameters["layer"])].n_channels


def _size(spec: StageSpec, survey: Survey) -> Size:
    settings, regions = spec.parameters, spec.inputs["regions"]
    neurons, width = count_neurons(spec, survey), count_features(regions, survey)
    features = 4 * neurons * int(regions.parameters["exemplars"]) * width
    search = search_bytes(settings, int(regions.parameters["exemplars"]), width)
    return Size(_planned(neurons, int(settings["length"])).n_bytes, 3 * features + search)


MILAN = Step("milan", VERSION, _layout, _partition, _size, summary=_summary)
MILAN_DETECTOR = Detector((CAPTIONER, REGIONS, MILAN), _plan, _read, "regions")
