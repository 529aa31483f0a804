"""The plane stage: a map of the space of words to a plane, fitted once, with the neurons of all snapshots in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from storage.layouts import Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.concepts.responses import layer_sizes
from tasks.steps.concepts.words import count_words, open_words

VERSION = 1
SEED = 0  # of UMAP: the map is part of the picture, not of the result
WORDS_FILE, NEURONS_FILE = "words.parquet", "plane.parquet"
ROW = 32  # bytes of a point in a table
WIDTH = 1024  # most dimensions of the space of words, for the size


def plane_spec(words: StageSpec, anchors: StageSpec | None, neurons: Sequence[StageSpec], method: str) -> StageSpec:
    """Return the spec of the plane of a space of words with the neurons of all layers, snapshots and detectors.

    Parameters
    ----------
    words : the word list with vectors, on which the map is fitted
    anchors : the words that are placed in the plane; None for all words
    neurons : `neurons` stages in the space of these words
    method : "pca" or "umap"
    """
    inputs = {"words": words} | ({} if anchors is None else {"anchors": anchors})
    inputs |= {f"neurons {index}": spec for index, spec in enumerate(neurons)}
    return PLANE.spec({"method": method}, inputs, label=f"{words.label} {method}")


def read_plane(store: Store, spec: StageSpec) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the points of a finished stage: of the anchors, or of all words without any, and of the neurons.

    Returns
    -------
    word, x, y; and stage (index into the neurons that `plane_spec` took), neuron, x, y
    """
    finished = open_finished(store, spec)
    words, neurons = (
        read_table(finished.read_file(name), f"{finished.path}/files/{name}") for name in (WORDS_FILE, NEURONS_FILE)
    )
    return words, neurons


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Fit the map on the words, and place words and neurons."""
    from tasks.concepts.plane import fit_plane

    stage, spec = work.stage, work.stage.spec
    words = open_words(stage.store, spec.inputs["words"])
    plane = fit_plane(words.text, method=str(spec.parameters["method"]), seed=SEED)
    tables = []
    for index, neurons in enumerate(_neurons(spec)):
        places = np.asarray(plane.transform(open_finished(stage.store, neurons).read("embedding")), np.float64)
        points = {"x": places[:, 0], "y": places[:, 1]}
        tables.append(pd.DataFrame({"stage": index, "neuron": np.arange(len(places)), **points}))
    with stage.partition(number) as part:
        words = open_words(stage.store, spec.inputs["anchors"]) if "anchors" in spec.inputs else words
        places = np.asarray(plane.transform(words.text), np.float64)
        table = pd.DataFrame({"word": words.names, "x": places[:, 0], "y": places[:, 1]})
        part.write_file(WORDS_FILE, table_bytes(table))
        part.write_file(NEURONS_FILE, table_bytes(pd.concat(tables, ignore_index=True)))
        part.numbers.update(measured(words=len(table), neurons=sum(map(len, tables))))


def _neurons(spec: StageSpec) -> list[StageSpec]:
    """Return the stages of neurons, in order."""
    return [given for role, given in spec.inputs.items() if role.startswith("neurons")]


def _size(spec: StageSpec, survey: Survey) -> Size:
    if spec.parameters["method"] == "umap":
        _check_umap()
    n_words, counts = count_words(spec.inputs["words"], survey), []
    for neurons in _neurons(spec):
        detected = neurons.inputs["detected"]
        counts.append(layer_sizes(detected.inputs["responses"], survey)[detected.parameters["layer"]].n_channels)
    return Size(ROW * (n_words + sum(counts)), 4 * 4 * WIDTH * (n_words + max(counts)) + 2 * ROW * sum(counts))


def _check_umap() -> None:
    """Raise ValueError where the package of UMAP is not installed."""
    from importlib.util import find_spec

    if find_spec("umap") is None:
        raise ValueError(
            "concepts.plane: expected the package umap-learn for umap, found none; install layerlore[umap], or set "
            "it to pca"
        )


PLANE = Step("plane", VERSION, _layout, _partition, _size)
