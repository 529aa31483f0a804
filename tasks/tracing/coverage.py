"""The modules that tracing covers: their forward pass is linear in one weight."""

from torch import nn

from tasks.modules import MODULES, kind_of

COVERED: tuple[type[nn.Module], ...] = tuple(MODULES)


def covered(module: nn.Module) -> bool:
    """Return whether tracing can compute contributions to a module's output.

    Parameters
    ----------
    module : any module; a subclass of a covered class counts only if it keeps its parent's computation
    """
    return kind_of(module) is not None


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
