"""Kinds of operations in a network, by name: the class of a module or the name of a function."""

from torch import Tensor

# Names without underscores and capitals: nn.LeakyReLU and F.leaky_relu are both `leakyrelu`.
_ACTIVATIONS = frozenset(
    (
        *("relu", "relu6", "leakyrelu", "prelu", "rrelu", "elu", "selu", "celu", "gelu", "silu", "mish", "swish"),
        *("hardswish", "hardsigmoid", "hardtanh", "sigmoid", "logsigmoid", "tanh", "softplus", "softsign"),
        *("tanhshrink", "softshrink", "hardshrink", "threshold", "clamp", "clampmin"),
    )
)
# Operations that do not make a new map: the search goes on with the map before.
_PASSED_OVER = ("pool", "dropout", "stochasticdepth", "droppath", "identity", "conv", "norm", "contiguous", "clone")


def plain(name: str) -> str:
    """Return an operation's name without capitals and underscores."""
    return name.lower().replace("_", "")


def is_activation(name: str) -> bool:
    """Return whether the plain `name` is an activation function."""
    return name in _ACTIVATIONS


def is_convolution(name: str) -> bool:
    """Return whether the plain `name` is a convolution."""
    return "conv" in name


def is_passed_over(name: str) -> bool:
    """Return whether the search for the last map skips the plain `name`."""
    return any(part in name for part in _PASSED_OVER)


def is_map(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is that of maps (n, d, h, w) with more than one position."""
    return len(shape) == 4 and shape[2] * shape[3] > 1


def is_pooled(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is that of features: (n, d) or (n, d, 1, 1)."""
    return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))


def shape_of(value: object, axes: frozenset[int] = frozenset()) -> tuple[int, ...]:
    """Return a tensor's shape, channels first for maps with channels last; () for anything but a tensor.

    Parameters
    ----------
    value : any value within a network
    axes : the axes of the value that hold channels, as far as they are known
    """
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    return (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 and axes == {3} else shape
