"""The settings of a training's companions, with what they need from the training's spec and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from storage.specs import StageSpec
from storage.stores import Store
from tasks.steps.common.courses import training_of
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.pruning import read_masks

Settings = Mapping[str, Any]  # Any: the companion's own


def companion_settings(store: Store, spec: StageSpec) -> dict[str, Settings]:
    """Return the settings of each companion of a training, by its name; its inputs must be complete."""
    found = planned_settings(spec)
    if "masks" in spec.inputs:
        found["masks"] = {"masks": read_masks(store, spec.inputs["masks"])}
    return found


def planned_settings(spec: StageSpec) -> dict[str, Settings]:
    """Return the settings of the companions that do not need the results of other stages."""
    train, found = training_of(spec), dict[str, Settings]()
    if train.gates is not None:
        found["gates"] = train.gates.model_dump(mode="json")
    if train.adversary is not None:
        preprocessing = preprocessing_of(spec.parameters["network"])
        scale = {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}
        found["adversary"] = train.adversary.model_dump(mode="json") | scale
    return found
