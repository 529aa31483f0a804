"""Kinds of modules that are linear in one weight, by class. A new kind: one file, and a line for each class."""

from torch import nn

from tasks.modules.convolution import Convolution
from tasks.modules.kind import ModuleKind, Use, only_tensor
from tasks.modules.linear import Linear
from tasks.modules.transposed import TransposedConvolution

__all__ = ["MODULES", "ModuleKind", "Use", "kind_of", "only_tensor"]

MODULES: dict[type[nn.Module], ModuleKind] = {
    nn.Linear: Linear(),
    nn.Conv1d: Convolution(),
    nn.Conv2d: Convolution(),
    nn.Conv3d: Convolution(),
    nn.ConvTranspose1d: TransposedConvolution(),
    nn.ConvTranspose2d: TransposedConvolution(),
    nn.ConvTranspose3d: TransposedConvolution(),
}
# A hook on this one (`nn.MultiheadAttention.out_proj`) never fires, so that its inputs cannot be had.
_HIDDEN = "NonDynamicallyQuantizableLinear"


def kind_of(module: nn.Module) -> ModuleKind | None:
    """Return the kind of a module, None where it has none.

    Parameters
    ----------
    module : any; a subclass of a class in `MODULES` is of its kind only if it computes what its parent computes
    """
    if type(module).__name__ == _HIDDEN:
        return None
    for known, kind in MODULES.items():
        if isinstance(module, known) and all(getattr(type(module), m) is getattr(known, m) for m in kind.forward):
            return kind
    return None
