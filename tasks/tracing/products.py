"""Matrix products of the projection: in float32 where that is exact enough, with sums in float64."""

import torch
from torch import Tensor

from tasks.modules.rows import Inputs
from tasks.tracing.patches import Operation

PIECE = 8192  # number of terms that are summed in float32; the pieces are summed in float64
SQUARES = 1e-15, 1e15  # range of norms with squares well inside float32


def product_type(tensor: Inputs) -> torch.dtype:
    """Return the dtype of products: float32 only for float32 tensors on a CPU at full precision.

    Accelerators may round float32 products to ten bits, depending on process-wide flags. float64 does not depend on
    these flags.
    """
    if tensor.dtype == torch.float64 or tensor.device.type != "cpu":
        return torch.float64
    backend = torch.backends.mkldnn
    flags = (torch.backends, backend, getattr(backend, "matmul", None), getattr(backend, "conv", None))
    exact = all(getattr(flag, "fp32_precision", "none") in ("none", "ieee") for flag in flags)
    return torch.float32 if exact else torch.float64


def step_norms(updates: Tensor) -> Tensor:
    """Return Frobenius norms (T,) float64 of updates (T, ...), exact to 1e-4; not finite where an entry is not."""
    flat = updates.reshape(len(updates), -1)
    found: Tensor = torch.linalg.vector_norm(flat, dim=1).double()
    unsure = ~surely_squared(found)  # float64 for all of them is thirty times slower
    if unsure.any():
        found[unsure] = torch.linalg.vector_norm(flat[unsure], dim=1, dtype=torch.float64)
    return found


def surely_squared(norms: Tensor) -> Tensor:
    """Return whether squares that float32 sums to these norms neither vanish nor overflow."""
    return (norms > SQUARES[0]) & (norms < SQUARES[1])


def inner(left: Tensor, right: Tensor) -> Tensor:
    """Return inner products (t, Q) float64 of rows (t, P) and (Q, P), in pieces in the dtype of `right`."""
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=right.device)
    for start in range(0, left.shape[1], PIECE):
        part = slice(start, start + PIECE)
        total += left[:, part].to(right.dtype) @ right[:, part].mT
    return total


def by_matrices(matrices: Tensor, rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return <z, D F> and ||D F||, both (t, Q) float64, from one product for all steps and queries.

    Parameters
    ----------
    matrices : (t, g, o, n)
    rows : (g, n, Q L)
    z : (g, o, Q, L)
    """
    steps, groups, outputs, width = matrices.shape
    moved = matrices.transpose(0, 1).reshape(groups, steps * outputs, width) @ rows
    return of_moved(moved.view(groups, steps, outputs, *z.shape[2:]), z)


def for_one_product(rows: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return patches (Q, g, n, L) and z (Q, g, o, L) as (g, n, Q L) and (g, o, Q, L)."""
    return rows.permute(1, 2, 0, 3).flatten(2).contiguous(), z.permute(1, 2, 0, 3).contiguous()


def of_moved(moved: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return <z, D F> and ||D F||, both (t, Q) float64, from D F (g, t, o, Q, L) and z (g, o, Q, L)."""
    gamma = (moved * z[:, None]).sum(dim=(0, 2, 4))
    return gamma.double(), moved.square().sum(dim=(0, 2, 4)).double().sqrt()


def by_convolution(
    operation: Operation, updates: Tensor, biases: Tensor | None, padded: Tensor, z: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the results of `by_matrices` from a convolution per step, of padded inputs (Q, ...) with z (Q, o L)."""
    gamma, norm = torch.zeros(2, len(updates), len(z), dtype=torch.float64, device=z.device)
    for step, update in enumerate(updates):
        moved = operation.convolve(padded, update, None if biases is None else biases[step])
        gamma[step] = torch.linalg.vecdot(moved, z)
        norm[step] = torch.linalg.vector_norm(moved, dim=1)
    return gamma, norm
