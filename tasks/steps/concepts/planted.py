"""The planted stage: how often a detector names the label of neurons that are made to follow that label.

The activation of a planted neuron on an image is the share of the pixels that its label covers, or 1 in images of its
class, with noise. The same neurons with exchanged images are the null.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.concepts import LABELS, Concepts
from storage.documents import Document, Json
from storage.layouts import Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.concepts.annotations import check_label_maps
from tasks.steps.concepts.concept_side import STREAM_BYTES, count_words, open_side, scores_of
from tasks.steps.concepts.detector import Detector, Probed
from tasks.steps.concepts.network_dissection import check_choices, dissection_settings
from tasks.steps.concepts.planted_captions import planted_captions_spec
from tasks.steps.concepts.planted_maps import GRID, MAX_IMAGES, dissect_planted
from tasks.steps.concepts.thresholds import check_share
from tasks.steps.concepts.truth import Named, planted_shares, planted_summary, true_coverage

VERSION = 1
NOISE = 0.1  # of the standard deviation of a planted neuron's activations
FILE = "planted.parquet"


def planted_spec(
    name: str,
    detector: Detector,
    manifest: StageSpec,
    asked: Concepts,
    probed: Probed,
    settings: Mapping[str, Json],
) -> StageSpec | None:
    """Return the spec of what a detector finds for planted neurons.

    Parameters
    ----------
    name : of the detector
    settings : its parameters

    Returns
    -------
    None where the words are not the labels of the probing set: the true word of a neuron is then unknown
    """
    if probed.words.place["words"] != LABELS:
        return None
    split = {"split": asked.probe.split, "noise": NOISE, "seed": asked.seed}
    if detector.source == "regions":
        return planted_captions_spec(probed, settings, split)
    own = dict(settings) if detector.needs_scores else dissection_settings(settings)
    own.pop("maps", None)  # of a network's layer
    common = {"detector": name, **split}
    inputs = {"data": manifest} | ({} if probed.side is None else {"side": probed.side})
    return PLANTED.spec({**common, "settings": own}, inputs, label=f"{manifest.label} {name}")


def read_planted(store: Store, spec: StageSpec) -> Document:
    """Return the shares of planted neurons with the true word among the best: top1, top5, null_top1, null_top5, n."""
    found: Document = open_finished(store, spec).summary
    return found


def read_ranks(store: Store, spec: StageSpec) -> pd.DataFrame:
    """Return neuron, word, rank and null_rank of a finished stage; rank 0 is the most similar word."""
    finished = open_finished(store, spec)
    return read_table(finished.read_file(FILE), f"{finished.path}/files/{FILE}")


def ranks(similarity: NDArray[np.floating], word: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many other words are at least as similar to each neuron as its true word, (L,).

    Parameters
    ----------
    similarity : (L, S)
    word : (L,) index of the true word
    """
    true = np.take_along_axis(similarity, word[:, None], axis=1)
    found: NDArray[np.int64] = (similarity >= true).sum(axis=1, dtype=np.int64) - 1
    return found


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Plant neurons, let the detector name them, and rank their true words."""
    stage, spec = work.stage, work.stage.spec
    named = (_by_scores if "side" in spec.inputs else dissect_planted)(stage.store, spec)
    found = {"rank": ranks(named.similarity, named.word), "null_rank": ranks(named.null, named.word)}
    table = pd.DataFrame({"neuron": np.arange(len(named.word)), "word": list(named.names), **found})
    with stage.partition(number) as part:
        part.write_file(FILE, table_bytes(table))
        part.numbers.update(measured(**planted_shares(table)))


def _by_scores(store: Store, spec: StageSpec) -> Named:
    """Return planted neurons as a detector names them by the cosines of images and words."""
    import torch

    from tasks.concepts.nulls import permuted_activations
    from tasks.concepts.planted import planted_activations
    from tasks.detectors.streaming import STREAMS

    torch.set_num_threads(1)
    truth, scores, seed = true_coverage(store, spec), open_finished(store, spec.inputs["side"]), spec.parameters["seed"]
    side, settings, make = open_side(scores), spec.parameters["settings"], STREAMS[spec.parameters["detector"]]
    if not truth.names:  # all images have the same labels
        nothing = np.zeros((0, side.n_words))
        return Named(truth.word, truth.names, nothing, nothing)
    activations = planted_activations(truth.coverage, float(spec.parameters["noise"]), int(seed))
    found, null = (make(each, side, **settings) for each in (activations, permuted_activations(activations, int(seed))))
    for start, chunk in scores_of(scores):
        for stream in (found, null):
            stream.update(start, chunk)
    return Named(truth.word, truth.names, np.asarray(found.similarity()), np.asarray(null.similarity()))


def _size(spec: StageSpec, survey: Survey) -> Size:
    n = survey.data(spec.inputs["data"]).count(spec.parameters["split"])
    if "side" not in spec.inputs:
        check_choices(spec.parameters["settings"])
        check_share(spec.parameters["settings"]["quantile"])
        vocabulary, shape = check_label_maps(spec, survey)
        labels = len(vocabulary.names)
        counts = 4 * 8 * labels * (labels + len(vocabulary.categories))
        maps = GRID * GRID * (32 * 6 * 4 * labels + 4 * 16 * min(n, MAX_IMAGES))
        return Size(40 * labels, counts + maps + 32 * 4 * 4 * int(np.prod(shape)) + labels * int(np.prod(shape[1:])))
    n_words = count_words(spec.inputs["side"].inputs["words"], survey)
    return Size(40 * n_words, 10 * 8 * n_words * n_words + 8 * 8 * n * n_words + STREAM_BYTES)


PLANTED = Step("planted", VERSION, _layout, _partition, _size, summary=planted_summary)
