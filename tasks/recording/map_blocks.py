"""Blocks of updates of traced layers: maps put together from pieces, and layers under the name of one call."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.modules.composed import LinearMap
from tasks.modules.rows import Inputs, values_of
from tasks.recording.columns import Credit, check_credit
from tasks.recording.replay_block import ReplayBlock
from tasks.recording.sources import UpdateBlock
from tasks.recording.step_blocks import Ids, WholeBlock
from tasks.tracing import Contributions, gammas

Part = tuple[UpdateBlock, int, int]  # a block of a piece, its first and past its last row


@dataclass(frozen=True)
class MapBlock(WholeBlock):
    """The updates of a map.

    Parameters
    ----------
    layer, start, stop, recorded, biases : as in `StepBlock`
    map : puts them together
    parts : rows of each piece
    """

    map: LinearMap
    parts: tuple[Part, ...]

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each, (n + 1, *weight.shape)."""
        stacks = [
            (block.weights[low : high + 1], cut_rows(block.biases, low, high + 1)) for block, low, high in self.parts
        ]
        return self.map.assemble(stacks)[0]

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates (n, *weight.shape)."""
        stacks = []
        for block, low, high in self.parts:
            updates = block.dense(dtype)[low:high]
            stacks.append((updates, cut_rows(block.dense_bias(updates.dtype), low, high)))
        return self.map.assemble(stacks)[0]

    def per_example(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        credit: Credit = "gradient",
    ) -> list[Tensor]:
        """Return each member's contributions: n tensors (Q, members), of a replay.

        Raises
        ------
        NotImplementedError : another kind of archive; credit by step under momentum; as for the pieces
        """
        check_credit(credit)
        blocks = [(block, low, high) for block, low, high in self.parts if isinstance(block, ReplayBlock)]
        if len(blocks) < len(self.parts):
            raise NotImplementedError(
                f"layer {self.layer!r}: expected an archive with each example's part of this map, found whole updates; "
                "use replay with torch's SGD"
            )
        pieces = [block.member_gradients()[low:high] for block, low, high in blocks]
        if credit == "step" and any(block.carried() for block, _, _ in blocks):
            raise NotImplementedError(
                f"layer {self.layer!r}: expected credit by gradient under momentum, found credit by step"
            )
        found = []
        for stacks in zip(*pieces, strict=True):
            gradients = self.map.assemble(stacks)[0].to(values_of(inputs))
            found.append(gammas(module, weight, inputs, gradients, anchor=anchor))
        return found


@dataclass(frozen=True)
class CallBlock:
    """The updates of a layer under the name of one of its calls."""

    layer: str
    block: UpdateBlock

    @property
    def start(self) -> int:
        """The first step."""
        return self.block.start

    @property
    def stop(self) -> int:
        """Past the last step."""
        return self.block.stop

    @property
    def steps(self) -> Ids:
        """The step of each row."""
        return self.block.steps

    @property
    def recorded(self) -> bool:
        """Whether each row is one step."""
        return self.block.recorded

    @property
    def weights(self) -> Tensor:
        """Return the weights before the first row and after each."""
        return self.block.weights

    @property
    def biases(self) -> Tensor | None:
        """Return the biases before the first row and after each."""
        return self.block.biases

    def dense(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the updates."""
        return self.block.dense(dtype)

    def dense_bias(self, dtype: torch.dtype | None = None) -> Tensor | None:
        """Return the updates of the bias."""
        return self.block.dense_bias(dtype)

    def project(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Contributions:
        """Return `tasks.tracing.contributions` of the updates."""
        return self.block.project(module, weight, inputs, anchor=anchor, bias=bias)

    def per_example(
        self,
        module: nn.Module,
        weight: Tensor,
        inputs: Inputs,
        *,
        anchor: Tensor | None = None,
        credit: Credit = "gradient",
    ) -> list[Tensor]:
        """Return each member's contributions."""
        return self.block.per_example(module, weight, inputs, anchor=anchor, credit=credit)


def cut_rows(rows: Tensor | None, low: int, high: int) -> Tensor | None:
    """Return some rows, None without any."""
    return None if rows is None else rows[low:high]
