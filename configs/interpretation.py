"""Question 1 in a config: what are the relevant features, from how little data?"""

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from configs.activations import ChannelLayout, GridSize
from configs.asked import OnSplits
from configs.section import Name, Parameters, Share

MAX_REPEATS = 1000  # each is a stage per budget, network and seed


class Interpretation(OnSplits):
    """Question 1: what are the relevant features, from how little data?"""

    layer: str = Field(
        "last-map",
        description="layer to interpret: last-map, or the name of a module whose output is a map or tokens, such as "
        "the end of a transformer's block",
    )
    layout: ChannelLayout | None = Field(
        None, description="channel layout of the layer's output; default: derived from the network's operations"
    )
    tokens: Literal["patches", "line"] | GridSize = Field(
        "patches",
        description="positions of a layer of tokens: patches, the grid of the image's patches, with class and register "
        "tokens set apart (line where the tokens do not show a grid); [rows, columns], a grid of the last tokens; "
        "line, all tokens in one row, without heat maps",
    )
    learn: Name = Field("train", description="split from which coresets and features come")
    evaluate: Name = Field("val", description="split on which features are compared")
    selectors: dict[str, Parameters] = Field(
        min_length=1,
        description="coreset selectors with their parameters; `repeats: n` selects n times with different draws, which "
        "only random has",
    )
    budgets: tuple[Share, ...] = Field(min_length=1, description="shares of each class that coresets keep")
    interpreters: dict[str, Parameters] = Field(
        min_length=1, description="interpretation methods with their parameters"
    )
    coreset_from: Name | tuple[Name, ...] | None = Field(
        None,
        description="network or networks whose coresets the other networks use too, next to their own (transfer); "
        "not for random, which chooses the same for all networks",
    )
    gallery: int | None = Field(
        None,
        ge=0,
        description="number of images shown with heat maps, spread over the classes; default: one of each class, of at "
        "most 20 classes; with 0 the page does not show images",
    )

    DISTINCT: ClassVar = ("networks", "budgets")

    @model_validator(mode="after")
    def _repeats_limited(self) -> "Interpretation":
        for name, settings in self.selectors.items():
            if isinstance(repeats := settings.get("repeats"), int) and repeats > MAX_REPEATS:
                raise ValueError(f"selectors.{name}.repeats: expected at most {MAX_REPEATS:,}, found {repeats}")
        return self

    @model_validator(mode="after")
    def _senders_distinct(self) -> "Interpretation":
        if len(set(self.senders)) != len(self.senders):
            raise ValueError("coreset_from: expected different entries, found the same one twice; remove one")
        return self

    @property
    def senders(self) -> tuple[str, ...]:
        """The networks whose coresets the others use too."""
        if self.coreset_from is None:
            return ()
        return (self.coreset_from,) if isinstance(self.coreset_from, str) else self.coreset_from

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, "networks" or "data", name) of every network and data set that the section names."""
        yield from super().names()
        yield from (("coreset_from", "networks", name) for name in self.senders)
