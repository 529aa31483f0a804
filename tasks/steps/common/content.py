"""Digests of samples, by position in a split, which show whether the data have changed since earlier stages."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document, digest
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, find_finished
from storage.stores import Store, StoreError
from tasks.io.samples import Sample

Content = NDArray[np.generic]  # (n, 16) uint8


class Known(NamedTuple):
    """Digests of samples, and the path of the stage that read these samples."""

    path: str
    content: Content


def content_of(samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """Return the digests of samples, (n, 16)."""
    return np.frombuffer(bytes.fromhex("".join(s.digest for s in samples)), np.uint8).reshape(len(samples), -1)


def content_file(split: str) -> str:
    """Return the file name of the digests of a split in a training, 16 bytes a sample."""
    return f"content-{split}.bin"


def compare_content(stage: Stage, split: str, content: Content, start: int, rows: pd.DataFrame) -> None:
    """Compare digests of the samples from position `start` on with those of an earlier stage, if any."""
    earlier = _earlier(stage.store, stage.spec.inputs["data"], split)
    if earlier is not None:
        known = Known(earlier.path, _kept(earlier, split, start, start + len(rows)))
        check_content(known, content, rows, np.arange(len(rows)))


def check_content(known: Known, content: Content, rows: pd.DataFrame, at: NDArray[np.int64]) -> None:
    """Raise ValueError unless the digests `content` of the samples at the positions `at` equal the known ones."""
    differs = np.flatnonzero((known.content[at] != content).any(axis=1))
    if differs.size:
        row = rows.iloc[int(at[differs[0]])]
        raise ValueError(
            f"sample {row['key']} (id {row['id']}): expected the content that {known.path} was made from, "
            "found other content; restore the data, or remove the stages that were made from it"
        )


def known_content(store: Store, spec: StageSpec, split: str) -> Known | None:
    """Return the digests of a split from the stage itself, complete or not, else from an earlier stage of its data."""
    path = f"{spec.path}/files/{content_file(split)}"
    if store.exists(path):
        return Known(spec.path, _unpacked(store.read(path)))
    earlier = _earlier(store, spec.inputs["data"], split)
    return None if earlier is None else Known(earlier.path, _kept(earlier, split, 0, None))


def _kept(stage: FinishedStage, split: str, start: int, stop: int | None) -> Content:
    """Return the digests of the positions `start:stop` of a split in a finished stage."""
    name = content_file(split)
    if name in stage.note["files"]:
        return _file(stage.store, stage.path, name, stage.note["files"][name])[start:stop]
    return stage.read("content", start, stop)


@lru_cache(maxsize=4)
def _file(store: Store, path: str, name: str, sha256: str) -> Content:
    """Return the digests in a file; this process caches them for the same file."""
    data = store.read(f"{path}/files/{name}")
    if digest(data) != sha256:
        raise StoreError(
            f"{path}/files/{name}: expected the content of its digest, found damage; "
            "remove the stage's folder and run its config again"
        )
    return _unpacked(data)


def _unpacked(data: bytes) -> Content:
    """Return the digests in a training's file."""
    return np.frombuffer(data, np.uint8).reshape(-1, 16)


def _earlier(store: Store, manifest: StageSpec, split: str) -> FinishedStage | None:
    """Return a finished stage that keeps digests of a split of a manifest."""
    path = _earlier_path(store, manifest.key, tuple(manifest.place["digests_in"]), split)
    stage = None if path is None else find_finished(store, path)
    if stage is None:  # none was there at the first look, or it has been removed since
        _earlier_path.cache_clear()
    return stage


@lru_cache(maxsize=16)
def _earlier_path(store: Store, manifest: str, kinds: tuple[str, ...], split: str) -> str | None:
    """Return the path of a finished stage that keeps digests of a split of a manifest."""
    for path in (f"{kind}/{key}" for kind in kinds for key in store.names(kind)):
        stage = find_finished(store, path)
        if stage is not None and stage.note["identity"]["inputs"]["data"] == manifest and _keeps(stage.note, split):
            return path
    return None


def _keeps(note: Document, split: str) -> bool:
    """Say whether a stage with this completion record keeps the digests of a split."""
    extracted = "content" in note["arrays"] and note["identity"]["parameters"]["split"] == split
    return extracted or content_file(split) in note["files"]
