"""What the size of a stage may ask, before anything has run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from storage.documents import Document
from storage.specs import StageSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

Found = TypeVar("Found")


@dataclass(frozen=True)
class DataSurvey:
    """A data set: its name, its labels and counts by split, and the keys of some samples of each split."""

    name: str
    summary: Document
    examples: Mapping[str, tuple[str, ...]]

    def split(self, name: str) -> Document:
        """Return labels and counts of a split.

        Raises
        ------
        ValueError : the data set has no such split
        """
        splits: Document = self.summary["splits"]
        if name not in splits:
            raise ValueError(f"data.{self.name}: no split {name!r}; splits: {', '.join(splits)}")
        found: Document = splits[name]
        return found

    def count(self, name: str) -> int:
        """Return the number of samples of a split."""
        return sum(self.split(name)["counts"])


class Survey(Protocol):
    """Facts about data sets and networks, from the specs alone; each is found once."""

    def data(self, manifest: StageSpec) -> DataSurvey:
        """Return what a data set holds."""
        ...

    def look(self, spec: StageSpec, topic: str, look: Callable[[nn.Module, Tensor, Tensor], Found]) -> Found:
        """Return what a function finds in the network of a stage, from a few samples of its data.

        Parameters
        ----------
        spec : a stage with the parameter `network` and the input `data`
        topic : names what is looked for; one look for each topic, network, data set and split
        look : gets the network with its weights, in evaluation mode, an input (1, C, h, w) of noise, and images
            (n, C, h, w) of the split that the stage reads; leaves them as they are

        Raises
        ------
        ValueError : the network cannot be built, or `look` refuses it
        """
        ...

    def blank(self, spec: StageSpec) -> nn.Module:
        """Return the network of a stage without storage: shapes only."""
        ...
