"""Linear layers: every position of the input is a row."""

from torch import Tensor

from tasks.modules.kind import Use, only_tensor


class Linear:
    """`nn.Linear`, weight (out, in)."""

    forward = ("forward",)
    parameters = ("weight", "bias")
    own = None
    copies = False

    def inputs(self, given: tuple[object, ...]) -> Tensor:
        """Return the one tensor of the call."""
        return only_tensor(given)

    def sizes(self, use: Use) -> tuple[int, int]:
        """Return input and output features."""
        return use.shape[1], use.shape[0]

    def rows(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the rows of the input as positions, (Q, 1, in, L)."""
        return inputs.reshape(len(inputs), 1, -1, use.shape[1]).transpose(2, 3)

    def matrices(self, use: Use, weights: Tensor) -> Tensor:
        """Return weights (T, out, in) as (T, 1, out, in), a view."""
        return weights.reshape(len(weights), 1, use.shape[0], use.shape[1], 1)
