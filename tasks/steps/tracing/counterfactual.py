"""The counterfactual stage: derivatives of the queries' answers by the weight of each training example.

The adjoint goes back segment by segment, from the last to the first. Each partition hands it to the next as a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.tracing import Counterfactual
from storage.documents import Document, digest
from storage.layouts import Layout
from storage.results import read_table, table_bytes
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from storage.updates.archives import Segment
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.chain import read_checkpoint
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.networks import choose_device
from tasks.steps.common.survey import state_bytes
from tasks.steps.tracing.measured import check_measured
from tasks.steps.tracing.rerun import PARTITIONS, STATE_BYTES, Rerun, check_record, parts_layout
from tasks.steps.tracing.subjects import OTHER, count_subjects, measure_of, subjects_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tasks.tracing.adjoint import Adjoint
    from tasks.tracing.optimizer_rules import State

VERSION = 1
KEY = "tracing.counterfactual"
GROUP_BYTES = 256 * 2**20  # of what one step's product holds for a group of queries
ANSWERED = 32  # queries whose answers are differentiated at a time
END = "end"  # norms of the queries' adjoints after the last step, in the file of the adjoint

Doubles = NDArray[np.float64]


def counterfactual_spec(queries: StageSpec, training: StageSpec, asked: Counterfactual) -> StageSpec:
    """Return the spec of the derivatives of a training's queries."""
    named = {"measure", "precision", "target" if asked.unit is None else "unit"}
    parameters: Document = asked.model_dump(mode="json", include=named)
    inputs = {"network": training, "queries": queries}
    return COUNTERFACTUAL.spec(
        parameters, inputs, digests=queries.digests, place=dict(queries.place), label=training.label
    )


def suspects_counterfactual_spec(suspects: StageSpec, count: int, asked: Counterfactual) -> StageSpec:
    """Return the spec of the derivatives of the other class's logit, less the label's, of the first suspects."""
    inputs = {"network": suspects.inputs["network"], "suspects": suspects}
    parameters: Document = {"measure": OTHER, "precision": asked.precision, "count": count}
    return COUNTERFACTUAL.spec(
        parameters, inputs, digests=suspects.digests, place=dict(suspects.place), label=suspects.label
    )


def read_derivatives(store: Store, spec: StageSpec) -> Doubles:
    """Return the derivatives (Q, N) float64 of a finished stage, by position in the training set."""
    stage = open_finished(store, spec)
    found: Doubles = np.sum([stage.read("derivative", i, i + 1)[0] for i in range(stage.layout.partitions)], axis=0)
    return found


def read_growth(store: Store, spec: StageSpec) -> pd.DataFrame:
    """Return the growth of the adjoint by step, columns step and growth."""
    stage = open_finished(store, spec)
    names = [_growth_file(number) for number in range(stage.layout.partitions)]
    tables = [read_table(stage.read_file(name), name) for name in names]
    return pd.concat(tables).sort_values("step", ignore_index=True)


def _growth_file(number: int) -> str:
    """Return the file name of a partition's growth."""
    return f"growth-{number:06d}.parquet"


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: partitions of consecutive segments, the last segments first."""
    return parts_layout(store, spec, "derivative")


def _partition(work: Work, number: int) -> None:
    """Take the adjoint through the segments of a partition, and credit their examples."""
    stage, device = work.stage, choose_device(work.device)
    spec, store = stage.spec, stage.store
    rerun = Rerun(store, spec.inputs["network"], device, KEY, str(spec.parameters["precision"]))
    parts = np.array_split(np.arange(len(rerun.source.segments()))[::-1], stage.layout.partitions)
    segments = [rerun.source.segments()[index] for index in parts[number]]
    with stage.partition(number) as part:
        going = _Going(stage, rerun, device, number)
        for segment in segments:
            going.through(segment)
        part.write("derivative", going.sums[None])
        growth = pd.DataFrame(sorted(going.growth.items()), columns=["step", "growth"])
        part.write_file(_growth_file(number), table_bytes(growth))
        if number < stage.layout.partitions - 1:
            data = going.packed()
            name = f"adjoint-{number:06d}-{digest(data)[:12]}.safetensors"
            part.write_file(name, data)
            part.numbers["adjoint"] = name
        part.numbers.update(measured(steps=len(growth), group=going.group))


class _Going:
    """The adjoints of all queries on their course backwards.

    Attributes
    ----------
    sums : (Q, N) derivatives of the steps so far
    growth : largest growth of a query's adjoint by step
    group : queries that go through a step together
    """

    def __init__(self, stage: Stage, rerun: Rerun, device: torch.device, number: int) -> None:
        self._stage, self._rerun, self._device = stage, rerun, device
        _, n_queries, n = stage.layout.arrays["derivative"].shape
        self.sums, self.growth, self.group = np.zeros((n_queries, n)), dict[int, float](), 0
        self._places = np.arange(n)
        self._adjoint: Adjoint | None = None
        self._end: Doubles = np.ones(n_queries)
        if number:
            self._unpack(number)

    def through(self, segment: Segment) -> None:
        """Take the adjoints through a segment, the one before the last one taken."""
        from tasks.tracing.adjoint import go_back, norms
        from tasks.tracing.derivatives import CreditSums
        from tasks.training.kept import step_bytes

        course, passed = self._rerun.course, self._rerun.passed(segment)
        if self._adjoint is None:
            self._adjoint = self._answers(passed.last)
            self._end = norms(self._adjoint, len(self.sums)).double().cpu().numpy()
        if not self.group:
            self.group = max(1, min(len(self.sums), GROUP_BYTES // step_bytes(course, segment.start, passed.firsts[0])))
        parts = []
        for first in range(0, len(self.sums), self.group):
            rows = slice(first, first + self.group)
            sums = CreditSums(lambda t: course.batch(t).examples, self._places, self.sums[rows], self._end[rows])
            parts.append(go_back(course, passed, {key: value[rows] for key, value in self._adjoint.items()}, sums))
            for step, growth in sums.growth.items():
                self.growth[step] = max(self.growth.get(step, 0.0), growth)
        self._adjoint = _joined(parts)

    def packed(self) -> bytes:
        """Return the adjoints as a file."""
        import torch

        from tasks.io.tensors import pack_tensors

        assert self._adjoint is not None
        named = {f"{part}:{name}": value for (part, name), value in self._adjoint.items()}
        return pack_tensors({**named, END: torch.from_numpy(self._end)})

    def _unpack(self, number: int) -> None:
        """Read the adjoints that the partition before left."""
        from tasks.io.tensors import unpack_tensors

        record = self._stage.marker(number - 1)
        assert record is not None, number
        found = unpack_tensors(read_checkpoint(self._stage, record["numbers"]["adjoint"]))
        self._end = found.pop(END).numpy()
        named = {key.partition(":"): value.to(self._device) for key, value in found.items()}
        self._adjoint = {(part, name): value for (part, _, name), value in named.items()}

    def _answers(self, last: State) -> Adjoint:
        """Return the derivatives of the queries' measures by the last state."""
        from tasks.tracing.adjoint import rows_of_jacobian
        from tasks.tracing.optimizer_rules import State

        spec = self._stage.spec
        subjects, measure = (
            subjects_of(self._stage.store, spec, self._device),
            measure_of(spec, self._rerun.course, "margin"),
        )
        parts = []
        for first in range(0, len(subjects.inputs), ANSWERED):
            rows = slice(first, first + ANSWERED)
            leaves = {key: value.detach().requires_grad_() for key, value in last.tensors.items()}
            state = State(leaves, last.counts)

            def answers(state: State = state, rows: slice = rows) -> Tensor:
                return measure(state, subjects.inputs[rows], subjects.classes[rows])

            parts.append(rows_of_jacobian(answers, leaves))
        return _joined(parts)


def _joined(parts: Sequence[Adjoint]) -> Adjoint:
    """Return the adjoints of all queries from those of groups; all groups have the same parts."""
    import torch

    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def _summary(stage: Stage) -> Document:
    """Return what the derivatives are of."""
    return dict(stage.spec.parameters)


def _size(spec: StageSpec, survey: Survey) -> Size:
    training = spec.inputs["network"]
    check_record(training, survey, KEY)
    check_measured(spec, survey, KEY)
    train = training_of(training)
    n, found = count_subjects(spec, survey), survey.data(training.inputs["data"])
    wide = 2 if spec.parameters["precision"] == "float64" else 1
    state = wide * train.optimizer.copies * state_bytes(survey.blank(training))
    sums = 8 * n * found.count(train.split)
    states = STATE_BYTES + 2 * state * (int(train.checkpoint_every**0.5) + 1)
    return Size(PARTITIONS * (n * state + sums), 3 * n * state + sums + states + GROUP_BYTES + MEMORY_SAMPLES)


COUNTERFACTUAL = Step("counterfactual", VERSION, _layout, _partition, _size, summary=_summary, network=True, chain=True)
