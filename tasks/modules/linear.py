"""Linear layers: every position of the input is a row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.modules.kind import Use, only_tensor
from tasks.modules.rows import Inputs


class Linear:
    """`nn.Linear`, weight (out, in)."""

    forward = ("forward",)
    parameters = ("weight", "bias")
    own = None
    copies = False

    def inputs(self, module: nn.Module, given: tuple[object, ...]) -> Tensor:
        """Return the one tensor of the call."""
        return only_tensor(given)

    def given(self, inputs: Tensor) -> Tensor:
        """Return the inputs."""
        return inputs

    def join(self, calls: Sequence[Tensor]) -> Tensor:
        """Return the rows of all calls, one after the other, (Q, L, in)."""
        return (
            calls[0]
            if len(calls) == 1
            else torch.cat([one.flatten(1, -2) if one.ndim > 2 else one[:, None] for one in calls], dim=1)
        )

    def check(self, use: Use, inputs: Inputs) -> None:
        """Raise ValueError unless the last axis has the input features."""
        if inputs.ndim < 2 or inputs.shape[-1] != use.shape[1]:
            raise ValueError(f"inputs: expected shape (Q, ..., {use.shape[1]}), found {tuple(inputs.shape)}")

    def of_unit(self, use: Use, weight: Tensor) -> Tensor:
        """Return the row of an output feature."""
        assert use.unit is not None
        return weight[use.unit]

    def presence(self, use: Use, inputs: Tensor) -> Tensor | None:
        """Return None: a bias counts at all positions."""
        return None

    def sizes(self, use: Use) -> tuple[int, int]:
        """Return input and output features."""
        return use.shape[1], use.shape[0]

    def rows(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the rows of the input as positions, (Q, 1, in, L)."""
        return inputs.reshape(len(inputs), 1, -1, use.shape[1]).transpose(2, 3)

    def matrices(self, use: Use, weights: Tensor) -> Tensor:
        """Return weights (T, out, in) as (T, 1, out, in), a view."""
        return weights.reshape(len(weights), 1, use.shape[0], use.shape[1], 1)
