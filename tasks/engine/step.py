"""The definition of a kind of stage, in one object."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from storage.documents import Document, Json
from storage.layouts import Layout
from storage.notes import read_markers
from storage.specs import StageSpec
from storage.stages import Stage
from storage.stores import Store

if TYPE_CHECKING:
    from tasks.engine.survey import Survey

MOST_TOGETHER = 16  # stages in one partition's work, a bound on its memory


@dataclass(frozen=True)
class Size:
    """The size of a stage.

    Attributes
    ----------
    written : bytes, before compression
    peak : bytes, the memory of one partition
    note : a line that plan and run show for the stage, "" for none
    about : a line that only the plan shows
    """

    written: int
    peak: int
    note: str = ""
    about: str = ""


@dataclass(frozen=True)
class Work:
    """The work of a partition function: a partition of one stage, or of several.

    Attributes
    ----------
    stages : one stage, or all stages of a group in which the partition is missing
    device : device on which networks run
    """

    stages: tuple[Stage, ...]
    device: str

    @property
    def stage(self) -> Stage:
        """The first stage: the only one, for steps without groups."""
        return self.stages[0]

    def missing(self, index: int) -> Work:
        """Return the work for the stages in which the partition `index` is still missing."""
        asked = [(stage.spec.path, index) for stage in self.stages]
        found = read_markers(self.stage.store, asked) if asked else {}
        missing = [stage for stage in self.stages if isinstance(found[stage.spec.path, index], Exception)]
        return replace(self, stages=tuple(missing))


@dataclass(frozen=True)
class Step:
    """A kind of stage.

    Attributes
    ----------
    kind : name of the kind, the folder below the store
    version : raised whenever the same parameters give other results
    layout : returns arrays and partitions, from the spec and the stages it reads
    partition : makes one partition of all stages in the work; a top-level function that workers can import
    size : returns bytes written and peak memory, from the spec and a survey; checks that the stage is possible
        (ValueError that names the config's key)
    summary : returns the summary of the sealed stage
    check : checks the partition records of a stage that resumes; returns the stage with those that it keeps
    group : returns a value that stages share if one pass over their inputs makes them together, at most 16 stages at
        a time; None where each stage is made alone
    network : whether the partition runs a network
    chain : whether partitions depend on their predecessor
    curves : name of the file with a row per epoch, for stages that train; "" for others
    keeps_content : whether the stage keeps a digest of each sample it reads
    """

    kind: str
    version: int
    layout: Callable[[Store, StageSpec], Layout]
    partition: Callable[[Work, int], None]
    size: Callable[[StageSpec, Survey], Size]
    summary: Callable[[Stage], Mapping[str, Json]] = lambda _: {}
    check: Callable[[Stage], Stage] = lambda stage: stage
    group: Callable[[StageSpec], Hashable] | None = None
    network: bool = False
    chain: bool = False
    curves: str = ""
    keeps_content: bool = False

    def spec(
        self,
        parameters: Mapping[str, Json],
        inputs: Mapping[str, StageSpec],
        *,
        digests: Mapping[str, str] | None = None,
        place: Document | None = None,
        label: str = "",
    ) -> StageSpec:
        """Return the spec of a stage of this kind; the fields are those of StageSpec."""
        return StageSpec(self.kind, self.version, parameters, inputs, digests or {}, place or {}, label)
