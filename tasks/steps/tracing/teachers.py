"""The teachers stage: for each suspect the training examples that moved its answer from its label to another class.

They are ranked by their contribution to the other class's logit less that to the label's, over their steps. An update
is split equally among the examples of its batch.
"""

from __future__ import annotations

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
from tasks.steps.common.fetching import open_fetch
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.recording import UPDATES, reading_peak
from tasks.steps.common.replays import open_archive
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.suspects import read_suspects
from tasks.steps.tracing.undecayed import undecayed

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = 1
FILE = "teachers.parquet"
MOST = 100  # suspects with teachers, the first by rank
KEPT = 5  # teachers of a suspect
COLUMNS = ["sample_id", "other", "place", "example_id", "example_key", "example_label", "value", "share"]

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]


def teachers_spec(suspects: StageSpec) -> StageSpec:
    """Return the spec of the teachers of suspects."""
    inputs = {"network": suspects.inputs["network"], "suspects": suspects}
    parameters: Document = {"network": suspects.parameters["network"]}
    return TEACHERS.spec(parameters, inputs, digests=suspects.digests, place=dict(suspects.place), label=suspects.label)


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
    import torch

    from tasks.capture import capture_inputs, find_output_layer
    from tasks.modules.rows import values_of

    stage, device = work.stage, choose_device(work.device)
    store, training = stage.store, stage.spec.inputs["network"]
    split = training_of(training).split
    rows = positions(store, training.inputs["data"].path, split)
    suspects = read_suspects(store, stage.spec.inputs["suspects"]).head(MOST)
    at = pd.Series(np.arange(len(rows)), index=rows["id"])
    picked = at[suspects["sample_id"]].to_numpy(np.int64, copy=True)
    inputs = open_fetch(store, training, split, device, MEMORY_SAMPLES)(picked)[0]
    model, given = load_network(store, stage.spec, device), suspects["label_given"].to_numpy(np.int64, copy=True)
    output = find_output_layer(model, inputs[:1])
    table = pd.DataFrame(columns=COLUMNS)
    if output is not None and output in open_archive(store, training).layers:
        with torch.inference_mode():
            others = other_classes(model(inputs.clone()).float().cpu().numpy(), given)
        features = values_of(capture_inputs(model, [output], inputs)[output])
        sums = _sums(stage, output, model.get_submodule(output), features, (given, others))
        table = _ranked(sums, suspects["sample_id"].to_numpy(np.int64), others, rows)
    with stage.partition(number) as part:
        part.write_file(FILE, table_bytes(table))
        part.numbers.update(measured(suspects=len(suspects), teachers=len(table)))


def other_classes(logits: NDArray[np.float32], given: Ids) -> Ids:
    """Return the most probable class of each row that is not its given label."""
    rivals = logits.copy()
    rivals[np.arange(len(given)), given] = -np.inf
    found: Ids = rivals.argmax(axis=1).astype(np.int64)
    return found


def _sums(stage: Stage, output: str, module: nn.Module, features: Tensor, classes: tuple[Ids, Ids]) -> Doubles:
    """Return what each example contributed to the second class's logit less that to the first's, (N, suspects)."""
    import torch

    from tasks.tracing.logits import logit_contributions

    training = stage.spec.inputs["network"]
    source, optimizer = open_archive(stage.store, training), training_of(training).optimizer.model_dump(mode="json")
    ids = positions(stage.store, training.inputs["data"].path, training_of(training).split)["id"].to_numpy(np.int64)
    order, members = np.argsort(ids), source.examples
    given, other = (torch.from_numpy(each).to(features.device) for each in classes)
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
