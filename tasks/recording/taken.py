"""The gradients that an optimiser's step took: `foreach` adds Nesterov momentum to the gradient itself."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

Group = Mapping[str, Any]  # of the optimiser; Any: its own settings


class _Noted(NamedTuple):
    """A gradient before the step, how often torch had changed it, and a copy where the step may change it."""

    gradient: Tensor
    version: int
    copy: Tensor | None


class TakenGradients:
    """Finds the gradients that the steps of torch's SGD took.

    Holds copies where a step may change them, on GPUs or under `foreach`.
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
        self._noted = {}
        for weight in weights:
            if weight.grad is not None:
                copied = weight.grad.detach().clone() if self._may_change(weight) else None
                self._noted[id(weight)] = _Noted(weight.grad, weight.grad._version, copied)

    def of(self, weight: Tensor) -> Tensor | None:
        """Return the gradient that the step took of a weight, dense, None without one."""
        found = self._of(weight)
        return found.to_dense() if found is not None and found.is_sparse else found

    def _of(self, weight: Tensor) -> Tensor | None:
        """Return the gradient, perhaps a sparse one."""
        gradient, before, momentum = weight.grad, self._noted.get(id(weight)), self.momentum(weight)
        index = self.group(weight)
        if gradient is None or index is None or momentum is None or not self._may_change(weight):
            return gradient
        changes = None if before is None or gradient is not before.gradient else gradient._version - before.version
        if changes == 0:
            return gradient
        if changes == 1 and before is not None and before.copy is not None:
            return before.copy
        # The step's closure made the gradient.
        return torch.sub(gradient, momentum, alpha=self._optimizer.param_groups[index]["momentum"])

    def _may_change(self, weight: Tensor) -> bool:
        """Return whether a step may add its momentum to a gradient; under decay and `maximize` it takes a copy."""
        index = self.group(weight)
        if index is None or type(self._optimizer) is not torch.optim.SGD:
            return False
        group: Group = self._optimizer.param_groups[index]
        if not (group["nesterov"] and group["momentum"]) or group["weight_decay"] or group["maximize"]:
            return False
        return bool(group["foreach"] or (group["foreach"] is None and not weight.is_cpu))
