"""Kinds of modules by class: those linear in one weight, and those composed of several linear maps.

A new kind: one file, and a line for each class.
"""

from torch import nn

from tasks.modules.attention import Attention
from tasks.modules.composed import ComposedKind, PaddedLinear
from tasks.modules.convolution import Convolution
from tasks.modules.embedding import Embedding
from tasks.modules.kind import ModuleKind, Use, only_tensor
from tasks.modules.linear import Linear
from tasks.modules.padded import Padded
from tasks.modules.recurrent import Recurrent
from tasks.modules.transposed import TransposedConvolution

__all__ = [
    "COMPOSED",
    "MODULES",
    "ComposedKind",
    "Embedding",
    "ModuleKind",
    "PaddedLinear",
    "Use",
    "composed_kind_of",
    "kind_names",
    "kind_of",
    "only_tensor",
]

MODULES: dict[type[nn.Module], ModuleKind] = {
    nn.Linear: Linear(),
    nn.Conv1d: Convolution(),
    nn.Conv2d: Convolution(),
    nn.Conv3d: Convolution(),
    nn.ConvTranspose1d: TransposedConvolution(),
    nn.ConvTranspose2d: TransposedConvolution(),
    nn.ConvTranspose3d: TransposedConvolution(),
    nn.Embedding: Embedding(),
}
COMPOSED: dict[type[nn.Module], ComposedKind] = {
    nn.MultiheadAttention: Attention(),
    nn.LSTM: Recurrent(),
    nn.GRU: Recurrent(),
    nn.RNN: Recurrent(),
}
_PADDED = Padded()
# A hook on this one (`nn.MultiheadAttention.out_proj`) never fires, so that its inputs cannot be had.
_HIDDEN = "NonDynamicallyQuantizableLinear"


def kind_of(module: nn.Module) -> ModuleKind | None:
    """Return the kind of a module, None where it has none.

    Parameters
    ----------
    module : any; a subclass of a class in `MODULES` is of its kind only if it computes what its parent computes
    """
    if type(module).__name__ == _HIDDEN or getattr(module, "max_norm", None) is not None:
        return None  # `max_norm` changes the table in each call
    if isinstance(module, PaddedLinear):
        return _PADDED
    for known, kind in MODULES.items():
        if isinstance(module, known) and all(getattr(type(module), m) is getattr(known, m) for m in kind.forward):
            return kind
    return None


def composed_kind_of(module: nn.Module) -> ComposedKind | None:
    """Return the kind of a module that holds several linear maps, None where it is not such a module."""
    for known, kind in COMPOSED.items():
        if isinstance(module, known) and all(getattr(type(module), m) is getattr(known, m) for m in kind.forward):
            return None if kind.problem(module) else kind
    return None


def kind_names() -> str:
    """Return the covered classes."""
    return ", ".join(kind.__name__ for kind in (*MODULES, *COMPOSED))
