"""Whether a step's update of a weight is that of torch's SGD alone: some rows are followed through the step."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from tasks.recording.recurrences import State, advance, settings_of

SAMPLE = 2**12  # weights of the sampled rows
TOLERANCE = 1e-4  # of the update's norm
ROUNDINGS = 8  # largest number of roundings of a weight in a step


class OutsideWatch:
    """Follows some rows of a weight through a step, to find changes outside the optimiser's step.

    Parameters
    ----------
    weight : returns the live weight
    """

    def __init__(self, weight: Callable[[], Tensor]) -> None:
        self._weight = weight
        self._begun: Tensor | None = None
        self._momentum: Tensor | None = None
        self._update: Tensor | None = None  # None before the optimiser's step

    def begin(self) -> None:
        """Note that a step begins."""
        self._begun, self._update = self._rows(self._weight()), None

    def before_update(self, momentum: Tensor | None) -> None:
        """Note the momentum buffer before the optimiser's step."""
        self._momentum = None if momentum is None else self._rows(momentum)

    def after_update(self, group: Mapping[str, Any] | None) -> None:  # Any: an optimiser's own
        """Work out the update that the optimiser's step makes.

        Parameters
        ----------
        group : of the weight, None where the optimiser does not have it
        """
        gradient, begun = self._weight().grad, self._begun
        assert begun is not None
        if group is None or gradient is None:
            self._update = torch.zeros_like(begun)
            return
        settings = settings_of(group, fresh=bool(group["momentum"]) and self._momentum is None, scale=1.0)
        self._update = advance(State(begun, self._momentum), settings, self._rows(gradient))

    def found(self) -> bool:
        """Return whether the weight is not where the optimiser's step led it from the beginning of the step."""
        if self._update is None or self._begun is None:
            return False
        rest, eps = self._rows(self._weight()) - self._begun - self._update, torch.finfo(self._weight().dtype).eps
        allowed = TOLERANCE * self._update.norm() + ROUNDINGS * eps * self._begun.norm()
        return bool(rest.norm() > allowed)

    def _rows(self, values: Tensor) -> Tensor:
        """Return the sampled rows (k, n) of a tensor of the weight's shape, in float64."""
        count = max(1, min(len(values), SAMPLE * len(values) // max(1, values.numel())))
        chosen = torch.linspace(0, len(values) - 1, count, dtype=torch.float64, device=values.device).round().long()
        rows = values.detach().index_select(0, chosen)
        return (rows.to_dense() if rows.is_sparse else rows).double().flatten(1)
