"""A network cut after its last map, for features that are means of maps."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.common.networks import load_network
from tasks.steps.common.trials import example_images, example_input

if TYPE_CHECKING:
    from tasks.capture import Split


@lru_cache(maxsize=2)
def open_maps(store: Store, features: StageSpec, device: str) -> Split:
    """Return the network of a penultimate stage, cut after its last map; this process keeps it for the next."""
    import torch

    from tasks.capture import LAST_MAP, split_at

    model = load_network(store, features, torch.device(device))
    images = example_images(store, features).to(device)
    return split_at(model, LAST_MAP, example_input(tuple(images.shape[1:])).to(device), images=images)


def why_no_maps(store: Store, features: StageSpec) -> str:
    """Return why features do not have maps, "" if they do: a feature must be the mean of one map."""
    d = int(open_finished(store, features).summary["features"])
    try:
        shape = open_maps(store, features, "cpu").shape
    except ValueError as error:
        return f"the network cannot be cut after its last map: {error}"
    return "" if shape[0] == d else f"the last map has {shape[0]} channels, the head {d} inputs: no feature is one map"
