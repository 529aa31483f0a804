"""The marginal over neurons of the mutual-information similarities."""

import math

import torch
from torch import Tensor

from tasks.detectors.checks import Array, as_kind_of, check_matrix, check_number, column_blocks

COLUMNS = 2048  # concepts at a time: temporaries stay small


def subtract(joint: Array, alive: Array, lam: float) -> Array:
    """Subtract lam times the marginal of the joint term, over all neurons dissected together.

    Parameters
    ----------
    joint : (K, S) real, rows of all chunks of neurons, as `lam=0` or `Stream.joint` gives them
    alive : (K,) bool, not dead: the others take no part and stay zeros
    lam : at least 0

    Returns
    -------
    (K, S) of the kind and width that came in
    """
    check_number("lam", lam, 0)
    result = check_matrix("joint", joint).detach().clone()
    mask = torch.as_tensor(alive, device=result.device)
    if mask.dtype != torch.bool or mask.shape != result.shape[:1]:
        raise ValueError(f"alive: expected ({len(result)},) bool, found {mask.dtype} {tuple(mask.shape)}")
    return as_kind_of(joint, subtract_in_place(result, mask, float(lam)))


def subtract_in_place(joint: Tensor, alive: Tensor, lam: float) -> Tensor:
    """Do the same to `joint` itself, and return it."""
    n_alive = int(alive.sum())
    if lam == 0 or n_alive == 0:
        return joint
    for columns in column_blocks(joint.shape[1], COLUMNS):
        block = joint[:, columns]
        rows = block[alive]
        marginal = torch.logsumexp(rows.double(), dim=0) - math.log(n_alive)
        block[alive] = rows - (lam * marginal).to(rows.dtype)
    return joint
