"""The updates of a replayed layer: what they add to preactivations, as a whole and by example."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from storage.updates.archives import Segment
from tasks.modules.embedding import tokens_as_floats
from tasks.modules.rows import Inputs, values_of
from tasks.recording.columns import Credit, KeptColumns, check_credit, share_equally, share_rest
from tasks.recording.decays import DecayPull
from tasks.recording.step_blocks import WholeBlock
from tasks.recording.step_shares import StepShares, columns_of
from tasks.tracing import Contributions, gammas
from tasks.tracing.prepared import Prepared, Queries
from tasks.tracing.strategies import checked_operation

if TYPE_CHECKING:
    from tasks.recording.replay import ReplaySource

LARGE = 4 * 2**20  # bytes of an update that is not formed whole


@dataclass(frozen=True)
class ReplayBlock(WholeBlock):
    """The updates of some steps of one layer, recomputed bit for bit.

    Parameters
    ----------
    layer, start, stop, recorded, biases : as in `StepBlock`
    states : weights (*shape) before the first row and after each, n + 1 of them
    prepared : projectors of the blocks of a segment
    source, segment : where the steps can be made again
    members : gradients by member of each step, if the replay kept them
    columns : queries that the blocks of a segment have prepared for them
    """

    states: tuple[Tensor, ...]
    prepared: Prepared = field(repr=False)
    source: "ReplaySource"
    segment: Segment
    pull: DecayPull
    members: tuple[StepShares, ...] | None = None
    columns: KeptColumns = field(default_factory=KeptColumns, repr=False)

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each, (n + 1, *shape); a copy."""
        return torch.stack(self.states)

    def projectors(self) -> Prepared:
        """Return the projectors that the blocks of a segment share."""
        return self.prepared

    def project(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Contributions:
        """Return `tasks.tracing.contributions` of these updates, as `WholeBlock.project` does.

        A large update that is a block of its own is not formed whole.
        """
        inputs = tokens_as_floats(module, weight, inputs)
        queries = Queries(module, weight, inputs, anchor, bias)
        ends, values = self.states, values_of(inputs)
        alike = {(t.dtype, t.device) for t in (*ends, values)} == {(torch.float32, torch.device("cpu"))}
        if len(ends) == 2 and alike and ends[0].nbytes >= LARGE:
            known = self.prepared.known(self.layer, queries, 1)
            if known is not None and known.takes_ends:
                with self.naming_steps():
                    return known.between(*ends)
        return super().project(module, weight, inputs, anchor=anchor, bias=bias)

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates W_{t+1} - W_t, (n, *shape), on the CPU; `dtype` as for a dense archive."""
        wanted = dtype or torch.promote_types(self.states[0].dtype, torch.float32)
        found = torch.empty(len(self.states) - 1, *self.states[0].shape, dtype=wanted)
        for row, before, after in zip(found, self.states, self.states[1:], strict=False):
            torch.sub(after.to(wanted), before.to(wanted), out=row)
        return found

    def per_example(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        credit: Credit = "gradient",
    ) -> list[Tensor]:
        """Return the contributions of each member's gradient: n tensors (Q, members), examples then ghosts.

        Within 1e-3 of the norms of the gradients in float32. Blocks of `blocks(..., members=True)` have the gradients;
        other blocks make their segment's steps again.

        Parameters
        ----------
        credit : `gradient` credits each gradient with all updates that it enters, also later ones through momentum, by
            their learning rates: the columns of all steps, and decay, sum to the gammas of all steps. `step` splits
            each update by itself: what momentum carries over is split equally over the examples, so that columns and
            decay sum to the gamma of the step. It may make earlier segments again, for what momentum carries on of
            decay. Without momentum both are the same.

        Raises
        ------
        NotImplementedError : an optimiser other than torch's SGD; a row of a gap; a layer whose gradient is not the
            sum of its members' parts, as with tied weights or penalties; numbers of 16 bits; or, under momentum, a
            step without an update, and settings of the momentum that change
        """
        if not self.recorded:
            raise NotImplementedError(f"layer {self.layer!r}: expected single steps, found the sum of a gap")
        check_credit(credit)
        inputs = tokens_as_floats(module, weight, inputs)
        checked_operation(module, weight, inputs, anchor, None, None)
        shares = self._shares()
        if problem := next((one.problem for one in shares if one.problem), ""):
            raise NotImplementedError(problem)
        queries = Queries(module, weight, inputs, anchor, None)
        found = columns_of(shares, self.layer, queries, self.columns)
        if credit == "gradient":
            return [self._credited(one, columns, queries) for one, columns in zip(shares, found, strict=True)]
        gamma = self.project(module, weight, inputs, anchor=anchor).gamma
        before = torch.stack(self.states[:-1])
        before = before.to(torch.promote_types(before.dtype, torch.float32))
        moved = self.pull.updates(self.start, before, [one.settings for one in shares])
        decay = gammas(module, weight, inputs, moved.to(values_of(inputs)), anchor=anchor)
        return [
            share_rest(one.own * columns, gamma[:, k], decay[:, k], one.examples)
            for k, (one, columns) in enumerate(zip(shares, found, strict=True))
        ]

    def _credited(self, step: StepShares, columns: Tensor, queries: Queries) -> Tensor:
        """Return the parts (Q, members) of a step's gradients in all updates, and of what else changed its weights."""
        found = step.effect * columns
        change = None if step.outside is None else step.outside[0]
        if change is None:
            return found
        values = change[None].to(values_of(queries.inputs))
        gamma = gammas(queries.module, queries.weight, queries.inputs, values, anchor=queries.anchor)
        return share_equally(found, gamma[:, 0], step.examples)

    def member_gradients(self) -> list[tuple[Tensor, Tensor | None]]:
        """Return what each member does to weight and bias, as `StepShares.moved` says, by row: (members, *shape).

        Raises
        ------
        NotImplementedError : as in `per_example`
        """
        if not self.recorded:
            raise NotImplementedError(f"layer {self.layer!r}: expected single steps, found the sum of a gap")
        shares = self._shares()
        if problem := next((one.problem for one in shares if one.problem), ""):
            raise NotImplementedError(problem)
        bias = None if self.biases is None else self.biases[0]
        return [one.moved(self.states[0], bias) for one in shares]

    def carried(self) -> bool:
        """Return whether some gradient has updates after that of its own step, through momentum."""
        return any(one.effect != one.own for one in self._shares())

    def _shares(self) -> tuple[StepShares, ...]:
        """Return the gradients by member of each step."""
        if self.members is not None:
            return self.members
        again = self.source.blocks(self.segment, [self.layer], members=True)
        found = {s: one for block in again for s, one in zip(block.steps, block.members or (), strict=True)}
        return tuple(found[step] for step in self.steps)
