"""Embeddings: each token picks a row of the table, which is the table applied to the token's unit vector."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.modules.kind import Use, only_tensor
from tasks.modules.rows import INTEGERS, Inputs, Rows

PADDING = -1  # a token that picks nothing: it ends a shorter sequence


class Embedding:
    """`nn.Embedding`, weight (vocabulary, features). Inputs are kept as floats (Q, ...): tokens, -1 for padding."""

    forward = ("forward",)
    parameters = ("weight", "bias")
    copies = False

    @property
    def own(self) -> "Embedding":
        """Picking rows, which does not need the unit vectors."""
        return self

    def inputs(self, module: nn.Module, given: tuple[object, ...]) -> Tensor:
        """Return the tokens of the call as floats of the weight's type, which must hold every token exactly."""
        return self.floats(only_tensor(given), module.get_parameter("weight"))

    def floats(self, tokens: Tensor, weight: Tensor) -> Tensor:
        """Return tokens as floats of the weight's type, which must hold every token exactly."""
        exact = int(2 / torch.finfo(weight.dtype).eps)
        if len(weight) > exact:
            raise ValueError(
                f"expected a vocabulary of at most {exact} tokens in {weight.dtype}, which rounds larger numbers, "
                f"found {len(weight)}; use float32"
            )
        return tokens.to(weight.dtype)

    def given(self, inputs: Tensor) -> Tensor:
        """Return the tokens as integers."""
        return inputs.long()

    def join(self, calls: Sequence[Tensor]) -> Tensor:
        """Return the tokens of all calls, one after the other, (Q, L)."""
        return (
            calls[0]
            if len(calls) == 1
            else torch.cat([one.flatten(1) if one.ndim > 1 else one[:, None] for one in calls], dim=1)
        )

    def check(self, use: Use, inputs: Inputs) -> None:
        """Raise ValueError unless inputs are tokens of the table."""
        if isinstance(inputs, Rows):
            raise ValueError(f"inputs: expected tokens (Q, ...), {PADDING} for padding, found ragged rows")
        if inputs.is_meta or not inputs.numel():
            return
        whole, low, high = bool((inputs == inputs.round()).all()), float(inputs.min()), float(inputs.max())
        if not whole or low < PADDING or high >= use.shape[0]:
            found = f"{low:g} to {high:g}" if whole else "fractions"
            raise ValueError(
                f"inputs: expected tokens 0 to {use.shape[0] - 1} of the vocabulary, or {PADDING} for padding, "
                f"found {found}"
            )

    def of_unit(self, use: Use, weight: Tensor) -> Tensor:
        """Return the column of an output feature."""
        assert use.unit is not None
        return weight[:, use.unit]

    def presence(self, use: Use, inputs: Tensor) -> Tensor | None:
        """Return None: an embedding does not have a bias."""
        return None

    def sizes(self, use: Use) -> tuple[int, int]:
        """Return vocabulary and features."""
        return use.shape[0], use.shape[1]

    def rows(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the unit vectors of the tokens, (Q, 1, vocabulary, L)."""
        tokens = inputs.reshape(len(inputs), 1, 1, -1)
        every = torch.arange(use.shape[0], device=inputs.device, dtype=inputs.dtype)
        return (tokens == every[:, None]).to(inputs.dtype)

    def matrices(self, use: Use, weights: Tensor) -> Tensor:
        """Return weights (T, vocabulary, features) as (T, 1, features, vocabulary), a view."""
        return weights.transpose(1, 2)[:, None, :, :, None]

    def prepare(self, use: Use, inputs: Tensor) -> Tensor:
        """Return the tokens."""
        return inputs

    def apply(self, use: Use, prepared: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the rows that the tokens pick, (Q, features L)."""
        table = weight if use.unit is None else weight[:, use.unit : use.unit + 1]
        tokens = prepared.reshape(len(prepared), -1).long()
        picked = table[tokens.clamp(min=0)] * (tokens >= 0)[..., None]
        return picked.transpose(1, 2).flatten(1)

    def narrow(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows of the table that tokens pick (u,), and the tokens as indices of these rows."""
        used = torch.unique(inputs[inputs >= 0])
        return used.long(), torch.where(inputs >= 0, torch.searchsorted(used, inputs).to(inputs.dtype), PADDING)


def tokens_as_floats(module: nn.Module, weight: Tensor, inputs: Inputs) -> Inputs:
    """Return integer tokens of an embedding as floats of the weight's type; other inputs as they are.

    Raises
    ------
    TypeError : not a tensor, nor ragged rows
    """
    if not isinstance(inputs, Tensor | Rows):
        raise TypeError(f"inputs: expected a torch tensor, found {type(inputs).__name__}")
    if isinstance(module, nn.Embedding) and isinstance(inputs, Tensor) and weight.is_floating_point():
        return Embedding().floats(inputs, weight) if inputs.dtype in INTEGERS else inputs
    return inputs


def with_dense_gradients(module: nn.Module) -> nn.Module:
    """Return a module whose gradients are dense: itself, or a copy with its parameters of one with sparse gradients."""
    if not getattr(module, "sparse", False):
        return module
    found = copy.copy(module)
    found.sparse = False  # type: ignore[assignment]  # torch's stub
    return found
