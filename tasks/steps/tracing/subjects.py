"""The samples that a score of the whole network is about: the queries, or the first suspects of a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.fetching import open_fetch
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import load_network
from tasks.steps.tracing.measured import measured_unit
from tasks.steps.tracing.queries import count_queries, query_inputs, target_classes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.tracing.optimizer_rules import State
    from tasks.training.course import TrainerCourse

    Measure = Callable[[State, Tensor, Tensor], Tensor]  # of a state, inputs (n, ...) and classes (n, 2): (n,)

SUSPECTS_FILE = "suspects.parquet"
OTHER = "other"  # measure of suspects: the logit of the other class less that of the given label

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Subjects:
    """Samples to explain.

    Attributes
    ----------
    inputs : (n, C, h, w) as the network takes them
    classes : (n, 2) int64: the class of each one's measure, and the class to which a suspect's answer was moved
    """

    inputs: Tensor
    classes: Tensor


def read_suspects(store: Store, spec: StageSpec) -> pd.DataFrame:
    """Return the examples of a finished stage `suspects`, the most suspicious first.

    Columns rank (from 1), sample_id, key, label_given, label_true (missing where labels are not flipped on purpose),
    predicted, score (summed loss) and disagreement (share of the neighbours in pixels that have another label).
    """
    return read_table(open_finished(store, spec).read_file(SUSPECTS_FILE), SUSPECTS_FILE)


def suspect_subjects(
    store: Store, spec: StageSpec, suspects: pd.DataFrame, device: torch.device
) -> tuple[Subjects, torch.nn.Module]:
    """Return suspects with their given labels and other classes, and the trained network of a stage."""
    import torch

    training = spec.inputs["network"]
    split = training_of(training).split
    rows = positions(store, training.inputs["data"].path, split)
    at = pd.Series(np.arange(len(rows)), index=rows["id"])
    picked = at[suspects["sample_id"]].to_numpy(np.int64, copy=True)
    inputs = open_fetch(store, training, split, device, MEMORY_SAMPLES)(picked)[0]
    model, given = (
        load_network(store, spec.inputs["suspects"], device),
        suspects["label_given"].to_numpy(np.int64, copy=True),
    )
    with torch.inference_mode():
        others = other_classes(model(inputs.clone()).float().cpu().numpy(), given)
    return Subjects(inputs, torch.from_numpy(np.stack([given, others], axis=1)).to(device)), model


def other_classes(logits: NDArray[np.float32], given: Ids) -> Ids:
    """Return the most probable class of each row that is not its given label."""
    rivals = logits.copy()
    rivals[np.arange(len(given)), given] = -np.inf
    found: Ids = rivals.argmax(axis=1).astype(np.int64)
    return found


def subjects_of(store: Store, spec: StageSpec, device: torch.device) -> Subjects:
    """Return the samples that a stage's score is about."""
    import torch

    if "suspects" in spec.inputs:
        first = read_suspects(store, spec.inputs["suspects"]).head(int(spec.parameters["count"]))
        return suspect_subjects(store, spec, first, device)[0]
    queries = spec.inputs["queries"]
    classes = target_classes(store, queries, str(spec.parameters.get("target", "given")))
    pairs = torch.from_numpy(np.stack([classes, classes], axis=1)).to(device)
    return Subjects(query_inputs(store, queries, device), pairs)


def finished_subjects(store: Store, spec: StageSpec) -> int:
    """Return the number of samples that a stage's score is about, once they are known."""
    if "suspects" in spec.inputs:
        return min(int(spec.parameters["count"]), len(read_suspects(store, spec.inputs["suspects"])))
    return int(open_finished(store, spec.inputs["queries"]).summary["queries"])


def count_subjects(spec: StageSpec, survey: Survey) -> int:
    """Return the number of samples that a stage's score is about, for its size."""
    if "suspects" not in spec.inputs:
        return count_queries(spec.inputs["queries"], survey)
    training = spec.inputs["network"]
    return min(int(spec.parameters["count"]), survey.data(training.inputs["data"]).count(training_of(training).split))


def measure_of(spec: StageSpec, course: TrainerCourse, default: str) -> Measure:
    """Return the measure of a stage; `default` is the name of the one of the queries' answers."""
    from tasks.tracing.measures import MEASURES, logit_of

    if (unit := measured_unit(spec)) is not None:
        return lambda state, inputs, classes: course.activations(state, inputs, *unit)
    name = str(spec.parameters.get("measure", default))

    def measure(state: State, inputs: Tensor, classes: Tensor) -> Tensor:
        logits = course.logits(state, inputs)
        if name == OTHER:
            return logit_of(logits, classes[:, 1]) - logit_of(logits, classes[:, 0])
        return MEASURES[name](logits, classes[:, 0])

    return measure
