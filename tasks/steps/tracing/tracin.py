"""The tracin stage: the product of each step's loss gradient with the query's, at the weights of the step.

TracIn (Pruthi et al. 2020) at every step: `lr <grad loss(query), grad loss(example)>`, summed over the steps of an
example. A positive sum lowered the query's loss. A unit's activation, negated, may take the place of that loss: then a
positive sum raised the activation.
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
from tasks.steps.tracing.measured import check_measured, measured_unit
from tasks.steps.tracing.queries import count_queries, query_inputs
from tasks.steps.tracing.rerun import PARTITIONS, STATE_BYTES, Rerun, check_record, parts_layout

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.tracing.optimizer_rules import State
    from tasks.training.course import TrainerCourse

VERSION = 1
KEY = "tracing.scores"
GROUP_BYTES = 256 * 2**20  # of gradients in memory at a time


def tracin_spec(queries: StageSpec, training: StageSpec, asked: Tracin) -> StageSpec:
    """Return the spec of the products of gradients for a training's queries."""
    inputs = {"network": training, "queries": queries}
    parameters: Document = {} if asked.unit is None else {"measure": asked.measure, "unit": asked.unit}
    return TRACIN.spec(parameters, inputs, digests=queries.digests, place=dict(queries.place), label=training.label)


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
    import torch

    stage, device = work.stage, choose_device(work.device)
    spec, store = stage.spec, stage.store
    queries = spec.inputs["queries"]
    rerun = Rerun(store, spec.inputs["network"], device, KEY, "float32")
    course, segments = rerun.course, rerun.source.segments()
    inputs = query_inputs(store, queries, device)
    classes = torch.from_numpy(open_finished(store, queries).read("label").astype(np.int64)).to(device)
    _, _, n = stage.layout.arrays["influence"].shape
    sums = np.zeros((len(inputs), n))
    with stage.partition(number) as part:
        for index in np.array_split(np.arange(len(segments)), stage.layout.partitions)[number]:
            segment = segments[index]
            passed, step = rerun.passed(segment), segment.start
            later = course.states(passed.firsts[0], segment.start, segment.stop - 1)
            for state in chain(passed.firsts[:1], later):
                found = _products(course, step, state, (inputs, classes), measured_unit(spec))
                np.add.at(sums.T, course.batch(step).examples, found.double().cpu().numpy().T)
                step += 1
        part.write("influence", sums[None])
        part.numbers.update(measured())


def _products(
    course: TrainerCourse, step: int, state: State, queries: tuple[Tensor, Tensor], unit: tuple[str, int] | None
) -> Tensor:
    """Return lr <grad loss(query), grad loss(example)> of a step, (Q, B); a loss is its part of the batch's mean.

    With a unit, minus its activation takes the place of the query's loss.
    """
    import torch

    from tasks.tracing.adjoint import products_of_queries, twice_differentiable

    weights = next(iter(state.tensors.values())).new_ones(course.examples(step)).requires_grad_()
    leaves = {key: value.detach().requires_grad_() for key, value in state.tensors.items()}
    with twice_differentiable():
        slopes = course.slopes(step, type(state)(leaves, state.counts), weights)
    rates, (inputs, classes) = {key: course.rate(step, key[1]) for key in slopes}, queries
    size = max(1, GROUP_BYTES // (4 * sum(slope.numel() for slope in slopes.values())))
    parts = []
    for first in range(0, len(inputs), size):
        rows = slice(first, first + size)
        with twice_differentiable():
            gradients = course.query_gradients(state, inputs[rows], classes[rows], unit)
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
    sums = 8 * count_queries(spec.inputs["queries"], survey) * survey.data(training.inputs["data"]).count(train.split)
    state = train.optimizer.copies * state_bytes(survey.blank(training))
    states = STATE_BYTES + 2 * state * (int(train.checkpoint_every**0.5) + 1)
    return Size(PARTITIONS * sums, 2 * sums + states + 2 * GROUP_BYTES + MEMORY_SAMPLES)


TRACIN = Step("tracin", VERSION, _layout, _partition, _size, network=True)
