"""The teachers stage: for each suspect the training examples that moved its answer from its label to another class.

They are ranked by what they did to the other class's logit less that of the label: by contributions over their steps,
where an update is split equally among the examples of its batch; by the derivative of the final logits by their weight
(counterfactual); or by products of gradients (TracIn).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document
from storage.layouts import Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device
from tasks.steps.common.recording import UPDATES, reading_peak
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.counterfactual import read_derivatives
from tasks.steps.tracing.scores import COUNTERFACTUAL_SCORE, TRACIN_SCORE
from tasks.steps.tracing.subjects import Subjects, read_suspects, suspect_subjects
from tasks.steps.tracing.targets import last_call
from tasks.steps.tracing.tracin import read_tracin
from tasks.steps.tracing.undecayed import undecayed

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = 1
FILE = "teachers.parquet"
DERIVED = {COUNTERFACTUAL_SCORE, TRACIN_SCORE}
MOST = 100  # suspects with teachers, the first by rank
KEPT = 5  # teachers of a suspect
COLUMNS = ["sample_id", "other", "place", "example_id", "example_key", "example_label", "value", "share"]

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]


def teachers_spec(suspects: StageSpec, scored: Mapping[str, StageSpec]) -> StageSpec:
    """Return the spec of the teachers of suspects.

    Parameters
    ----------
    scored : the stage of a score of the first suspects by its name, `counterfactual` or `tracin`; empty for
        contributions to logits
    """
    inputs = {"network": suspects.inputs["network"], "suspects": suspects, **scored}
    parameters: Document = {"network": suspects.parameters["network"]}
    for spec in scored.values():
        parameters["count"] = spec.parameters["count"]
    return TEACHERS.spec(parameters, inputs, digests=suspects.digests, place=dict(suspects.place), label=suspects.label)


def score_of(spec: StageSpec) -> str:
    """Return the name of the score by which teachers are ranked."""
    return next(iter(DERIVED & spec.inputs.keys()), "logit")


def read_teachers(store: Store, spec: StageSpec) -> pd.DataFrame:
    """Return the teachers of a finished stage, by rank of the suspect and then by place.

    Columns sample_id (the suspect), other (the class that its answer was moved to: the predicted class, or the most
    probable other one where the network answers with the label), place (from 1), example_id, example_key,
    example_label, value (in logits) and share (of all that moved the answer there). Without a linear output layer in
    the archive there are none.
    """
    return read_table(open_finished(store, spec).read_file(FILE), FILE)


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(1)


def _partition(work: Work, number: int) -> None:
    """Sum the contributions to the logits of the first suspects."""
    stage = work.stage
    store, training = stage.store, stage.spec.inputs["network"]
    rows = positions(store, training.inputs["data"].path, training_of(training).split)
    count = int(stage.spec.parameters.get("count", MOST))
    suspects = read_suspects(store, stage.spec.inputs["suspects"]).head(count)
    subjects, model = suspect_subjects(store, stage.spec, suspects, choose_device(work.device))
    sums = _derived(store, stage.spec) if DERIVED & stage.spec.inputs.keys() else _contributed(stage, model, subjects)
    table = pd.DataFrame(columns=COLUMNS)
    if sums is not None:
        others = subjects.classes[:, 1].cpu().numpy()
        table = _ranked(sums, suspects["sample_id"].to_numpy(np.int64), others, rows)
    with stage.partition(number) as part:
        part.write_file(FILE, table_bytes(table))
        part.numbers.update(measured(suspects=len(suspects), teachers=len(table)))


def _derived(store: Store, spec: StageSpec) -> Doubles:
    """Return the score of each example for each suspect, (N, suspects), of the stage that has them."""
    if COUNTERFACTUAL_SCORE in spec.inputs:
        return read_derivatives(store, spec.inputs[COUNTERFACTUAL_SCORE]).T
    return read_tracin(store, spec.inputs[TRACIN_SCORE]).T


def _contributed(stage: Stage, model: nn.Module, subjects: Subjects) -> Doubles | None:
    """Return what each example contributed (N, suspects); None without a linear output layer in the archive."""
    from tasks.capture import capture_inputs
    from tasks.modules.naming import split_call
    from tasks.modules.rows import values_of

    called = last_call(model, subjects.inputs[:1])
    if called is None:
        return None
    output, _ = split_call(called)
    if output not in open_archive(stage.store, stage.spec.inputs["network"]).layers:
        return None
    features = values_of(capture_inputs(model, [called], subjects.inputs)[called])
    return _sums(stage, output, model.get_submodule(output), features, subjects.classes)


def _sums(stage: Stage, output: str, module: nn.Module, features: Tensor, classes: Tensor) -> Doubles:
    """Return what each example contributed to the second class's logit less that to the first's, (N, suspects)."""
    from tasks.tracing.logits import logit_contributions

    training = stage.spec.inputs["network"]
    source, optimizer = open_archive(stage.store, training), training_of(training).optimizer.model_dump(mode="json")
    ids = positions(stage.store, training.inputs["data"].path, training_of(training).split)["id"].to_numpy(np.int64)
    order, members = np.argsort(ids), source.examples
    given, other = classes.unbind(1)
    sums = np.zeros((len(ids), len(features)))
    for segment in source.segments():
        for block, updates, biases in undecayed(source, output, segment, optimizer):
            moved = updates.to(features)
            bias = None if biases is None else biases.to(features)
            to_other, to_given = (
                logit_contributions(module, features, moved, each, bias_updates=bias) for each in (other, given)
            )
            for step, values in zip(block.steps.tolist(), (to_other - to_given).T.double().cpu().numpy(), strict=True):
                places = order[np.searchsorted(ids, members[step], sorter=order)]
                np.add.at(sums, places, values / max(1, len(places)))
    return sums


def _ranked(sums: Doubles, suspects: Ids, others: Ids, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the examples with the largest positive sums of each suspect."""
    tables = []
    for suspect, other, values in zip(suspects.tolist(), others.tolist(), sums.T, strict=True):
        top = np.argsort(-values, kind="stable")[:KEPT]
        top = top[values[top] > 0]
        found = pd.DataFrame(
            {
                "sample_id": suspect,
                "other": other,
                "place": np.arange(1, len(top) + 1),
                "example_id": rows["id"].to_numpy(np.int64)[top],
                "example_key": rows["key"].astype(str).to_numpy()[top],
                "example_label": rows["label_given"].to_numpy(np.int64)[top],
                "value": values[top],
                "share": values[top] / max(values[values > 0].sum(), np.finfo(float).tiny),
            }
        )
        tables.append(found)
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def _size(spec: StageSpec, survey: Survey) -> Size:
    training = spec.inputs["network"]
    n = survey.data(training.inputs["data"]).count(training_of(training).split)
    weights = state_bytes(survey.blank(training))
    peak = 3 * UPDATES + 12 * weights + 8 * n * MOST + 2 * MEMORY_SAMPLES
    return Size(96 * MOST * KEPT, peak + reading_peak(training, survey, weights))


TEACHERS = Step("teachers", VERSION, _layout, _partition, _size, network=True)
