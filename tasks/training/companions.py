"""Companions of a training: what goes along with the loop, which knows this protocol only."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from tasks.training.gates import prepare_gates


class Companion(Protocol):
    """Gates on channels, a regulariser, masks, an adversary: whatever takes part in the steps of a training."""

    def takes_part(self, epoch: int) -> bool:
        """Say whether it takes part in an epoch, counted from 0; the other methods are for steps of such epochs."""

    def during(self, labels: Tensor) -> AbstractContextManager[None]:
        """Surround each forward pass of a batch whose first m inputs have `labels` (m,)."""

    def inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the inputs of a forward pass in place of `inputs` (n, ...), n >= m; called within `during`."""

    def loss(self) -> Tensor:
        """Return what is added to the loss after a forward pass, a number."""

    def settle(self) -> None:
        """Put itself in order after an update."""

    def groups(self) -> list[dict[str, Any]]:  # Any: an optimiser's settings
        """Return its groups of parameters for the optimiser."""

    def tensors(self) -> dict[str, Tensor]:
        """Return its state by name, float32: kept in checkpoints, and set in place when a training goes on."""


Attach = Callable[[nn.Module], Companion]
Prepare = Callable[[Mapping[str, Any], nn.Module, Tensor, Tensor], Attach]  # Any: the companion's own settings

# By the setting of a training that asks for it. The function gets these settings, a model on the CPU in evaluation
# mode, an input of noise and a few images; it finds its place there, and returns what attaches it to the trained model.
COMPANIONS: dict[str, Prepare] = {
    "gates": prepare_gates,
}
