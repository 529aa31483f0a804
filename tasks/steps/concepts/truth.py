"""The true labels of the probing images, which planted neurons follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store
from tasks.io.annotations import Annotated
from tasks.io.manifest import read_class_names
from tasks.io.sources import open_source
from tasks.io.words import WordList
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.concepts.annotations import LabelMaps, label_coverage


@dataclass(frozen=True)
class Truth:
    """The labels of a probing set that differ between its images.

    Attributes
    ----------
    coverage : (N, L) float32, share of each image that each label covers
    word : (L,) index of each label's word in the probing set's own word list
    names : (L,) the words
    label : (L,) number of each label in label maps, or the place of its class
    """

    coverage: NDArray[np.float32]
    word: NDArray[np.int64]
    names: tuple[str, ...]
    label: NDArray[np.int64]


TOP = (1, 5)  # words among which the true one should be


def planted_shares(table: pd.DataFrame) -> Document:
    """Return the shares of planted neurons with the true word among the best, and those of the null.

    Parameters
    ----------
    table : rank and null_rank of each neuron's true word, 0 the best
    """
    found: Document = {"n": len(table)}
    for column, prefix in (("rank", ""), ("null_rank", "null_")):
        found |= {f"{prefix}top{top}": float((table[column] < top).mean()) if len(table) else 0.0 for top in TOP}
    return found


def planted_summary(stage: Stage) -> dict[str, Json]:
    """Return the number of planted neurons, and the shares with the true word among the best."""
    marker = stage.marker(0)
    assert marker is not None
    return {name: marker["numbers"][name] for name in ("n", *(f"{p}top{top}" for p in ("", "null_") for top in TOP))}


class Named(NamedTuple):
    """Planted neurons as a detector names them.

    Attributes
    ----------
    word : (L,) index of each neuron's true word
    names : (L,) the true words
    similarity : (L, S)
    null : (L, S), with exchanged images
    """

    word: NDArray[np.int64]
    names: tuple[str, ...]
    similarity: NDArray[np.floating]
    null: NDArray[np.floating]


def true_coverage(store: Store, spec: StageSpec) -> Truth:
    """Return the true labels of the probing images of a stage, from label maps, or from the classes of the images."""
    manifest, split = spec.inputs["data"], spec.parameters["split"]
    source = open_source(data_of(manifest))
    if isinstance(source, Annotated):
        vocabulary, maps = source.vocabulary(), LabelMaps(store, manifest, split)
        words = WordList.of_vocabulary(vocabulary)
        return _varying(label_coverage(maps), words.label_positions(vocabulary), words)
    names = read_class_names(data_of(manifest), source)
    words, labels = WordList.of_classes(names), np.array(sorted(names), np.int64)
    at = words.positions(names[label].replace("_", " ") for label in labels.tolist())
    given = positions(store, manifest.path, split)["label_given"].to_numpy(np.int64)
    return _varying((given[:, None] == labels).astype(np.float32), at, words)


def _varying(shares: NDArray[np.float32], at: NDArray[np.int64], words: WordList) -> Truth:
    """Return the labels with a word that differ between images: a neuron of another label would be dead."""
    kept = np.flatnonzero((at >= 0) & (shares.max(axis=0) > shares.min(axis=0)))
    names = tuple(words.words[index] for index in at[kept].tolist())
    return Truth(shares[:, kept], at[kept], names, kept.astype(np.int64))
