"""Facts about an archive of a recorder, finished or not, from its records, ledgers and last checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from storage.documents import DamagedError, Document, canonical, digest
from storage.layouts import group_attributes, metadata_path
from storage.notes import GROUP, read_marker
from storage.stages import FinishedStage, find_finished
from storage.stores import Store, StoreError, open_store
from storage.tensors import decode_tensors
from storage.together import together
from storage.updates.archives import find_archives, find_conversions
from storage.updates.ledger import LEDGER, read_ledger
from storage.updates.parameters import Layer, Parameter, layers_of
from storage.updates.reader import MODEL

OPTIMIZER = "optimizer"  # text of a checkpoint
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class ArchiveState:
    """What a recorder has written so far.

    Attributes
    ----------
    path : path of the archive in its store
    kind : kind of archive
    closed : whether the recorder was closed
    steps : steps that can be read, or gone on from
    layers : names of the recorded layers
    size : bytes of all files
    """

    path: str
    kind: str
    closed: bool
    steps: int
    layers: tuple[str, ...]
    size: int


@dataclass(frozen=True)
class ConversionState:
    """A finished conversion of an archive.

    Attributes
    ----------
    path : path of the conversion in its store
    archive : path of the archive
    kind : kind of the conversion
    size : bytes of all files
    """

    path: str
    archive: str
    kind: str
    size: int


@dataclass(frozen=True)
class ArchiveFacts:
    """A finished archive, read without its updates.

    Attributes
    ----------
    stage : the archive
    records : the metrics of its segments as they were recorded, in order
    """

    stage: FinishedStage
    records: tuple[Document, ...]

    @cached_property
    def digest(self) -> str:
        """The digest of the archive; see `archive_digest`."""
        return archive_digest(self.stage)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """The ledger of all steps."""
        names = [f"{each['folder']}/{LEDGER}" for each in self.recordings]
        tables = [read_ledger(self.stage.read_file(name), f"{self.stage.path}/files/{name}") for name in names]
        return pd.concat(tables, ignore_index=True)

    @property
    def steps(self) -> int:
        """The number of steps."""
        return int(self.recordings[-1]["stop"])

    @property
    def kind(self) -> str:
        """The kind of archive."""
        return str(self.recordings[0]["kind"])

    @cached_property
    def contents(self) -> tuple[dict[str, Layer], dict[str, Parameter]]:
        """The recorded layers and parameters, by name."""
        return layers_of(_identity(self.stage.store, self.stage.path))

    @property
    def recordings(self) -> list[Document]:
        """What each segment's recorder stated."""
        return [each["recording"] for each in self.records]

    @property
    def last(self) -> str:
        """The checkpoint after the last step."""
        return str(self.records[-1]["checkpoint"])

    @cached_property
    def shapes(self) -> Shapes:
        """The shape of each tensor of the network's state, by name, after the last step."""
        tensors, _ = self._checkpoint(self.last)
        return {name.removeprefix(MODEL): raw for name, raw in tensors.items() if name.startswith(MODEL)}

    @cached_property
    def optimizer(self) -> tuple[str, list[Document]]:
        """The class of the optimiser, and the settings of its groups before the first step and after the last."""
        name = str(_identity(self.stage.store, self.stage.path)["optimizer"])
        ends = str(self.records[0]["initial"]), self.last
        return name, [group for end in ends for group in json.loads(self._checkpoint(end)[1][OPTIMIZER])["groups"]]

    def other_tensor(self, here: Shapes) -> str:
        """Return in words the first tensor of the network's state that a network does not have so, "" without one."""
        for name in dict.fromkeys([*self.contents[1], *self.shapes, *here]):
            recorded, given = self.shapes.get(name), here.get(name)
            if recorded != given:
                expected = f"no {name}" if recorded is None else f"{name} of shape {recorded}"
                return f"with {expected}, found {'none' if given is None else f'it of shape {given}'}"
        return ""

    def _checkpoint(self, name: str) -> tuple[Shapes, Mapping[str, str]]:
        """Return the shapes of a checkpoint's tensors, and its texts."""
        raw, texts = decode_tensors(self.stage.read_file(name), f"{self.stage.path}/files/{name}")
        return {key: tensor.shape for key, tensor in raw.items()}, texts

    def check_files(self) -> None:
        """Raise DamagedError where a file is missing, or a segment has not the bytes that its recorder stated."""
        sizes = self.stage.store.files(f"{self.stage.path}/files")
        where = f"{self.stage.store.url}: {self.stage.path}/files"
        for name in self.stage.note["files"]:
            if not sizes.get(name):
                raise DamagedError(f"{where}/{name}: expected a file of a closed archive, found none")
        for stated in self.recordings:
            found = sum(size for name, size in sizes.items() if name.startswith(f"{stated['folder']}/"))
            if found != stated["bytes"]:
                expected = f"expected {stated['bytes']:,} bytes, as recorded"
                raise DamagedError(f"{where}/{stated['folder']}: {expected}, found {found:,}")


def archive_digest(stage: FinishedStage) -> str:
    """Return the digest of an archive's completion record, which has the digests of all files."""
    return digest(canonical(stage.note))


def archive_facts(url: str) -> ArchiveFacts:
    """Return the facts about the closed archive in the store at a URL, after a look for its files.

    Raises
    ------
    StoreError : there is no store or archive, or it is not closed
    DamagedError : a record is damaged, or a file is missing or truncated
    """
    stage = closed_archive(open_store(url))
    found = ArchiveFacts(stage, tuple(record["numbers"] for record in stage.markers()))
    found.check_files()
    return found


def closed_archive(store: Store) -> FinishedStage:
    """Return the closed archive of a recorder in a store.

    Raises
    ------
    StoreError : there is no archive, or it is not closed
    """
    stages = [stage for path in find_archives(store) if (stage := find_finished(store, path)) is not None]
    if stages:
        return stages[0]
    states = archive_states(store)
    if not states:
        raise StoreError(f"{store.url}: expected an archive of a recorder, found none; no recorder wrote here")
    raise StoreError(
        f"{store.url}: expected a closed archive, found one of {states[0].steps} steps that is not; go on with its "
        "training and close the recorder"
    )


def archive_states(store: Store) -> list[ArchiveState]:
    """Return the state of each archive that recorders made or are making in a store."""
    return [_state(store, path) for path in find_archives(store)]


def conversion_states(store: Store) -> list[ConversionState]:
    """Return the finished conversions of all archives in a store, by the archive's path."""
    made = [stage for _, stages in sorted(find_conversions(store).items()) for stage in stages]
    sizes = together(store, lambda stage: sum(store.files(f"{stage.path}/files").values()), made)
    return [
        ConversionState(stage.path, str(stage.summary["archive"]), str(stage.summary["kind"]), size)
        for stage, size in zip(made, sizes, strict=True)
    ]


def _state(store: Store, path: str) -> ArchiveState:
    """Return the state of the archive at a path; DamagedError where a record of a closed one is missing or damaged."""
    stage = find_finished(store, path)
    records = _begun(store, path) if stage is None else stage.markers()
    identity, last = _identity(store, path), records[-1]["numbers"]["recording"] if records else {}
    return ArchiveState(
        path,
        str(last.get("kind", identity["kind"])),
        stage is not None,
        int(last.get("stop", 0)),
        tuple(entry["name"] for entry in identity["layers"]),
        sum(store.files(f"{path}/files").values()),
    )


def _begun(store: Store, path: str) -> list[Document]:
    """Return the records of an open archive up to the first that cannot be read, from which its recorder goes on."""
    records: list[Document] = []
    for number in range(len(store.names(f"{path}/markers"))):
        try:
            records.append(read_marker(store, path, number))
        except (FileNotFoundError, DamagedError):
            break
    return records


def _identity(store: Store, path: str) -> Document:
    """Return the settings by which an archive was begun."""
    name = metadata_path(path, GROUP)
    try:
        found: Document = group_attributes(store.read(name))["layerlore"]["identity"]["parameters"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise DamagedError(f"{store.url}: {name}: expected the settings of an archive, found damage") from None
    return found


def distinct_ids(ledger: pd.DataFrame) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Return all ids of examples and ghosts in a ledger, rising."""
    cells = [*ledger["examples"], *ledger["ghosts"]]
    return np.unique(np.concatenate([np.empty(0, np.int64), *cells]))
