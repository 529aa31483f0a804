"""Whether the data are still what earlier stages were made from.

Stages that read samples keep a digest of each, by position in a split: in an array `content`, or, where they train, in
a file per split. What is read later is compared with the digests that are there.
"""

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


class Recorded(NamedTuple):
    """Digests of samples, and the path of the stage that was made from these."""

    path: str
    content: Content


def content_of(samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """Return the digests of samples, (n, 16)."""
    return np.frombuffer(bytes.fromhex("".join(s.digest for s in samples)), np.uint8).reshape(len(samples), -1)


def content_file(split: str | None) -> str:
    """Return the name of the file in which a training keeps the digests of a split, 16 bytes a sample."""
    return f"content-{split}.bin"


def compare_content(stage: Stage, split: str | None, content: Content, start: int, rows: pd.DataFrame) -> None:
    """Compare digests of the samples from position `start` on with those of an earlier stage, if there is one."""
    earlier = _earlier_stage(stage.store, stage.spec.inputs["data"], split)
    if earlier is not None:
        recorded = Recorded(earlier.path, _recorded_content(earlier, split, start, start + len(rows)))
        check_content(recorded, content, rows, np.arange(len(rows)))


def check_content(recorded: Recorded, content: Content, rows: pd.DataFrame, at: NDArray[np.int64]) -> None:
    """Raise ValueError unless `content`, of the samples at the positions `at` of `rows`, is what was recorded."""
    differs = np.flatnonzero((recorded.content[at] != content).any(axis=1))
    if differs.size:
        row = rows.iloc[int(at[differs[0]])]
        raise ValueError(
            f"sample {row['key']} (id {row['id']}): expected the content that {recorded.path} was made from, "
            "found other content; restore the data, or remove the stages that were made from it"
        )


def known_content(store: Store, spec: StageSpec, split: str | None) -> Recorded | None:
    """Return the digests of a split that the stage itself keeps, done or not, or else an earlier stage of its data."""
    path = f"{spec.path}/files/{content_file(split)}"
    if store.exists(path):
        return Recorded(spec.path, _as_rows(store.read(path)))
    earlier = _earlier_stage(store, spec.inputs["data"], split)
    return None if earlier is None else Recorded(earlier.path, _recorded_content(earlier, split, 0, None))


def _recorded_content(stage: FinishedStage, split: str | None, start: int, stop: int | None) -> Content:
    """Return the digests that a finished stage keeps of the positions `start:stop` of a split."""
    name = content_file(split)
    if name in stage.note["files"]:
        return _read_file(stage.store, f"{stage.path}/files/{name}", stage.note["files"][name])[start:stop]
    return stage.read("content", start, stop)


@lru_cache(maxsize=4)
def _read_file(store: Store, path: str, sha256: str) -> Content:
    """Return the digests in a file, kept for the next partition in this process as long as the file is the same."""
    data = store.read(path)
    if digest(data) != sha256:
        raise StoreError(
            f"{path}: expected the content of its digest, found damage; "
            "remove the stage's folder and run its config again"
        )
    return _as_rows(data)


def _as_rows(data: bytes) -> Content:
    """Return the digests in a training's file, a row each."""
    return np.frombuffer(data, np.uint8).reshape(-1, 16)


def _earlier_stage(store: Store, manifest: StageSpec, split: str | None) -> FinishedStage | None:
    """Return a finished stage that keeps digests of a split of a manifest."""
    path = _earlier_path(store, manifest.key, tuple(manifest.place["digests_in"]), split)
    stage = None if path is None else find_finished(store, path)
    if stage is None:  # none was there when we looked, or it has been removed since
        _earlier_path.cache_clear()
    return stage


@lru_cache(maxsize=16)
def _earlier_path(store: Store, manifest: str, kinds: tuple[str, ...], split: str | None) -> str | None:
    """Return the path of the first finished stage of these kinds that keeps digests of a split of a manifest."""
    for path in (f"{kind}/{key}" for kind in kinds for key in store.names(kind)):
        stage = find_finished(store, path)
        if stage is not None and _keeps_content(stage.note, manifest, split):
            return path
    return None


def _keeps_content(note: Document, manifest: str, split: str | None) -> bool:
    """Say whether the stage with this completion record keeps digests of a split of a manifest."""
    identity = note["identity"]
    if identity["inputs"]["data"] != manifest:
        return False
    in_array = "content" in note["arrays"] and identity["parameters"]["split"] == split
    return in_array or content_file(split) in note["files"]
