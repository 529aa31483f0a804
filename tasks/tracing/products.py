"""Matrix products of the projection: in float32 where that is as good, with sums in float64."""

import torch
from torch import Tensor

PIECE = 8192  # terms that are summed in float32 before float64 takes over


def product_type(tensor: Tensor) -> torch.dtype:
    """Return the dtype of products: float32 only for float32 on a CPU without reduced-precision products.

    Accelerators may round float32 products to ten bits, as process-wide flags say; float64 does not depend on them.
    """
    if tensor.dtype == torch.float64 or tensor.device.type != "cpu":
        return torch.float64
    backend = torch.backends.mkldnn
    flags = (torch.backends, backend, getattr(backend, "matmul", None))
    exact = all(getattr(flag, "fp32_precision", "none") in ("none", "ieee") for flag in flags)
    return torch.float32 if exact else torch.float64


def step_norms(matrices: Tensor) -> Tensor:
    """Frobenius norms (T,) float64 of matrices (T, ...); not finite where an entry is not."""
    found: Tensor = torch.linalg.vector_norm(matrices.flatten(1), dim=1, dtype=torch.float64)
    return found


def inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner products (t, Q) of rows (t, P) and (Q, P), as one matrix product."""
    return left @ right.mT


def split_inner(left: Tensor, right: Tensor) -> Tensor:
    """The same in float64, pieces of `PIECE` terms multiplied in the inputs' dtype."""
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    for start in range(0, left.shape[1], PIECE):
        part = slice(start, start + PIECE)
        total += inner(left[:, part], right[:, part])
    return total


def direct(matrices: Tensor, rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return <z, D F> and ||D F||, both (t, Q) float64, from D F itself.

    Parameters
    ----------
    matrices : (t, g, o, n)
    rows : (g, n, Q L)
    z : (g, o, Q, L)
    """
    steps, groups, outputs, width = matrices.shape
    moved = matrices.transpose(0, 1).reshape(groups, steps * outputs, width) @ rows
    moved = moved.view(groups, steps, outputs, *z.shape[2:])
    gamma = (moved * z[:, None]).sum(dim=(0, 2, 4), dtype=torch.float64)
    norm = torch.linalg.vector_norm(moved, dim=(0, 2, 4), dtype=torch.float64)
    return gamma, norm
