"""Contributions of the output layer's updates to one logit of each query."""

import torch
from torch import Tensor, nn

from tasks.tracing.checks import check_finite, check_shape, check_tensors


@torch.no_grad()
def logit_contributions(
    module: nn.Module, inputs: Tensor, updates: Tensor, classes: Tensor, *, bias_updates: Tensor | None = None
) -> Tensor:
    """Return (D_t f)_c for T updates of a linear output layer and the class c of each of Q queries.

    Parameters
    ----------
    module : Linear
    inputs : (Q, in) float
    updates : (T, out, in), of the same dtype and device
    classes : (Q,) integer, 0..out-1
    bias_updates : (T, out) or None; if given, db_c is added

    Returns
    -------
    (Q, T) float64 for float64, else float32; with those of the initial weights and bias they sum to the logit

    Raises
    ------
    TypeError : the module is not linear, or an array instead of a tensor
    ValueError : wrong shapes, NaN, a class out of range, two dtypes or devices
    """
    if not isinstance(module, nn.Linear):
        raise TypeError(f"module: expected a Linear output layer, found {type(module).__name__}")
    _check(inputs, updates, classes, bias_updates)
    found = torch.zeros(len(inputs), len(updates), dtype=torch.float64, device=inputs.device)
    for number in sorted(set(classes.tolist())):
        rows = classes == number
        found[rows] = inputs[rows].double() @ updates[:, number].double().mT  # reads only this row of each update
        if bias_updates is not None:
            found[rows] += bias_updates[:, number].double()
    return found.to(torch.promote_types(inputs.dtype, torch.float32))


def _check(inputs: Tensor, updates: Tensor, classes: Tensor, bias_updates: Tensor | None) -> None:
    """Check shapes, dtypes and values of the inputs."""
    check_tensors(inputs=inputs, updates=updates, bias_updates=bias_updates)
    check_shape("inputs", inputs, (-1, -1))
    check_shape("updates", updates, (-1, -1, inputs.shape[1]))
    if bias_updates is not None:
        check_shape("bias_updates", bias_updates, (len(updates), updates.shape[1]))
        check_finite("bias_updates", bias_updates)
    check_finite("inputs", inputs)
    check_finite("updates", updates)
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.dtype == torch.bool:
        found = classes.dtype if isinstance(classes, Tensor) else type(classes).__name__
        raise TypeError(f"classes: expected a torch tensor of integers, found {found}")
    check_shape("classes", classes, (len(inputs),))
    if len(classes) and not (classes.min() >= 0 and classes.max() < updates.shape[1]):
        raise ValueError(
            f"classes: expected 0..{updates.shape[1] - 1}, found {int(classes.min())}..{int(classes.max())}"
        )
