"""The decomposed-training stage: further training of a decomposed head, alone or with the whole network.

It is a chain of segments like any training. Its curves begin with epoch 0: the accuracy before the first step, A_d.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from configs.schema import Network
from configs.training import Training
from storage.documents import Document
from storage.partitions import Partition
from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.chain import (
    Opened,
    chain_layout,
    chain_summary,
    check_chain,
    held_out_images,
    keep_content,
    train_segment,
)
from tasks.steps.common.courses import (
    CURVES,
    MEMORY_SAMPLES,
    course_size,
    key_settings,
    labels_of,
    open_batches,
    training_of,
)
from tasks.steps.common.networks import filled_network, network_identity
from tasks.steps.common.rows import read_rows
from tasks.steps.common.survey import state_bytes
from tasks.steps.common.trainable import check_trainable
from tasks.steps.common.trainer import make_trainer, open_samples, set_deterministic
from tasks.steps.common.trials import example_input
from tasks.steps.decomposition.features import head_shapes, open_head, read_features
from tasks.steps.decomposition.gates import ROWS
from tasks.steps.decomposition.histogram import features_of, read_sets
from tasks.training.batches import Positions

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tasks.decomposition.linear import DecomposedLinear
    from tasks.training.loop import Fetch

VERSION = 2  # the gradient of features that several classes read is summed in another order
# Settings that only the training of a network has.
REFUSED = ("start", "gates", "adversary", "lottery", "diversity", "record", "snapshots")

Scope = Literal["head", "network"]


def decomposed_training_spec(
    name: str,
    network: Network,
    training: StageSpec | None,
    histogram: StageSpec,
    k2: int,
    features: Mapping[str, StageSpec],
    train: Training,
    scope: Scope,
    seed: int,
) -> StageSpec:
    """Return the spec of the training of a decomposed head, or of a network with a decomposed head.

    Parameters
    ----------
    training : training of the network, None if its weights come from a file
    histogram : gives the k2 most frequent features, which each class reads
    features : penultimate features of `learn` and `evaluate`; a head learns from these, a network from their images
    train : settings of the training; `split` and `evaluate` are those of `features`
    scope : the trained part
    seed : seed of batches and augmentation

    Raises
    ------
    ValueError : a setting that such a training does not have
    """
    refused = [key for key in REFUSED if getattr(train, key) is not None]
    if scope == "head" and train.augment is not None:
        refused.append("augment")
    if refused:
        raise ValueError(
            f"retraining of a decomposed {scope} of {name}: expected settings without `{refused[0]}`; remove it"
        )
    learn, evaluate = features["learn"], features["evaluate"]
    assert (learn.parameters["split"], evaluate.parameters["split"]) == (train.split, train.evaluate), train
    parameters, place, digests = network_identity(name, network, training)
    inputs = {"data": learn.inputs["data"], "histogram": histogram}
    if scope == "head":
        inputs["evaluate"] = evaluate
    elif training is not None:
        inputs["network"] = training
    return DECOMPOSED_TRAININGS.spec(
        {"network": parameters, "scope": scope, "k2": k2, "train": key_settings(train), "seed": seed},
        inputs,
        digests=digests,
        place={**place, "train": train.model_dump(mode="json")},
        label=f"{name} {scope} k {k2} seed {seed}",
    )


def read_curves(store: Store, spec: StageSpec) -> pd.DataFrame:
    """Return a finished training's curves, a row per epoch: epoch, loss (NaN at 0), accuracy, lr if it varies."""
    return read_table(open_finished(store, spec).read_file(CURVES), f"{spec.path}/files/{CURVES}")


def open_features(store: Store, features: StageSpec, device: torch.device, memory: int) -> Fetch:
    """Return a function from positions to stored features (n, d) float32 and labels, on the device.

    Parameters
    ----------
    features : spec of a penultimate stage
    memory : features up to this number of bytes are kept whole; otherwise each batch is read, chunk by chunk
    """
    import torch

    finished = open_finished(store, features)
    n, d = finished.layout.arrays["features"].shape
    labels = torch.from_numpy(finished.read("label").astype(np.int64))
    whole = _read_whole(store, features) if 4 * n * d <= memory else None

    def fetch(picked: Positions) -> tuple[Tensor, Tensor]:
        at = torch.from_numpy(picked)
        found = (
            torch.from_numpy(read_rows(finished, "features", picked).astype(np.float32)) if whole is None else whole[at]
        )
        return found.to(device), labels[at].to(device)

    return fetch


@lru_cache(maxsize=2)
def _read_whole(store: Store, features: StageSpec) -> Tensor:
    """Return all features; this process keeps those of two splits for the next segment."""
    import torch

    finished = open_finished(store, features)
    return torch.from_numpy(read_features(finished, 0, finished.layout.arrays["features"].shape[0]))


def _open(stage: Stage, part: Partition, device: torch.device) -> Opened:
    """Return the training of a head or of a network; its accuracy before the first step is A_d."""
    set_deterministic(device)
    return (_open_head if stage.spec.parameters["scope"] == "head" else _open_network)(stage, part, device)


def _open_head(stage: Stage, part: Partition, device: torch.device) -> Opened:
    """Return the training of a decomposed head on stored features, with the digests of their samples."""
    import torch

    from tasks.training.loop import Samples

    store, spec = stage.store, stage.spec
    train, seed, evaluate = training_of(spec), int(spec.parameters["seed"]), spec.inputs["evaluate"]
    learn = features_of(spec.inputs["histogram"])
    labels = labels_of(open_finished(store, spec.inputs["data"]).summary["splits"][train.split])
    ids = open_finished(store, learn).read("sample_id").astype(np.int64)
    samples = Samples(open_features(store, learn, device, MEMORY_SAMPLES), open_batches(train, labels, seed), ids)
    head = _decomposed(store, spec, open_head(store, learn, torch.device("cpu")))
    held_out = open_features(store, evaluate, device, MEMORY_SAMPLES)
    n_held_out = open_finished(store, evaluate).layout.arrays["features"].shape[0]
    return Opened(make_trainer(train, seed, head, samples, device), held_out, n_held_out, from_weights=True)


def _open_network(stage: Stage, part: Partition, device: torch.device) -> Opened:
    """Return the training of a whole network with a decomposed head, on images."""
    from tasks.decomposition.head import find_head, replace_head

    if part.number == 0:
        keep_content(stage, part)
    store, spec = stage.store, stage.spec
    train, seed = training_of(spec), int(spec.parameters["seed"])
    samples = open_samples(store, spec, device, MEMORY_SAMPLES, seed)
    inputs, _ = samples.fetch(np.zeros(1, np.int64))
    model = filled_network(store, spec).eval()
    head = find_head(model, example_input(tuple(inputs.shape[1:])))
    replace_head(model, head.name, _decomposed(store, spec, head.module))
    trainer = make_trainer(train, seed, model, samples, device)
    return Opened(trainer, *held_out_images(stage, device), from_weights=True)


def _decomposed(store: Store, spec: StageSpec, head: nn.Linear) -> DecomposedLinear:
    """Return the decomposed form of a head for the sets of a stage."""
    from tasks.decomposition.linear import DecomposedLinear

    return DecomposedLinear.from_linear(head, read_sets(store, spec.inputs["histogram"], int(spec.parameters["k2"])))


def _partition(work: Work, number: int) -> None:
    """Train one segment of a decomposed training."""
    train_segment(work, number, _open)


def _summary(stage: Stage) -> Document:
    """Return the accuracies before the first and after the last step."""
    return {**chain_summary(stage), "scope": stage.spec.parameters["scope"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: a checkpoint holds the weights and the optimiser's state of each, as in any training."""
    head, k2 = head_shapes(features_of(spec.inputs["histogram"]), survey), int(spec.parameters["k2"])
    if k2 > head.features:
        raise ValueError(f"decomposition.k2: expected at most the {head.features} features of {spec.label}, found {k2}")
    train = training_of(spec)
    most = max(ROWS, train.batches.most)
    weights = 4 * head.outputs * (3 * k2 + 1)  # bytes of weights, indices (8 bytes each) and bias
    held = 4 * head.features * (head.outputs + 2 * most)
    if spec.parameters["scope"] == "network":
        check_trainable(spec, survey, key="decomposition.retraining.network")
        weights += state_bytes(survey.blank(spec))
        held = 3 * most * 4 * head.largest
    course = course_size(spec, survey, weights, key=f"decomposition.retraining.{spec.parameters['scope']}")
    return Size(course.written, course.peak + held)


DECOMPOSED_TRAININGS = Step(
    "decomposed-training",
    VERSION,
    chain_layout,
    _partition,
    _size,
    summary=_summary,
    check=check_chain,
    network=True,
    chain=True,
    curves=CURVES,
)
