"""Companions of a training, which the training loop knows only by their protocol."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor, nn

from tasks.training.adversary import prepare_adversary
from tasks.training.batches import Positions
from tasks.training.diversity import prepare_diversity
from tasks.training.gates import prepare_gates
from tasks.training.lottery import prepare_masks


class Companion(Protocol):
    """An object that takes part in the steps of a training: gates, a regulariser, masks, an adversary.

    A file of its own has each; `tasks.training.neutral.Neutral` has the methods without an effect.
    """

    def takes_part(self, epoch: int) -> bool:
        """Return whether it takes part in an epoch, from 0; other methods are called only in such epochs."""

    def before_step(self, ids: Positions) -> None:
        """Look at the sample ids (m,) of a step, before its first forward pass."""

    def during(self, labels: Tensor) -> AbstractContextManager[None]:
        """Return a context for each forward pass of a batch; its first m inputs have `labels` (m,)."""

    def inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return inputs that replace `inputs` (n, ...), n >= m, in a forward pass; called within `during`."""

    def loss(self) -> Tensor | float:
        """Return a number that is added to the loss after a forward pass."""

    def after_backward(self) -> None:
        """Change the gradients of the model after a backward pass, before they are clipped."""

    def after_update(self) -> None:
        """Clamp or normalise its parameters after an update."""

    def normalised(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what `after_update` makes of its parameters, by the names in `holder`; differentiable."""

    def masked(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what `after_backward` leaves of the model's gradients, and `after_update` of its weights.

        The names are those of the model's parameters; differentiable.
        """

    def holder(self) -> nn.Module:
        """Return the module that holds its parameters."""

    def groups(self) -> list[dict[str, Any]]:  # Any: an optimiser's settings
        """Return its parameter groups for the optimiser."""

    def tensors(self) -> dict[str, Tensor]:
        """Return its state by name, float32: checkpoints keep it, and a resumed training sets it in place."""

    def measures(self, fetch: Callable[..., tuple[Tensor, Tensor]], n: int) -> dict[str, float]:
        """Return numbers for the curves after an epoch; `fetch` returns the held-out samples 0..n-1."""


Attach = Callable[[nn.Module], Companion]
Prepare = Callable[[Mapping[str, Any], nn.Module, Tensor, Tensor], Attach]  # Any: the companion's own settings

# By the key in a training's settings. The function gets these settings, a model on the CPU in evaluation mode, an input
# of noise and a few images. It finds the module to act on. It returns a function that attaches the companion to the
# trained model.
COMPANIONS: dict[str, Prepare] = {
    "gates": prepare_gates,
    "adversary": prepare_adversary,
    "masks": prepare_masks,
    "diversity": prepare_diversity,
}
