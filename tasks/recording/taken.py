"""The gradients that an optimiser's step took: `foreach` adds Nesterov momentum to the gradient itself."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Group = Mapping[str, Any]  # of the optimiser; Any: its own settings


class _Noted(NamedTuple):
    """A gradient before a step that may change it, how often torch had changed it, and a copy."""

    gradient: Tensor
    version: int
    copy: Tensor


class TakenGradients:
    """Finds the gradients that the steps of torch's SGD took.

    Holds copies during a step that may change them, on GPUs or under `foreach`, and no gradient between steps.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._noted: dict[int, _Noted] = {}  # by the weight's id

    def group(self, weight: Tensor) -> int | None:
        """Return the index of the group of a weight, None where the optimiser does not have it."""
        groups = self._optimizer.param_groups
        return next((k for k, group in enumerate(groups) if any(one is weight for one in group["params"])), None)

    def momentum(self, weight: Tensor) -> Tensor | None:
        """Return the live momentum buffer of a weight, None without one."""
        held = self._optimizer.state.get(weight, {}).get("momentum_buffer")
        return held if isinstance(held, Tensor) else None

    def note(self, weights: Iterable[Tensor]) -> None:
        """Note the gradients before a step."""
        self._noted = {
            id(weight): _Noted(weight.grad, weight.grad._version, weight.grad.detach().clone())
            for weight in weights
            if weight.grad is not None and self._changing(weight) is not None
        }

    def of(self, weight: Tensor) -> Tensor | None:
        """Return the gradient that the step took of a weight, dense, None without one. Asked for once after a step."""
        found = self._of(weight, self._noted.pop(id(weight), None))
        return found.to_dense() if found is not None and found.is_sparse else found

    def _of(self, weight: Tensor, before: _Noted | None) -> Tensor | None:
        """Return the gradient, perhaps a sparse one."""
        gradient, momentum, group = weight.grad, self.momentum(weight), self._changing(weight)
        if gradient is None or group is None or momentum is None:
            return gradient
        if before is not None and gradient is before.gradient and gradient._version - before.version < 2:
            return before.copy
        return torch.sub(gradient, momentum, alpha=group["momentum"])  # the step's closure made the gradient

    def _changing(self, weight: Tensor) -> Group | None:
        """Return the group of a weight, None where a step does not add its momentum to the gradient."""
        if type(self._optimizer) is not torch.optim.SGD:
            return None
        groups: list[Group] = [group for group in self._optimizer.param_groups if _may_add(group, weight)]
        return next((group for group in groups if any(one is weight for one in group["params"])), None)


def _may_add(group: Group, weight: Tensor) -> bool:
    """Return whether a step may add momentum to a gradient of a group; under decay and `maximize` it takes a copy."""
    if not (group["nesterov"] and group["momentum"]) or group["weight_decay"] or group["maximize"]:
        return False
    return bool(group["foreach"] or (group["foreach"] is None and not weight.is_cpu))
