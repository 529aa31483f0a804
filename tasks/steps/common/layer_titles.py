"""Names of layers for people: the name in the network with its class and sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from storage.specs import StageSpec
from tasks.figures.layer_names import joined_title
from tasks.steps.common.survey import blank_network

if TYPE_CHECKING:
    from torch import nn


def layer_titles(
    spec: StageSpec, layers: Iterable[str], n_outputs: int = 0, channels: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Return each layer's name with what it is, such as "3 · Linear 32 → 10, output"; others are left out.

    Parameters
    ----------
    spec : a stage whose parameters have the network
    n_outputs : of the network, 0 unknown
    channels : of the output of layers, which is said of those without sizes of their own
    """
    from tasks.modules.titles import layer_descriptions

    found = layer_descriptions(_model(spec), layers, n_outputs)
    titles = {}
    for layer, text in found.items():
        sized = any(sign.isdigit() for sign in text.partition(" ")[2])
        size = "" if sized or channels is None or layer not in channels else f", {channels[layer]:,} channels"
        titles[layer] = joined_title(layer, f"{text}{size}")
    return titles


def _model(spec: StageSpec) -> nn.Module:
    """Build the network of a stage, without its weights; on the meta device where the plan did so too."""
    from tasks.io.networks import build_model

    if spec.inputs.get("network") is not None or "train" in spec.place:
        return blank_network(spec)
    network = spec.parameters["network"]
    return build_model(network["model"], network["arguments"], 0)
