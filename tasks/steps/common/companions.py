"""The settings of a training's companions, with what they need from the training's spec and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.steps.common.courses import AS_INPUTS, training_of
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.pruning import read_masks

IMAGES, WORDS = "image_features", "words"  # roles of the stages with the vectors of training images and of words
Settings = Mapping[str, Any]  # Any: the companion's own


def companion_settings(store: Store, spec: StageSpec) -> dict[str, Settings]:
    """Return the settings of each companion of a training, by its name; its inputs must be complete."""
    found = planned_settings(spec)
    if "masks" in spec.inputs:
        found["masks"] = {"masks": read_masks(store, spec.inputs["masks"])}
    if "diversity" in found:
        found["diversity"] = {**found["diversity"], **_features(store, spec)}
    return found


def planned_settings(spec: StageSpec) -> dict[str, Settings]:
    """Return the settings of companions, without what other stages give them."""
    train, found = training_of(spec), dict[str, Settings]()
    if train.gates is not None:
        found["gates"] = train.gates.model_dump(mode="json")
    if train.adversary is not None:
        preprocessing = preprocessing_of(spec.parameters["network"])
        scale = {"mean": list(preprocessing.mean), "std": list(preprocessing.std)}
        found["adversary"] = train.adversary.model_dump(mode="json") | scale
    if train.diversity is not None:
        found["diversity"] = train.diversity.model_dump(mode="json", exclude=AS_INPUTS["diversity"])
    return found


def _features(store: Store, spec: StageSpec) -> dict[str, Any]:  # Any: tensors, and an array of ids
    """Return the vectors of words and training images, and the ids of the images."""
    import torch

    images, words = (open_finished(store, spec.inputs[role]) for role in (IMAGES, WORDS))
    ids = images.read("sample_id").astype(np.int64)
    order = np.argsort(ids)
    return {
        "words": torch.from_numpy(words.read("text").astype(np.float32)),
        "images": torch.from_numpy(images.read("image").astype(np.float32)[order]),
        "ids": ids[order],
    }
