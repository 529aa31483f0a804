"""A companion of a training that does not change anything: others are written as what they change."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tasks.training.batches import Positions


class Neutral:
    """The companion without an effect; its methods are those of `tasks.training.companions.Companion`."""

    def takes_part(self, epoch: int) -> bool:
        """Return True: every epoch."""
        return True

    def before_step(self, ids: Positions) -> None:
        """Ignore the sample ids."""

    @contextmanager
    def during(self, labels: Tensor) -> Iterator[None]:
        """Return a context without an effect."""
        yield

    def inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the inputs unchanged."""
        return inputs

    def loss(self) -> Tensor | float:
        """Return 0."""
        return 0.0

    def after_backward(self) -> None:
        """Leave the gradients as they are."""

    def after_update(self) -> None:
        """Leave the weights as they are."""

    def normalised(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters unchanged."""
        return tensors

    def masked(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's tensors unchanged."""
        return tensors

    def holder(self) -> nn.Module:
        """Return a module without parameters."""
        return nn.Module()

    def groups(self) -> list[dict[str, Any]]:  # Any: an optimiser's settings
        """Return an empty list: it does not have parameters."""
        return []

    def tensors(self) -> dict[str, Tensor]:
        """Return an empty dict: it does not have a state."""
        return {}

    def measures(self, fetch: Callable[..., tuple[Tensor, Tensor]], n: int) -> dict[str, float]:
        """Return an empty dict: it does not have numbers by epoch."""
        return {}
