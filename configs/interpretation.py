"""Question 1 in a config: what are the relevant features, from how little data?"""

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field, model_validator

from configs.activations import ChannelLayout
from configs.asked import OnSplits
from configs.section import Name, Share

MAX_REPEATS = 1000  # each is a stage per budget, network and seed


class Interpretation(OnSplits):
    """Question 1: what are the relevant features, from how little data?"""

    layer: str = Field(
        "last-map", description="last-map, or the name of a module whose output is a map or, with `gallery: 0`, tokens"
    )
    layout: ChannelLayout | None = Field(
        None, description="where the layer's output has its channels; default: as the network's operations show"
    )
    learn: Name = Field("train", description="split from which coresets and features come")
    evaluate: Name = Field("val", description="split on which features are compared")
    selectors: dict[str, dict[str, Any]] = Field(  # Any: the method's own
        min_length=1, description="coreset selectors with their parameters; `repeats: n` draws n times"
    )
    budgets: tuple[Share, ...] = Field(min_length=1, description="shares of each class to keep")
    interpreters: dict[str, dict[str, Any]] = Field(  # Any: the method's own
        min_length=1, description="interpretation methods with their parameters"
    )
    coreset_from: Name | None = Field(None, description="network whose activations select for all networks")
    gallery: int = Field(8, ge=0, description="validation images shown with heat maps, spread over the classes")

    DISTINCT: ClassVar = ("networks", "budgets")

    @model_validator(mode="after")
    def _few_repeats(self) -> "Interpretation":
        for name, settings in self.selectors.items():
            if isinstance(repeats := settings.get("repeats"), int) and repeats > MAX_REPEATS:
                raise ValueError(f"selectors.{name}.repeats: at most {MAX_REPEATS:,}, found {repeats}")
        return self

    def names(self) -> Iterator[tuple[str, str, str]]:
        """Yield (key, "networks" or "data", name) of every network and data set that the section names."""
        yield from super().names()
        if self.coreset_from is not None:
            yield "coreset_from", "networks", self.coreset_from
