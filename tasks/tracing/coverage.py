"""The modules that tracing covers: their forward pass is linear in one weight."""

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
# A hook on this class (`nn.MultiheadAttention.out_proj`) never fires, so its inputs are not available.
_HIDDEN = "NonDynamicallyQuantizableLinear"


def covered(module: nn.Module) -> bool:
    """Return whether tracing can compute contributions to a module's output.

    Parameters
    ----------
    module : any module; a subclass of a covered class counts only if it keeps its parent's computation
    """
    return _operation(module) is not None and type(module).__name__ != _HIDDEN


def check_covered(name: str, module: nn.Module) -> None:
    """Check that a module is covered.

    Parameters
    ----------
    name : name in the message, such as the layer's name

    Raises
    ------
    TypeError : the module is not covered; the message names its class and lists the covered classes
    """
    if not covered(module):
        known = ", ".join(one.__name__ for one in COVERED)
        raise TypeError(f"{name}: expected a module that tracing covers ({known}), found {type(module).__name__}")


def _operation(module: nn.Module) -> type[nn.Module] | None:
    """Return the covered class with a module's forward pass, None where there is none."""
    for known in COVERED:
        if isinstance(module, known) and type(module).forward is known.forward:
            inner = "_conv_forward"
            if getattr(type(module), inner, None) is getattr(known, inner, None):
                return known
    return None
