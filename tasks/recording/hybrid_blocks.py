"""Blocks of a hybrid archive: rounded updates, and updates that follow from factors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from storage.updates.tables import Settings
from tasks.modules.rows import Inputs
from tasks.recording.columns import Credit, check_credit, share_equally, share_rest
from tasks.recording.images import Images, Row
from tasks.recording.recurrences import own_share
from tasks.recording.step_blocks import StepBlock, WholeBlock
from tasks.recording.traces import FactorTrace
from tasks.tracing import Contributions
from tasks.tracing.checks import check_finite
from tasks.tracing.prepared import Queries


@dataclass(frozen=True)
class RoundedBlock(WholeBlock):
    """Updates that are kept rounded.

    Parameters
    ----------
    layer, start, stop, recorded, biases : as in `StepBlock`
    before : (*shape) the weight before the first row, the checkpoint's and the sum of the updates since
    updates : (n, *shape)
    """

    before: Tensor
    updates: Tensor

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each, (n + 1, *shape), within the stated error."""
        return summed(self.before, self.updates)

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates (n, *shape)."""
        return self.updates.to(dtype or torch.promote_types(self.updates.dtype, torch.float32))


@dataclass
class Progress:
    """How far a layer was projected on the last queries, and split by them; the blocks of a segment share it.

    Parameters
    ----------
    trace : the layer's way through the segment
    pull : returns the image of the decay in the momentum before the segment
    """

    trace: FactorTrace
    pull: Callable[[Queries], Tensor | None]
    projected: Images | None = None
    split: Images | None = None

    def to_project(self, queries: Queries, row: int) -> Images:
        """Return the images of queries before a row, to project it."""
        if self.projected is None or not queries.same(self.projected.queries) or self.projected.row > row:
            self.projected = Images(self.trace, queries)
        self.projected.skip(row)
        return self.projected

    def to_split(self, queries: Queries, row: int) -> Images:
        """Return the images of queries before a row, to split it; these know the decay in the momentum."""
        if self.split is None or not queries.same(self.split.queries) or self.split.row > row:
            self.split = Images(self.trace, queries, self.pull(queries))
        self.split.skip(row)
        return self.split


@dataclass(frozen=True)
class FactorBlock(StepBlock):
    """Updates that follow from the inputs and output gradients of each step.

    Parameters
    ----------
    layer, start, stop, recorded, biases : as in `StepBlock`
    progress : the layer's way through the segment
    row : of the first update in the segment
    counts : (examples, ghosts) of each row
    shares : factor of each row's gradient in all updates of the training together, see `whole_shares`
    carried : factor of the momentum after each row in all later updates, see `carried_shares`
    """

    row: int
    counts: Sequence[tuple[int, int]]
    shares: Sequence[float]
    carried: Sequence[float]
    progress: Progress = field(repr=False)

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each, (n + 1, *shape), but for rounding."""
        return summed(*self.progress.trace.updates(self.row, self.row + len(self.counts)))

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates (n, *shape); computes a product of the weight's size per step."""
        updates = self.progress.trace.updates(self.row, self.row + len(self.counts))[1]
        return updates.to(dtype or updates.dtype)

    def project(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Contributions:
        """Return what `tasks.tracing.contributions` returns for these updates, (Q, n), on the inputs' device."""
        changes = None if bias is None else self.dense_bias(torch.float64)
        images = self.progress.to_project(Queries(module, weight, inputs, anchor, bias), self.row)
        rows = [
            images.next(None if changes is None else changes[index].to(inputs.device))
            for index in range(len(self.counts))
        ]
        gamma, norm = (torch.stack([getattr(row, name) for row in rows], dim=1) for name in ("gamma", "norm"))
        z, out = images.preactivation_norm, torch.promote_types(inputs.dtype, torch.float32)
        if z.isfinite().all():
            with self.naming_steps():
                check_finite("updates", norm.T)
        scale = norm * z[:, None]
        cosine = torch.where(scale > 0, gamma / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1, 1)
        return Contributions(*(part.to(out) for part in (gamma, norm, cosine, z)))

    def per_example(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        credit: Credit = "gradient",
    ) -> list[Tensor]:
        """Return each member's contribution: n tensors (Q, members), examples then ghosts.

        Parameters
        ----------
        credit : `gradient` credits each gradient with all updates that it enters, also later ones through momentum:
            the columns of all steps, and decay, sum to the gammas of all steps. `step` splits each update by itself: a
            member gets its own gradient's part of it, and what momentum carries over from earlier gradients is split
            equally over the examples: columns and decay sum to the gamma of the step. Without momentum both are the
            same.

        Raises
        ------
        NotImplementedError : the layer does not have one sample per member, or the block is a gap

        Notes
        -----
        Decay is charged to no example, with what momentum carries on of it. Of a step that factors do not explain, the
        examples share equally what neither decay nor earlier steps explain. Biases are left out.
        """
        check_credit(credit)
        if not self.recorded:
            raise NotImplementedError(f"layer {self.layer!r}: expected recorded steps, found a gap of several steps")
        images = self.progress.to_split(Queries(module, weight, inputs, anchor, None), self.row)
        out = torch.promote_types(inputs.dtype, torch.float32)
        found = []
        for index in range(len(self.counts)):
            settings = self.progress.trace.records[self.row + index].settings
            found.append(self._columns(images.next(split=True), settings, index, credit).to(out))
        return found

    def _columns(self, row: Row, settings: Settings, index: int, credit: Credit) -> Tensor:
        """Return the columns (Q, members) of a row."""
        examples, ghosts = self.counts[index]
        columns = row.gamma.new_zeros(len(row.gamma), examples + ghosts)
        if row.shares is not None:
            if row.shares.shape[1] != examples + ghosts:
                raise NotImplementedError(
                    f"layer {self.layer!r}, step {self.start + index}: expected a sample for each of "
                    f"{examples + ghosts} members, found {row.shares.shape[1]}; name all ids of the batch in order"
                )
            columns += row.shares * (self.shares[index] if credit == "gradient" else own_share(settings))
        if credit == "step":
            return share_rest(columns, row.gamma, row.decay, examples)
        if row.rest is not None and row.begun is not None:
            return share_equally(columns, row.rest + self.carried[index] * row.begun, examples)
        return columns


def summed(before: Tensor, updates: Tensor) -> Tensor:
    """Return weights before the first row and after each, (n + 1, *shape)."""
    return torch.cat([before[None], before + updates.to(before.dtype).cumsum(dim=0)])
