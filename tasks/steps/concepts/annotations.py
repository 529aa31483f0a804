"""The label maps of a probing set in steps: read by position, and checked at plan time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import FinishedStage
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.io.annotations import Annotated, Vocabulary, annotations_of, coverage
from tasks.io.sources import open_source
from tasks.steps.common.manifest import data_of, positions
from tasks.steps.concepts.layer_maps import CHUNK_IMAGES

KEY = "concepts.detectors.network-dissection"
LABELS_FILE = "labels.parquet"


class LabelMaps:
    """The label maps of the images of a split, by position.

    Parameters
    ----------
    manifest : of the probing set
    split : None means all images
    chosen : positions of the images, which are then counted from 0; None means all of the split
    """

    def __init__(
        self, store: Store, manifest: StageSpec, split: str | None, chosen: NDArray[np.int64] | None = None
    ) -> None:
        self.source = annotated(manifest)
        keys = positions(store, manifest.path, split)["key"]
        self._keys: list[str] = (keys if chosen is None else keys.iloc[chosen]).tolist()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._keys)

    def read(self, at: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the label maps (n, P, H, W) of the images at the positions `at`."""
        return self.source.masks([self._keys[position] for position in at])


def annotated(manifest: StageSpec) -> Annotated:
    """Return the open source of a probing set with label maps.

    Raises
    ------
    ValueError : the source does not have label maps; names the config's key
    """
    try:
        return annotations_of(open_source(data_of(manifest)))
    except ValueError as error:
        raise ValueError(f"data.{manifest.place['name']}: {error}; `{KEY}` needs them") from error


def label_coverage(maps: LabelMaps) -> NDArray[np.float32]:
    """Return the share of the pixels of each image that each label number covers, (N, L)."""
    labels = len(maps.source.vocabulary().names)
    result = np.empty((len(maps), labels), np.float32)
    for start in range(0, len(maps), CHUNK_IMAGES):
        at = np.arange(start, min(start + CHUNK_IMAGES, len(maps)))
        result[at] = coverage(maps.read(at), labels)
    return result


def check_label_maps(responses: StageSpec, survey: Survey) -> tuple[Vocabulary, tuple[int, ...]]:
    """Return the labels of a planned stage's probing set, and the shape (P, H, W) of the label maps of an image.

    Raises
    ------
    ValueError : the probing set does not have label maps, or those of the first image cannot be read
    """
    manifest, split = responses.inputs["data"], responses.parameters["split"]
    source, found = annotated(manifest), survey.data(manifest)
    if (n := found.count(split)) < 2:
        raise ValueError(f"concepts.probe: expected at least 2 images for `{KEY}`, found {n}; take more")
    keys = next(iter(found.examples.values())) if split is None else found.examples[split]
    try:
        return source.vocabulary(), source.masks(keys[:1]).shape[1:]
    except ValueError as error:
        raise ValueError(f"data.{manifest.place['name']}: {error}") from error


def label_table(vocabulary: Vocabulary) -> bytes:
    """Return a vocabulary as the bytes of a table, a row for each label number."""
    n = len(vocabulary.names)
    categories = [list(vocabulary.categories) for _ in range(n)]
    columns = {"name": list(vocabulary.names), "category": vocabulary.category_of, "categories": categories}
    return table_bytes(pd.DataFrame(columns))


def read_labels(finished: FinishedStage) -> Vocabulary:
    """Return the vocabulary that a finished stage keeps."""
    table = read_table(finished.read_file(LABELS_FILE), f"{finished.path}/files/{LABELS_FILE}")
    categories = tuple(str(name) for name in table["categories"].iloc[0])
    return Vocabulary(tuple(table["name"]), categories, table["category"].to_numpy(np.int64))
