"""The decomposed final layer, where every class reads only its few features (Badola et al.)."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.decomposition.checks import check_count, check_indices
from tasks.decomposition.weighted_rows import weighted_rows

# TorchScript reads type comments inside functions, so this comment must be here.
is_tracing: Callable[[], bool] = torch.jit.is_tracing  # type: ignore[attr-defined]  # torch leaves it untyped
is_scripting: Callable[[], bool] = torch.jit.is_scripting  # type: ignore[attr-defined]  # likewise


class DecomposedLinear(nn.Module):
    """z_c = sum over j in J_c of W[c, j] x_j + b_c, for x of shape (..., d).

    The layer keeps no state between calls. A batch goes through `embedding_bag` on the transposed features (d, n). It
    sums the weighted rows of each class and never holds (n, C, k), forward or backward. Its logits are a view of sums
    (C, n), in that order in memory. A single row is gathered. Measured at d = 2,048, C = 1,000, k = 50 on one thread of
    a Xeon, in shares of the dense layer's time: a forward pass takes 0.2, 0.2 and 0.2 at batches of 1, 32 and 256; a
    training step takes 0.2, 0.5 and 0.3. A scatter of W into a dense matrix was as slow as the dense layer. So was a
    gather block by block. CSR took twice the time of this layer at batches of 256. See benchmarks/decomposed_head.py.

    Parameters
    ----------
    in_features, out_features, k : d, C, features per class; a new layer reads the first k, with random weights
    bias : whether the layer has a bias
    device, dtype : as in nn.Linear

    Attributes
    ----------
    weight : (C, k) parameter
    bias : (C,) parameter or None
    indices : (C, k) int64 buffer, distinct in each row
    """

    indices: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        k: int,
        *,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.k = check_count("k", k, in_features)
        bound = self.k**-0.5
        self.weight = nn.Parameter(torch.empty(out_features, k, device=device, dtype=dtype).uniform_(-bound, bound))
        drawn = torch.empty(out_features, device=device, dtype=dtype).uniform_(-bound, bound) if bias else None
        self.bias = None if drawn is None else nn.Parameter(drawn)
        self.register_buffer("indices", torch.arange(k, device=device).repeat(out_features, 1))

    @classmethod
    def from_linear(cls, linear: nn.Linear, indices: NDArray[np.integer] | Tensor) -> Self:
        """Build a layer with a dense layer's weights of each class's features.

        Parameters
        ----------
        linear : (d to C), not changed
        indices : (C, k) integer, distinct in each row, NumPy or torch on any device

        Returns
        -------
        DecomposedLinear on the layer's device, in its dtype and mode
        """
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear: expected torch.nn.Linear, found {type(linear).__name__}")
        given = indices.detach().cpu().numpy() if isinstance(indices, Tensor) else indices
        checked = check_indices(given, linear.in_features, linear.out_features)
        own, device = linear.weight.detach(), linear.weight.device
        n_outputs, n_inputs = own.shape
        layer = cls(n_inputs, n_outputs, checked.shape[1], bias=False, device="meta", dtype=own.dtype)
        layer.indices = torch.from_numpy(checked.copy()).to(device)
        layer.weight = nn.Parameter(own.gather(1, layer.indices))
        layer.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())
        return layer.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (..., C) of features (..., d); of several rows they are a view that is not contiguous."""
        tracing = is_tracing()  # then sizes are tensors
        if not tracing and x.shape[-1] != self.in_features:
            raise ValueError(f"expected features (..., {self.in_features}), found shape {list(x.shape)}")
        rows = x.reshape(-1, self.in_features)
        if rows.dtype == torch.float16 or rows.dtype == torch.bfloat16:
            rows = rows.to(self.weight.dtype)  # under autocast the layer before gives another dtype
        # A recorded graph serves any batch, so its form must not depend on the size of the example.
        if not tracing and not torch.compiler.is_compiling() and rows.shape[0] <= 1:  # embedding_bag may refuse no rows
            chosen = rows.index_select(1, self.indices.reshape(-1)).reshape(-1, self.out_features, self.k)
            logits = (chosen * self.weight).sum(-1)
        else:
            columns = rows.t().contiguous()
            if is_scripting() or tracing or torch.compiler.is_compiling() or not torch.is_grad_enabled():
                sums = F.embedding_bag(self.indices, columns, mode="sum", per_sample_weights=self.weight)
            else:
                sums = weighted_rows(columns, self.indices, self.weight)
            logits = sums.t()  # a copy in the order of rows would take as long as a third of the sums
        if self.bias is not None:
            logits = logits + self.bias if tracing or torch.is_grad_enabled() else logits.add_(self.bias)
        shape = list(x.shape)  # TorchScript does not support unpacking
        shape[-1] = self.out_features
        return logits.reshape(shape)

    def masked_dense(self) -> nn.Linear:
        """Return the equal dense layer, with zeros for the features that a class does not read."""
        options: dict[str, Any] = {"device": self.weight.device, "dtype": self.weight.dtype}  # Any: two types
        dense = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, **options)
        with torch.no_grad():
            dense.weight.zero_().scatter_(1, self.indices, self.weight)
            if self.bias is not None:
                dense.bias.copy_(self.bias)
        return dense.train(self.training)

    def extra_repr(self) -> str:
        """Return the sizes, as nn.Linear does."""
        sizes = f"in_features={self.in_features}, out_features={self.out_features}, k={self.k}"
        return f"{sizes}, bias={self.bias is not None}"
