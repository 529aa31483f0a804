"""Which modules the decomposition covers: those whose forward pass is linear in one weight."""

from torch import nn

COVERED: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
# A hook on this one (`nn.MultiheadAttention.out_proj`) never fires, so that its inputs cannot be had.
_HIDDEN = "NonDynamicallyQuantizableLinear"


def covered(module: nn.Module) -> bool:
    """Say whether contributions to a module's output can be told.

    Parameters
    ----------
    module : any; a subclass of a covered class counts only if it computes what its parent computes
    """
    return _operation(module) is not None and type(module).__name__ != _HIDDEN


def check_covered(name: str, module: nn.Module) -> None:
    """Check that a module is covered.

    Parameters
    ----------
    name : what the message calls it, such as the layer's name

    Raises
    ------
    TypeError : it is not; the message names its class and lists the covered ones
    """
    if not covered(module):
        known = ", ".join(one.__name__ for one in COVERED)
        raise TypeError(f"{name}: {type(module).__name__} is not covered by tracing; covered modules: {known}")


def _operation(module: nn.Module) -> type[nn.Module] | None:
    """The covered class whose forward pass a module has, None where there is none."""
    for known in COVERED:
        if isinstance(module, known) and type(module).forward is known.forward:
            inner = "_conv_forward"
            if getattr(type(module), inner, None) is getattr(known, inner, None):
                return known
    return None
