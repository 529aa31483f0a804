"""Linear maps of padded rows: the last column of the inputs says where a row is, and where padding."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.modules.kind import Use, only_tensor
from tasks.modules.linear import Linear
from tasks.modules.rows import Inputs


class Padded(Linear):
    """`PaddedLinear`, weight (out, in), inputs (Q, ..., in + 1)."""

    def join(self, calls: Sequence[Tensor]) -> Tensor:
        """Return the rows of all calls, one after the other."""
        return torch.cat([one.flatten(1, -2) for one in calls], dim=1)

    def inputs(self, module: nn.Module, given: tuple[object, ...]) -> Tensor:
        """Return the one tensor of the call."""
        return only_tensor(given)

    def check(self, use: Use, inputs: Inputs) -> None:
        """Raise ValueError unless the last axis has the input features and a column of 1 and 0."""
        if inputs.ndim < 3 or inputs.shape[-1] != use.shape[1] + 1:
            raise ValueError(f"inputs: expected shape (Q, ..., {use.shape[1] + 1}), found {tuple(inputs.shape)}")

    def presence(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the last column, (Q, L)."""
        return inputs[..., -1].flatten(1)

    def rows(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the rows without the last column, (Q, 1, in, L)."""
        return inputs[..., :-1].reshape(len(inputs), 1, -1, use.shape[1]).transpose(2, 3)
