"""The updates of a network trained elsewhere, with the sample ids of a data set in place of its loop's."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.imports import check_loaded, import_object
from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import FinishedStage, open_finished
from storage.stores import Store, open_store
from storage.updates.archives import conversion_of
from storage.updates.facts import ArchiveFacts, archive_digest, archive_facts, closed_archive
from tasks.steps.common.manifest import positions

if TYPE_CHECKING:
    from torch import Tensor

    from storage.updates.archives import Segment
    from tasks.recording.sources import UpdateBlock, UpdateSource

IDS = "ids.parquet"
CONVERSION = "conversion"  # digest of the conversion that is read in the place of a replay without a program
MIXED = -1  # label of a step with examples of several classes

Ids = NDArray[np.int64]


def tie_ids(ids: Ids, rows: pd.DataFrame, how: str, table: pd.DataFrame | None) -> pd.DataFrame:
    """Return the sample of each id of an archive: columns id and sample_id.

    Parameters
    ----------
    ids : all ids of the archive, rising
    rows : samples that were trained on: columns id, key
    how : id, the archive has sample ids; order, 0, 1, ... by rising sample id; table, by `table`
    table : columns id (of the archive) and key (of a sample)

    Raises
    ------
    ValueError : an id does not have a sample, or the table does not say which
    """
    samples = np.sort(rows["id"].to_numpy(np.int64))
    if how == "table":
        return _by_table(ids, rows, table)
    known = samples if how == "id" else np.arange(len(samples))
    missing = ids[~np.isin(ids, known)]
    if len(missing):
        raise ValueError(
            f"expected samples with all {len(ids):,} ids of the archive, found none with {missing[0]} and "
            f"{len(missing) - 1:,} more; choose the data set and the split that were trained on, or tie the ids by a "
            "table of id and key"
        )
    found = ids if how == "id" else samples[ids]
    return pd.DataFrame({"id": ids, "sample_id": found})


def _by_table(ids: Ids, rows: pd.DataFrame, table: pd.DataFrame | None) -> pd.DataFrame:
    """Return the sample of each id by a table of ids and keys."""
    if table is None or not {"id", "key"} <= set(table.columns) or table["id"].dtype.kind not in "iu":
        found = "none" if table is None else ", ".join(map(str, table.columns))
        raise ValueError(f"expected a table with the columns id (integers) and key, found {found}")
    if twice := table["id"][table["id"].duplicated()].tolist():
        raise ValueError(f"expected each id once in the table, found {twice[0]} twice")
    keys = dict(zip(table["id"].tolist(), table["key"].tolist(), strict=True))
    samples = dict(zip(rows["key"].tolist(), rows["id"].tolist(), strict=True))
    for number in ids.tolist():
        if number not in keys:
            raise ValueError(f"expected all ids of the archive in the table, found none with {number}")
        if keys[number] not in samples:
            raise ValueError(f"expected samples with all keys of the table, found none with {keys[number]!r}")
    return pd.DataFrame({"id": ids, "sample_id": [samples[keys[number]] for number in ids.tolist()]})


def linked_source(store: Store, spec: StageSpec) -> UpdateSource:
    """Return the updates of a finished linked-updates stage."""
    return _source(store, spec, open_finished(store, spec).note["files"][IDS])


def facts_of(url: str) -> ArchiveFacts:
    """Return the facts of the closed archive at a URL; this process caches some.

    Raises
    ------
    StoreError, DamagedError : as `archive_facts`
    """
    return _facts(url, archive_digest(closed_archive(open_store(url))))


def planned_facts(spec: StageSpec) -> ArchiveFacts:
    """Return the facts of the archive of a linked-updates stage, after a comparison with the plan's digest."""
    facts = facts_of(str(spec.place["updates"]))
    if facts.digest != spec.digests["updates"]:
        raise ValueError(
            f"networks.{spec.place['network']}.updates: expected the archive that the run was planned with, found "
            "another; start the run again"
        )
    return facts


def _conversion(spec: StageSpec, facts: ArchiveFacts) -> FinishedStage:
    """Return the conversion of a replay archive, after a comparison with the plan's digest."""
    made = conversion_of(facts.stage)
    if made is None or archive_digest(made) != spec.digests[CONVERSION]:
        raise ValueError(
            f"networks.{spec.place['network']}.updates: expected the conversion that the run was planned with, found "
            f"{'none' if made is None else 'another'}; start the run again"
        )
    return made


@lru_cache(maxsize=8)
def _facts(url: str, sha256: str) -> ArchiveFacts:
    """Return the facts of an archive."""
    return archive_facts(url)


@lru_cache(maxsize=2)
def _source(store: Store, spec: StageSpec, sha256: str) -> TiedSource:
    """Open an archive; this process caches two."""
    from tasks.recording.sources import update_source

    facts, program = planned_facts(spec), spec.place["program"]
    if program is not None:
        check_loaded(str(program), spec.digests["program"])
    stage = facts.stage if CONVERSION not in spec.digests else _conversion(spec, facts)
    source = update_source(stage, program=None if program is None else import_object(str(program)))
    table = read_table(open_finished(store, spec).read_file(IDS), IDS)
    rows = positions(store, spec.inputs["data"].path, str(spec.parameters["split"])).set_index("id")
    samples = table["sample_id"].to_numpy(np.int64)
    labels = rows.loc[samples, "label_given"].to_numpy(np.int64)
    return TiedSource(source, table["id"].to_numpy(np.int64), samples, labels)


@dataclass(frozen=True)
class TiedSource:
    """An update source with other ids; steps have the label that their examples share in the data set.

    Parameters
    ----------
    source : the archive
    ids : all its ids, rising
    samples, labels : sample id and label of each
    """

    source: UpdateSource
    ids: Ids
    samples: Ids
    labels: Ids

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def layers(self) -> list[str]:
        return self.source.layers

    @property
    def steps(self) -> int:
        return self.source.steps

    @property
    def exactness(self) -> dict[str, float]:
        return self.source.exactness

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """The archive's ledger with the data set's ids and labels."""
        labels = [self.labels[self._places(ids)] for ids in self.source.examples]
        found = self.source.ledger.copy()
        found["label"] = [int(step[0]) if len(step) and (step == step[0]).all() else MIXED for step in labels]
        found["examples"], found["ghosts"] = pd.Series(self.examples), pd.Series(self.ghosts)
        return found

    @cached_property
    def examples(self) -> list[Ids]:
        """The samples of each step."""
        return [self.samples[self._places(ids)] for ids in self.source.examples]

    @cached_property
    def ghosts(self) -> list[Ids]:
        """The ghosts of each step."""
        return [self.samples[self._places(ids)] for ids in self.source.ghosts]

    @property
    def recorded(self) -> NDArray[np.bool_]:
        return self.source.recorded

    @property
    def splits(self) -> Callable[[str], bool]:
        return self.source.splits

    def segments(self) -> list[Segment]:
        return self.source.segments()

    def initial(self, layer: str) -> Tensor:
        return self.source.initial(layer)

    def final(self, layer: str) -> Tensor:
        return self.source.final(layer)

    def initial_bias(self, layer: str) -> Tensor | None:
        return self.source.initial_bias(layer)

    def final_bias(self, layer: str) -> Tensor | None:
        return self.source.final_bias(layer)

    def blocks(
        self,
        segment: Segment,
        layers: Sequence[str] | None = None,
        *,
        members: bool = False,
        passing: Collection[str] = (),
    ) -> Iterator[UpdateBlock]:
        return self.source.blocks(segment, layers, members=members, passing=passing)

    def _places(self, ids: Ids) -> Ids:
        """Return the index of each id."""
        return np.searchsorted(self.ids, ids).astype(np.int64)
