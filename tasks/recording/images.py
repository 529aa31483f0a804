"""Images of a layer's updates under a batch of queries, from factors, without a product of the weight's size per step.

With z = W F, gamma_t = <z, D_t F>, and D_t F follows by the recurrences of `tasks.recording.recurrences` from the
gradient's image g^T (x F) alone.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from storage.updates.tables import EXPLAINED, FACTORED, Record, Settings
from tasks.modules.rows import Inputs, values_of, with_values
from tasks.recording.factors import Factors
from tasks.recording.recurrences import State, advance, carries
from tasks.recording.traces import FactorTrace, Moved
from tasks.tracing.checks import check_shape, check_tensors
from tasks.tracing.patches import Operation
from tasks.tracing.prepared import Queries
from tasks.tracing.products import product_type
from tasks.tracing.strategies import checked_operation

IMAGE = 32 * 2**20  # bytes of an image of a group of queries
AXES = (0, 1, 3)  # groups, outputs and positions of an image


@dataclass(frozen=True)
class Row:
    """The images of a row.

    Parameters
    ----------
    gamma, norm : (Q,)
    shares : (Q, B), <g_b x_b^T, H> of each sample, before clipping and learning rate; None where factors do not
        explain the row or shares are not asked for
    decay : (Q,), the part of gamma that weight decay adds, with what momentum carries on of it
    rest : (Q,), of a row that factors do not explain: the part of gamma that neither decay nor earlier steps explain
    begun : (Q,), of such a row: its part of the momentum after it, which later updates carry on
    """

    gamma: Tensor
    norm: Tensor
    shares: Tensor | None
    decay: Tensor
    rest: Tensor | None = None
    begun: Tensor | None = None


class Images:
    """The images of a trace's updates under queries, row by row.

    Holds, for each group of queries, what they see, z, and the images of weights and momentum, in float64.

    Parameters
    ----------
    pull : (Q,) the image of the decay in the momentum before the first row; None for 0
    """

    def __init__(self, trace: FactorTrace, queries: Queries, pull: Tensor | None = None) -> None:
        self.trace, self.queries, self.row = trace, queries, 0
        check_tensors(inputs=queries.inputs, weight=queries.weight)
        operation = checked_operation(
            queries.module, queries.weight, queries.inputs, queries.anchor, queries.bias, None
        )
        check_shape("weight", queries.weight, trace.shape)
        groups, outputs, _ = operation.matrix_shape
        values = values_of(queries.inputs).detach()
        count, inputs = len(queries.inputs), with_values(queries.inputs, values.double())
        with torch.no_grad():
            positions = operation.rows(inputs[:1]).shape[3] if count else 1
            size = max(1, IMAGE // max(1, 8 * groups * outputs * positions))
            cuts = [slice(low, low + size) for low in range(0, count, size)]
            pulls = values.new_zeros(count, dtype=torch.float64) if pull is None else pull
            self._parts = [_Part(trace, queries, operation, inputs[cut], pulls[cut]) for cut in cuts]

    @property
    def preactivation_norm(self) -> Tensor:
        """Return ||z|| (Q,)."""
        return self._joined([part.z.square().sum(dim=AXES).sqrt() for part in self._parts])

    @property
    def pull(self) -> Tensor:
        """Return the image of the decay in the momentum before the next row (Q,)."""
        return self._joined([part.pull for part in self._parts])

    def skip(self, row: int) -> None:
        """Move on to a row."""
        while self.row < row:
            self.next()

    @torch.no_grad()
    def next(self, bias: Tensor | None = None, *, split: bool = False) -> Row:
        """Return the images of the next row.

        Parameters
        ----------
        bias : (out,) the update of the bias, float64
        split : whether each sample's share is computed
        """
        record = self.trace.records[self.row]
        factors = self.trace.factors(record).to(values_of(self.queries.inputs)) if record.form in FACTORED else None
        moved = None if record.form in EXPLAINED else self.trace.moved(record, split=split)
        rows = [part.next(record, factors, moved, split) for part in self._parts]
        gammas, norms = [], []
        for part, row in zip(self._parts, rows, strict=True):
            update = row.update
            whole = update if bias is None else update + bias.reshape(*update.shape[:2], 1, 1) * part.ones
            gammas.append((whole * part.z).sum(dim=AXES))
            norms.append(whole.square().sum(dim=AXES).sqrt())
        self.row += 1
        shares = [row.shares for row in rows if row.shares is not None]
        rests = [row.unexplained for row in rows if row.unexplained is not None]
        known = self._joined(gammas), self._joined(norms), torch.cat(shares) if shares else None
        rest, begun = (self._joined(list(one)) for one in zip(*rests, strict=True)) if rests else (None, None)
        return Row(*known, self._joined([row.decay for row in rows]), rest, begun)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        """Join the results of the groups of queries."""
        return torch.cat([torch.empty(0, dtype=torch.float64, device=self.queries.inputs.device), *parts])


class _PartRow(NamedTuple):
    """The image of a row's update (g, o, Q, M), the samples' shares (Q, B), decay (Q,), and `rest` and `begun` (Q,)."""

    update: Tensor
    shares: Tensor | None
    decay: Tensor
    unexplained: tuple[Tensor, Tensor] | None = None


class _Part:
    """The images for a group of queries."""

    def __init__(
        self, trace: FactorTrace, queries: Queries, operation: Operation, inputs: Inputs, pull: Tensor
    ) -> None:
        anchor = queries.weight if queries.anchor is None else queries.anchor
        bias = None if queries.bias is None else queries.bias.double()[None]
        z = operation.matrices(anchor.double()[None], bias)[0] @ operation.rows(inputs)
        self.z, self.pull = z.permute(1, 2, 0, 3), pull  # (g, o, Q, M), (Q,)
        self._plain = Operation(queries.module, trace.shape)
        rows = self._plain.rows(inputs)
        self.ones = operation.ones(inputs, rows)[:, 0, 0]  # (Q, M), what a bias sees
        seen = rows.permute(1, 2, 0, 3)
        self._seen = seen.flatten(2)  # (g, n, Q M)
        self._typed = self._seen.to(product_type(queries.inputs))
        start = trace.start()
        plain = all(r.form in EXPLAINED and not r.settings.weight_decay for r in trace.records)
        self._state = State(None if plain else self._image(start.weights), self._image(start.momentum))

    def next(self, record: Record, factors: Factors | None, moved: Moved | None, split: bool) -> _PartRow:
        """Return the images of a row, and move on."""
        if moved is not None:
            return self._move(record, moved)
        if factors is None:
            return _PartRow(torch.zeros_like(self.z), None, torch.zeros_like(self.pull))
        seen = factors.seen(self._typed)
        decay, shares = self._decay(record.settings), self._shares(factors, seen) if split else None
        update = advance(self._state, record.settings, factors.image(seen).double())
        return _PartRow(update.reshape(self.z.shape), shares, decay)

    def _move(self, record: Record, moved: Moved) -> _PartRow:
        """Return the images of a row that factors do not explain, and go on from it."""
        found, before, held = self._image(moved.values), self._state.weights, self._along(self._state.momentum)
        assert found is not None
        assert before is not None
        after, settings, pull = before + found if moved.adds else found, record.settings, self.pull
        decay = self._decay(settings) if record.stepped else torch.zeros_like(pull)
        self._state = State(after, self._image(moved.momentum))
        if not record.stepped:
            self.pull = torch.zeros_like(pull)
        update, now = (after - before).reshape(self.z.shape), self._along(self._state.momentum)
        rest, begun = (update * self.z).sum(dim=AXES) - decay, now - self.pull
        if record.stepped:
            earlier = held - pull
            plain = replace(settings, weight_decay=0.0)
            rest = rest - advance(State(None, earlier), plain, torch.zeros_like(earlier))
            begun = begun - carries(settings) * earlier
        return _PartRow(update, None, decay, (rest, begun))

    def _along(self, image: Tensor | None) -> Tensor:
        """Return what an image of momentum is along z (Q,), 0 without one."""
        return torch.zeros_like(self.pull) if image is None else (image.reshape(self.z.shape) * self.z).sum(dim=AXES)

    def _decay(self, step: Settings) -> Tensor:
        """Return the part of weight decay in a step (Q,), before the state moves on."""
        if not step.weight_decay:
            pull = torch.zeros_like(self.pull)
        else:
            assert self._state.weights is not None
            pull = step.weight_decay * (self._state.weights.reshape(self.z.shape) * self.z).sum(dim=AXES)
        plain = replace(step, scale=1.0, maximize=False, weight_decay=0.0)
        held = State(None, None if step.fresh else self.pull)
        decay = advance(held, plain, pull)
        if held.momentum is not None:
            self.pull = held.momentum
        return decay

    def _shares(self, factors: Factors, seen: Tensor) -> Tensor:
        """Return <g_b x_b^T, H> (Q, B), from what positions see of the queries (g, B L, Q M)."""
        moved = factors.outputs.to(seen.dtype).mT @ self.z.flatten(2).to(seen.dtype)
        return factors.by_sample((moved * seen).double()).reshape(factors.samples, *self.z.shape[2:]).sum(dim=2).T

    def _image(self, values: Tensor | None) -> Tensor | None:
        """Return the image (g, o, Q M) of a tensor of the weight's shape."""
        if values is None:
            return None
        matrices = self._plain.matrices(values.double()[None].to(self._seen.device), None)[0]
        return matrices @ self._seen
