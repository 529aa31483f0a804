"""Which modules the decomposition covers: those whose forward pass is linear in one weight."""

from torch import nn

from tasks.modules import MODULES, kind_of

COVERED: tuple[type[nn.Module], ...] = tuple(MODULES)


def covered(module: nn.Module) -> bool:
    """Say whether contributions to a module's output can be told.

    Parameters
    ----------
    module : any; a subclass of a covered class counts only if it computes what its parent computes
    """
    return kind_of(module) is not None


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
