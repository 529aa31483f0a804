"""The tracin stage: products of examples' loss gradients with the query's, at the weights of steps or checkpoints.

TracIn (Pruthi et al. 2020): `lr <grad loss(query), grad loss(example)>`, summed over the steps of an example. A
positive sum lowered the query's loss. Another measure, as a unit's activation, was raised by a positive sum. TracInCP
of the same paper sums over some checkpoints, at which every example takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Tracin
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from storage.updates.archives import Segment
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
    from tasks.tracing.optimizer_rules import Part, State
    from tasks.training.course import TrainerCourse

VERSION = 1
KEY = "tracing.scores"
SELF = "self"
LOSS = "loss"  # measure unless the parameters say otherwise
GROUP_BYTES = 256 * 2**20  # of gradients in memory at a time, and of what they are made from
TOGETHER = 128  # examples, at most, whose gradients at a checkpoint are in memory at a time


def tracin_spec(queries: StageSpec, training: StageSpec, asked: Tracin) -> StageSpec:
    """Return the spec of the products of gradients for a training's queries."""
    inputs = {"network": training, "queries": queries}
    parameters: Document = {} if asked.unit is None else {"measure": asked.measure, "unit": asked.unit}
    parameters |= _checkpoints(asked)
    return TRACIN.spec(parameters, inputs, digests=queries.digests, place=dict(queries.place), label=training.label)


def suspects_tracin_spec(suspects: StageSpec, count: int, asked: Tracin) -> StageSpec:
    """Return the spec of what added to the other class's logit, less the label's, of the first suspects."""
    inputs = {"network": suspects.inputs["network"], "suspects": suspects}
    parameters: Document = {"measure": OTHER, "count": count, **_checkpoints(asked)}
    return TRACIN.spec(parameters, inputs, digests=suspects.digests, place=dict(suspects.place), label=suspects.label)


def read_tracin(store: Store, spec: StageSpec) -> NDArray[np.float64]:
    """Return the sums (Q, N) float64 of a finished stage, by position in the training set."""
    stage = open_finished(store, spec)
    parts = [stage.read("influence", i, i + 1)[0] for i in range(stage.layout.partitions)]
    found: NDArray[np.float64] = np.sum(parts, axis=0)
    return found


def read_self_influence(store: Store, spec: StageSpec) -> NDArray[np.float64] | None:
    """Return lr |grad loss(example)|^2 summed over checkpoints, (N,) float64; None for a stage of every step.

    Wrong labels have the largest ones (Pruthi et al. 2020, Section 4.1).
    """
    if "checkpoints" not in spec.parameters:
        return None
    found: NDArray[np.float64] = open_finished(store, spec).read(SELF).sum(axis=0)
    return found


def _checkpoints(asked: Tracin) -> Document:
    """Return what a key has of the checkpoints: nothing where the weights of every step are asked for."""
    return {} if asked.checkpoints is None else {"checkpoints": asked.checkpoints}


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: partitions of consecutive segments."""
    if "checkpoints" not in spec.parameters:
        return parts_layout(store, spec, "influence")
    found = parts_layout(store, spec, "influence", int(spec.parameters["checkpoints"]))
    parts, _, examples = found.arrays["influence"].shape
    own = ArrayLayout((parts, examples), "float64", ("part", "example"), 1, 1)
    return Layout(found.partitions, {**found.arrays, SELF: own})


def _partition(work: Work, number: int) -> None:
    """Sum the products of a partition: of the steps of its segments, or at the checkpoints after them."""
    stage, device = work.stage, choose_device(work.device)
    spec, store = stage.spec, stage.store
    most = spec.parameters.get("checkpoints")
    rerun = Rerun(store, spec.inputs["network"], device, KEY, "float32", steps=most is None)
    segments = rerun.source.segments() if most is None else _spread(rerun.source.segments(), int(most))
    subjects, measure = subjects_of(store, spec, device), measure_of(spec, rerun.course, LOSS)
    # A step goes down the example's loss. So it lowers a loss of the query, and raises what has a negative product.
    sign = 1 if str(spec.parameters.get("measure", LOSS)) == LOSS else -1
    _, _, n = stage.layout.arrays["influence"].shape
    sums, own = np.zeros((len(subjects.inputs), n)), np.zeros(n)
    with stage.partition(number) as part:
        for index in np.array_split(np.arange(len(segments)), stage.layout.partitions)[number]:
            if most is None:
                _add_steps(rerun, segments[index], subjects, measure, sums)
            else:
                _add_checkpoint(rerun, segments[index], subjects, measure, sums, own)
        part.write("influence", sign * sums[None] + 0.0)  # no negative zeros
        if most is not None:
            part.write(SELF, own[None])
        part.numbers.update(measured())


def _spread(segments: Sequence[Segment], count: int) -> list[Segment]:
    """Return segments spread evenly up to the last one, all if there are fewer."""
    ends = np.arange(1, min(count, len(segments)) + 1) / min(count, len(segments))
    return [segments[round(float(end) * len(segments)) - 1] for end in ends]


def _add_steps(rerun: Rerun, segment: Segment, subjects: Subjects, measure: Measure, sums: NDArray[np.float64]) -> None:
    """Add the products of each step of a segment to the sums (Q, N) of the step's examples."""
    passed, course, step = rerun.passed(segment), rerun.course, segment.start
    later = course.states(passed.firsts[0], segment.start, segment.stop - 1)
    for state in chain(passed.firsts[:1], later):
        found = _products(course, step, state, subjects, measure)
        np.add.at(sums.T, course.batch(step).examples, found.double().cpu().numpy().T)
        step += 1


def _add_checkpoint(
    rerun: Rerun,
    segment: Segment,
    subjects: Subjects,
    measure: Measure,
    sums: NDArray[np.float64],
    own: NDArray[np.float64],
) -> None:
    """Add lr <grad measure(query), grad loss(example)> at the weights after a segment to the sums (Q, N).

    The network is in evaluation mode, so that no other example plays a part in an example's loss. Pruned weights do not
    count.

    Parameters
    ----------
    own : (N,) sums of lr |grad loss(example)|^2
    """
    import torch

    from tasks.tracing.measures import loss_of
    from tasks.tracing.optimizer_rules import WEIGHT
    from tasks.tracing.tracin import gradient_products, self_products
    from tasks.training.kept import gradient_bytes, nbytes

    state, course = rerun.after(segment), rerun.course

    def loss(state: State, inputs: Tensor, classes: Tensor) -> Tensor:
        return loss_of(course.logits(state, inputs), classes)

    def rate(part: Part) -> float:
        return course.rate(segment.stop - 1, part[1])

    each, alone = nbytes(state.part(WEIGHT).values()), gradient_bytes(course, state, subjects.inputs[:1])
    held, size = max(1, GROUP_BYTES // each), max(1, GROUP_BYTES // alone)

    def gradients(inputs: Tensor, classes: Tensor, measure: Measure) -> dict[Part, Tensor]:
        parts = [
            course.query_gradients(state, inputs[low : low + size], classes[low : low + size], measure)
            for low in range(0, len(inputs), size)
        ]
        return {key: torch.cat([part[key] for part in parts]) for key in parts[0]} if len(parts) > 1 else parts[0]

    for first in range(0, len(subjects.inputs), held):
        rows = slice(first, first + held)
        pulls = gradients(subjects.inputs[rows], subjects.classes[rows], measure)
        for low in range(0, len(own), min(held, TOGETHER)):
            picked = np.arange(low, min(low + min(held, TOGETHER), len(own)))
            slopes = course.remaining(gradients(*rerun.examples(picked), loss))
            sums[rows, picked] += gradient_products(pulls, slopes, rate).cpu().numpy()
            if first == 0:
                own[picked] += self_products(slopes, rate).cpu().numpy()
            del slopes  # before the next ones are made
        del pulls


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
    training, most = spec.inputs["network"], spec.parameters.get("checkpoints")
    if most is None:
        check_record(training, survey, KEY)
    check_measured(spec, survey, "tracing.tracin")
    train, n = training_of(training), survey.data(training.inputs["data"]).count(training_of(training).split)
    sums, weights = 8 * count_subjects(spec, survey) * n, state_bytes(survey.blank(training))
    state = train.optimizer.copies * weights
    if most is None:
        states = STATE_BYTES + 2 * state * (int(train.checkpoint_every**0.5) + 1)
        return Size(PARTITIONS * sums, 2 * sums + states + 2 * GROUP_BYTES + MEMORY_SAMPLES)
    sums += 8 * n
    peak = 2 * sums + 3 * state + 4 * max(GROUP_BYTES, weights) + MEMORY_SAMPLES
    return Size(min(PARTITIONS, int(most)) * sums, peak)


TRACIN = Step("tracin", VERSION, _layout, _partition, _size, network=True)
