"""The clip-dissect stage: the similarity of each neuron of a layer and each word, by the words' cosines with images.

Oikarinen and Weng 2023. Cosines come in ranges of images from the concept-side stage. The null exchanges the images
of each neuron at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.activations import check_same_ids
from tasks.steps.concepts.concept_side import STREAM_BYTES, count_words, open_side, scores_of
from tasks.steps.concepts.detector import Detected, Detector, Probed
from tasks.steps.concepts.responses import count_images, layer_sizes, read_pooled

VERSION = 1
BLOCK = 2048  # words at a time of a similarity that keeps their cosines


def clip_dissect(name: str) -> Detector:
    """Return the detector of one similarity."""
    return Detector((CLIP_DISSECT,), partial(_plan, name), read_clip_dissect, "cosines")


def _check(similarity: str, **parameters: Any) -> None:  # Any: the similarity's own
    """Raise ValueError for a parameter that a similarity cannot take."""
    from tasks.detectors import check_similarity

    check_similarity(similarity, **parameters)


def _plan(
    name: str, responses: StageSpec, probed: Probed, layer: str, parameters: Mapping[str, Json], seed: int
) -> StageSpec:
    """Return the spec of the similarities of a layer's neurons."""
    assert probed.side is not None
    kept = {"similarity": name, "layer": layer, "seed": seed, "settings": dict(parameters)}
    label = f"{responses.label} {name}"
    return CLIP_DISSECT.spec(kept, {"responses": responses, "side": probed.side}, label=label)


def read_clip_dissect(store: Store, spec: StageSpec) -> Detected:
    """Return the similarities of a finished stage."""
    finished = open_finished(store, spec)
    return Detected(
        finished.read("similarity").astype(np.float32, copy=False),
        finished.read("null_best").astype(np.float32, copy=False),
        finished.read("dead").astype(np.bool_, copy=False),
    )


def _layout(store: Store, spec: StageSpec) -> Layout:
    n_neurons = int(open_finished(store, spec.inputs["responses"]).summary["sizes"][spec.parameters["layer"]][0])
    n_words = int(open_finished(store, spec.inputs["side"]).summary["words"])

    def array(dtype: str, *more: int) -> ArrayLayout:
        return ArrayLayout((n_neurons, *more), dtype, ("neuron", "word")[: 1 + len(more)], n_neurons, n_neurons)

    arrays = {"similarity": array("float32", n_words), "null_best": array("float32")}
    return Layout(1, arrays | {"dead": array("bool"), "few_positive": array("bool")})


def _partition(work: Work, number: int) -> None:
    """Compute the similarities and their null, in one pass over the cosines."""
    import torch

    from tasks.concepts.nulls import permuted_activations
    from tasks.detectors.activity import dead, few_positive
    from tasks.detectors.streaming import STREAMS

    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    responses, scores = (open_finished(store, spec.inputs[role]) for role in ("responses", "side"))
    check_same_ids(responses, scores)
    torch.set_num_threads(1)
    settings = _checked(spec)
    activations = read_pooled(responses, spec.parameters["layer"])
    shuffled, side = permuted_activations(activations, int(spec.parameters["seed"])), open_side(scores)
    found, null = [], []
    for block in _word_blocks(str(spec.parameters["similarity"]), side.n_words):
        make = partial(STREAMS[spec.parameters["similarity"]], side=side.block(block), **settings)
        streams = [make(activations=each) for each in (activations, shuffled)]
        for start, chunk in scores_of(scores):
            for stream in streams:
                stream.update(start, chunk[:, block])
        null.append(np.asarray(streams.pop().similarity(), np.float32).max(axis=1))
        found.append(np.asarray(streams.pop().similarity(), np.float32))
    with stage.partition(number) as part:
        part.write("similarity", np.concatenate(found, axis=1))
        part.write("null_best", np.max(null, axis=0))
        part.write("dead", np.asarray(dead(activations)))
        part.write("few_positive", np.asarray(few_positive(activations, settings.get("top_k", 1))))
        part.numbers.update(measured(neurons=activations.shape[1]))


def _word_blocks(similarity: str, n_words: int) -> Sequence[slice]:
    """Return the blocks of words that a similarity takes one after the other: few words for one that keeps cosines."""
    size = BLOCK if similarity == "rank_reorder" else n_words
    return [slice(start, start + size) for start in range(0, n_words, size)]


def _checked(spec: StageSpec) -> Document:
    """Return all parameters of the similarity of a stage, with its defaults.

    Raises
    ------
    ValueError : a parameter that the similarity cannot take; names the config's key
    """
    from dataclasses import asdict

    from tasks.detectors.methods import METHODS

    name = spec.parameters["similarity"]
    given = spec.parameters["settings"]
    try:
        _check(name, **given)
    except (ValueError, TypeError) as error:
        raise ValueError(f"concepts.detectors.{name}: {error}") from error
    return asdict(METHODS[name](**given))


def _summary(stage: Stage) -> dict[str, Json]:
    return {"neurons": stage.layout.arrays["dead"].shape[0]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    responses = spec.inputs["responses"]
    n, n_words = count_images(responses, survey), count_words(spec.inputs["side"].inputs["words"], survey)
    n_neurons = layer_sizes(responses, survey)[spec.parameters["layer"]].n_channels
    settings = _checked(spec)
    if "top_fraction" in settings and int(n * settings["top_fraction"]) < 2:
        raise ValueError(
            f"concepts.detectors.{spec.parameters['similarity']}.top_fraction: expected at least 2 of the {n} probing "
            f"images, found a share of {settings['top_fraction']}; raise it, or take more images"
        )
    if (top_k := settings.get("top_k", 1)) > n:
        raise ValueError(
            f"concepts.detectors.{spec.parameters['similarity']}.top_k: expected at most the {n} probing images, "
            f"found {top_k}; lower it, or take more images"
        )
    written = 4 * n_neurons * (n_words + 3)
    return Size(written, 10 * 4 * n_neurons * n_words + 12 * 4 * n * n_neurons + STREAM_BYTES)


CLIP_DISSECT = Step("clip-dissect", VERSION, _layout, _partition, _size, summary=_summary)
