"""The `activations` section of a config, and the layouts that a layer's output may have."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from configs.asked import Asked
from configs.section import Name

ChannelLayout = Literal["channels-first", "channels-last", "tokens"]  # (n, d, ...), (n, ..., d), (n, l, d)
GridSize = tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]  # rows, columns


class Activations(Asked):
    """Activations of named layers, stored for the user's own analysis."""

    data: Name | None = Field(
        None,
        description="data set whose activations are stored; default: the network's training data, or the only data set",
    )
    layers: tuple[str, ...] = Field(min_length=1, description="names of modules whose outputs are stored")
    layout: ChannelLayout | dict[str, ChannelLayout] | None = Field(
        None,
        description="channel layout of outputs with positions, for all layers or by layer; default: derived from the "
        "network's operations",
    )
    splits: tuple[Name, ...] = Field(("train", "val"), min_length=1, description="splits whose activations are stored")
    keep: tuple[Literal["pooled", "maps"], ...] = Field(
        ("pooled",),
        min_length=1,
        description="what is stored of each output: pooled (means over positions), maps (whole outputs), or both",
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="type of the stored activations")

    @model_validator(mode="after")
    def _layouts_of_layers(self) -> "Activations":
        for layer in self.layout if isinstance(self.layout, dict) else ():
            if layer not in self.layers:
                raise ValueError(f"layout: expected names from `layers`, found {layer!r}; add it to `layers`")
        return self
