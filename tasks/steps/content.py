"""Whether the data are still what earlier stages were made from."""

from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document
from storage.stages import FinishedStage, Stage, find_finished
from storage.stores import Store

EXTRACTIONS = ("activations", "layers")  # kinds of stages that keep content digests


def compare_content(stage: Stage, content: NDArray[np.generic], start: int, rows: pd.DataFrame) -> None:
    """Compare the samples' digests with those of an earlier extraction of the same data, if there is one."""
    earlier = _earlier(stage.store, stage.spec.inputs["data"].key, str(stage.spec.parameters["split"]))
    if earlier is None:
        return
    differs = np.flatnonzero((earlier.read("content", start, start + len(rows)) != content).any(axis=1))
    if differs.size:
        row = rows.iloc[int(differs[0])]
        raise ValueError(
            f"sample {row['key']} (id {row['id']}): its content differs from what {earlier.path} was made from; "
            "restore the data, or remove the stages that were made from it"
        )


def _earlier(store: Store, manifest: str, split: str) -> FinishedStage | None:
    """Return a finished extraction of the same manifest and split."""
    path = _earlier_path(store, manifest, split)
    stage = None if path is None else find_finished(store, path)
    if stage is None:  # none was there when we looked, or it has been removed since
        _earlier_path.cache_clear()
    return stage


@lru_cache(maxsize=16)
def _earlier_path(store: Store, manifest: str, split: str) -> str | None:
    """Return the path of a finished extraction of the same manifest and split."""
    for path in (f"{kind}/{key}" for kind in EXTRACTIONS for key in store.names(kind)):
        stage = find_finished(store, path)
        if stage is not None:
            identity: Document = stage.note["identity"]
            if identity["inputs"]["data"] == manifest and identity["parameters"]["split"] == split:
                return path
    return None
