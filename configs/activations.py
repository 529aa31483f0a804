"""Activations of named layers in a config, and the layouts that a layer's output may have."""

from typing import Literal

from pydantic import Field, model_validator

from configs.asked import Asked
from configs.section import Name

ChannelLayout = Literal["channels-first", "channels-last", "tokens"]  # (n, d, ...), (n, ..., d), (n, l, d)


class Activations(Asked):
    """No question: activations of named layers, kept for the user's own analysis."""

    data: Name | None = Field(None, description="data set; default: the network's training data, or the only one")
    layers: tuple[str, ...] = Field(min_length=1, description="names of modules, anywhere in the network")
    layout: ChannelLayout | dict[str, ChannelLayout] | None = Field(
        None,
        description="where outputs with positions have their channels, for all layers or by layer; default: as the "
        "network's operations show",
    )
    splits: tuple[Name, ...] = Field(("train", "val"), min_length=1, description="splits to run over")
    keep: tuple[Literal["pooled", "maps"], ...] = Field(
        ("pooled",), min_length=1, description="means over positions, whole outputs, or both"
    )
    dtype: Literal["float32", "float16"] = Field("float32", description="in which activations are stored")

    @model_validator(mode="after")
    def _layouts_of_layers(self) -> "Activations":
        for layer in self.layout if isinstance(self.layout, dict) else ():
            if layer not in self.layers:
                raise ValueError(f"layout: expected names of `layers`, found {layer!r}; add it to `layers`")
        return self
