"""The tracin stage: the product of each step's loss gradient with the query's, at the weights of the step.

TracIn (Pruthi et al. 2020) at every step: `lr <grad loss(query), grad loss(example)>`, summed over the steps of an
example. A positive sum lowered the query's loss. Another measure, as a unit's activation, was raised by a positive sum.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Tracin
from storage.documents import Document
from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.networks import choose_device
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.measured import check_measured
from tasks.steps.tracing.rerun import PARTITIONS, STATE_BYTES, Rerun, check_record, parts_layout
from tasks.steps.tracing.subjects import OTHER, Subjects, count_subjects, measure_of, subjects_of

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.steps.tracing.subjects import Measure
    from tasks.tracing.optimizer_rules import State
    from tasks.training.course import TrainerCourse

VERSION = 1
KEY = "tracing.scores"
LOSS = "loss"  # measure unless the parameters say otherwise
GROUP_BYTES = 256 * 2**20  # of gradients in memory at a time


def tracin_spec(queries: StageSpec, training: StageSpec, asked: Tracin) -> StageSpec:
    """Return the spec of the products of gradients for a training's queries."""
    inputs = {"network": training, "queries": queries}
    parameters: Document = {} if asked.unit is None else {"measure": asked.measure, "unit": asked.unit}
    return TRACIN.spec(parameters, inputs, digests=queries.digests, place=dict(queries.place), label=training.label)


def suspects_tracin_spec(suspects: StageSpec, count: int) -> StageSpec:
    """Return the spec of what each step added to the other class's logit, less the label's, of the first suspects."""
    inputs = {"network": suspects.inputs["network"], "suspects": suspects}
    parameters: Document = {"measure": OTHER, "count": count}
    return TRACIN.spec(parameters, inputs, digests=suspects.digests, place=dict(suspects.place), label=suspects.label)


def read_tracin(store: Store, spec: StageSpec) -> NDArray[np.float64]:
    """Return the sums (Q, N) float64 of a finished stage, by position in the training set."""
    stage = open_finished(store, spec)
    parts = [stage.read("influence", i, i + 1)[0] for i in range(stage.layout.partitions)]
    found: NDArray[np.float64] = np.sum(parts, axis=0)
    return found


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: partitions of consecutive segments."""
    return parts_layout(store, spec, "influence")


def _partition(work: Work, number: int) -> None:
    """Sum the products of the steps of a partition's segments."""

    stage, device = work.stage, choose_device(work.device)
    spec, store = stage.spec, stage.store
    rerun = Rerun(store, spec.inputs["network"], device, KEY, "float32")
    course, segments = rerun.course, rerun.source.segments()
    subjects, measure = subjects_of(store, spec, device), measure_of(spec, course, LOSS)
    # A step goes down the example's loss. So it lowers a loss of the query, and raises what has a negative product.
    sign = 1 if str(spec.parameters.get("measure", LOSS)) == LOSS else -1
    _, _, n = stage.layout.arrays["influence"].shape
    sums = np.zeros((len(subjects.inputs), n))
    with stage.partition(number) as part:
        for index in np.array_split(np.arange(len(segments)), stage.layout.partitions)[number]:
            segment = segments[index]
            passed, step = rerun.passed(segment), segment.start
            later = course.states(passed.firsts[0], segment.start, segment.stop - 1)
            for state in chain(passed.firsts[:1], later):
                found = _products(course, step, state, subjects, measure)
                np.add.at(sums.T, course.batch(step).examples, sign * found.double().cpu().numpy().T)
                step += 1
        part.write("influence", sums[None])
        part.numbers.update(measured())


def _products(course: TrainerCourse, step: int, state: State, subjects: Subjects, measure: Measure) -> Tensor:
    """Return lr <grad measure(query), grad loss(example)> of a step, (Q, B); a loss is its part of the batch's mean."""
    import torch

    from tasks.tracing.adjoint import products_of_queries, twice_differentiable

    weights = next(iter(state.tensors.values())).new_ones(course.examples(step)).requires_grad_()
    leaves = {key: value.detach().requires_grad_() for key, value in state.tensors.items()}
    with twice_differentiable():
        slopes = course.slopes(step, type(state)(leaves, state.counts), weights)
    rates = {key: course.rate(step, key[1]) for key in slopes}
    size = max(1, GROUP_BYTES // (4 * sum(slope.numel() for slope in slopes.values())))
    parts = []
    for first in range(0, len(subjects.inputs), size):
        rows = slice(first, first + size)
        with twice_differentiable():
            gradients = course.query_gradients(state, subjects.inputs[rows], subjects.classes[rows], measure)
        moved = [key for key in slopes if key in gradients]
        pulls = [rates[key] * gradients[key] for key in moved]
        (found,) = products_of_queries(f"step {step}", [slopes[key] for key in moved], [weights], pulls, retain=True)
        assert found is not None
        parts.append(found)
    return torch.cat(parts)


def _size(spec: StageSpec, survey: Survey) -> Size:
    training = spec.inputs["network"]
    check_record(training, KEY)
    check_measured(spec, survey, "tracing.tracin")
    train = training_of(training)
    sums = 8 * count_subjects(spec, survey) * survey.data(training.inputs["data"]).count(train.split)
    state = train.optimizer.copies * state_bytes(survey.blank(training))
    states = STATE_BYTES + 2 * state * (int(train.checkpoint_every**0.5) + 1)
    return Size(PARTITIONS * sums, 2 * sums + states + 2 * GROUP_BYTES + MEMORY_SAMPLES)


TRACIN = Step("tracin", VERSION, _layout, _partition, _size, network=True)
