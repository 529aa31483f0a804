"""Facts about data sets and networks that the size of a stage depends on, before the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from storage.documents import Document
from storage.specs import StageSpec

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

Found = TypeVar("Found")


@dataclass(frozen=True)
class DataSurvey:
    """Facts about a data set: its name, its labels and counts by split, and the keys of some samples of each split."""

    name: str
    summary: Document
    examples: Mapping[str, tuple[str, ...]]

    def split(self, name: str | None) -> Document:
        """Return labels and counts of a split; None means all samples.

        Raises
        ------
        ValueError : the data set has no such split
        """
        splits: Document = self.summary["splits"]
        if name is None:
            counts = Counter[int]()
            for each in splits.values():
                counts.update(dict(zip(each["labels"], each["counts"], strict=True)))
            return {"labels": sorted(counts), "counts": [counts[label] for label in sorted(counts)]}
        if name not in splits:
            raise ValueError(f"data.{self.name}: expected one of the splits {', '.join(splits)}, found {name!r}")
        found: Document = splits[name]
        return found

    def count(self, name: str | None) -> int:
        """Return the number of samples of a split; None means all samples."""
        return sum(self.split(name)["counts"])


class Survey(Protocol):
    """Facts about data sets and networks, from the specs alone; each fact is found once."""

    def data(self, manifest: StageSpec) -> DataSurvey:
        """Return the facts about a data set."""
        ...

    def rows(self, manifest: StageSpec) -> pd.DataFrame:
        """Return the table of a data set's samples: id, key, label_given, split and others."""
        ...

    def begun(self, spec: StageSpec) -> Document | None:
        """Return the numbers of a stage's first partition, None before that is made."""
        ...

    def look(self, spec: StageSpec, topic: str, look: Callable[[nn.Module, Tensor, Tensor], Found]) -> Found:
        """Return the result of a function on the network of a stage and a few samples of its data.

        Parameters
        ----------
        spec : a stage with the parameter `network` and the input `data`
        topic : name of the result; there is one look for each topic, network, data set and split
        look : takes the network with its weights, in evaluation mode, an input (1, C, h, w) of noise, and images
            (n, C, h, w) of the split that the stage reads; changes none of them

        Raises
        ------
        ValueError : the network cannot be built, or `look` refuses it
        """
        ...

    def blank(self, spec: StageSpec) -> nn.Module:
        """Return the network of a stage on the meta device: shapes only."""
        ...
