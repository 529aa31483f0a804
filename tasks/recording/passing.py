"""Blocks of a replay that are projected as they pass: of a large layer's weights no copy is made."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tasks.modules.embedding import tokens_as_floats
from tasks.modules.rows import Inputs, values_of
from tasks.recording.replay_block import ReplayBlock
from tasks.tracing import Contributions
from tasks.tracing.prepared import Queries
from tasks.tracing.running import LARGE, RunningProducts


def may_pass(weight: Tensor) -> bool:
    """Return whether blocks of a weight, where it is trained, can pass without a copy of it."""
    return weight.dtype == torch.float32 and weight.device.type == "cpu" and weight.nbytes >= LARGE


@dataclass
class _Running:
    """Queries at a layer, a copy of their values, and their products up to a step."""

    queries: Queries
    values: Tensor
    products: RunningProducts
    stop: int


@dataclass
class Passing:
    """The running products of the layers of a segment, whose weights are those after the step before `at`."""

    at: int = 0
    _running: dict[str, _Running] = field(default_factory=dict)

    def project(self, block: "PassingBlock", queries: Queries) -> Contributions:
        """Return the contributions of a block, the first of its layer or the next one."""
        known = self._running.get(block.layer)
        if self.at != block.stop:
            raise RuntimeError(
                f"layer {block.layer!r}, step {block.start}: expected to be projected before the next block is taken, "
                "found later; read blocks that keep their weights"
            )
        if block.first is not None:
            start = RunningProducts(queries.module, queries.weight, queries.inputs, queries.anchor, block.first)
            known = _Running(queries, values_of(queries.inputs).clone(), start, block.start)
        elif not (
            known is not None
            and known.stop == block.start
            and known.queries.same(queries)
            and torch.equal(known.values, values_of(queries.inputs))
        ):
            raise RuntimeError(
                f"layer {block.layer!r}, step {block.start}: expected every block of a pass to be projected once, in "
                "order, on the same queries, found another; read blocks that keep their weights"
            )
        self._running[block.layer] = _Running(known.queries, known.values, known.products, block.stop)
        return known.products.move(block.states[0])


@dataclass(frozen=True)
class PassingBlock(ReplayBlock):
    """The update of one row of a large layer, which is projected before the next block is taken.

    Parameters
    ----------
    states : the weight after the row, which the next step changes
    first : weight before the first row of the segment, None for other rows
    """

    first: Tensor | None = None
    passing: Passing = field(default_factory=Passing, repr=False)

    @property
    def weights(self) -> Tensor:
        """Raise RuntimeError: they are not kept."""
        raise RuntimeError(f"layer {self.layer!r}: expected to be projected only, found a request of its weights")

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Raise RuntimeError, as `weights` does."""
        return self.weights

    def project(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Contributions:
        """Return the contributions, within 1e-5 of those of a block that keeps its weights; `bias` must be None."""
        assert bias is None, self.layer
        queries = Queries(module, weight, tokens_as_floats(module, weight, inputs), anchor, None)
        with self.naming_steps():
            return self.passing.project(self, queries)
