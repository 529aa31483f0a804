"""Find the axes of a network's values that hold channels, from operation to operation in one forward pass.

Some operations make channels: a convolution puts them first, a linear layer puts them last. Other operations move
values, such as `permute` or `view`: they are tried on numbered positions. Pointwise operations and the like keep the
axes. After any other operation the channels are unknown until the next operation that makes them.
"""

import re
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

# Names of ATen operations, without underscores at their ends.
_FIRST = re.compile(r"conv(?!ert|_tbc)|(batch|group|instance)_norm")
_LAST = frozenset(
    (
        *("linear", "bilinear", "embedding", "native_multi_head_attention", "transformer_encoder_layer_fwd"),
        *("lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer"),
    )
)
_LAST_NORM = re.compile(r"(layer|rms)_norm")
_PRODUCTS = frozenset(("matmul", "mm", "bmm", "addmm", "baddbmm"))
_ATTENTION = "scaled_dot_product"
_POOL = re.compile(r"pool([123])d")
_MOVES = frozenset(
    (
        *("view", "unsafe_view", "reshape", "reshape_alias", "permute", "transpose", "t", "squeeze", "unsqueeze"),
        *("select", "slice", "narrow", "expand", "repeat", "unfold", "split", "split_with_sizes", "chunk"),
        *("unsafe_split", "unsafe_chunk", "unbind", "stack", "index", "index_select", "pixel_shuffle"),
        *("pixel_unshuffle", "mean", "sum", "amax", "amin", "max", "min"),
    )
)
_KEEPS = frozenset(  # besides all that ATen itself calls pointwise
    (
        *("alias", "detach", "to", "to_copy", "contiguous", "copy", "lift_fresh", "fill", "zero", "masked_fill"),
        *("dropout", "feature_dropout", "alpha_dropout", "native_dropout", "where", "hardswish", "prelu", "glu"),
        *("prelu_kernel", "rrelu_with_noise", "log_sigmoid", "log_sigmoid_forward", "softplus", "softmax"),
        *("log_softmax", "cumsum", "cumprod", "roll", "flip", "cat", "pad", "constant_pad_nd", "channel_shuffle"),
        *("native_channel_shuffle", "slice_scatter", "select_scatter", "index_put", "index_put_impl"),
        *("index_add", "index_copy", "index_fill", "masked_scatter", "scatter", "scatter_add", "put"),
    )
)
_SAMPLED = re.compile(r"pad[123]d|^upsample|^grid_sampler")


class Axes(NamedTuple):
    """The axes of a value that hold channels: one where the channels are known, else several or none."""

    held: frozenset[int] = frozenset()
    image: bool = False  # the image's own channels, which the first layer replaces


class _Operand(NamedTuple):
    """The facts that are known about a tensor before an operation."""

    axes: Axes
    shape: tuple[int, ...]
    device: torch.device


_Known = Mapping[int, _Operand]  # by the tensor's id; a missing tensor is a parameter or a constant
_Given = tuple[Any, ...]  # Any: the arguments of an operation


class ChannelTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own has no hints
    """A mode that, during its block, follows the channels of all values that a network computes from `images`.

    Images are (n, C, H, W). The block must run in inference mode, where operations such as `linear` are not split.
    """

    supports_higher_order_operators = True  # such as torch.cond: they run, and their outputs are unknown

    def __init__(self, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own has no hints
        self._axes = WeakIdKeyDictionary()
        self._axes[images] = Axes(frozenset((1,)), image=True)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: to mark this function for torch's compiler would import the compiler, which takes seconds."""
        return False

    def axes(self, value: object) -> frozenset[int]:
        """Return the axes of a value that hold channels; none or several where they are not known."""
        found: Axes = self._axes[value] if isinstance(value, Tensor) and value in self._axes else Axes()
        return found.held

    def __torch_dispatch__(self, func: Any, types: Any, args: _Given = (), kwargs: Any = None) -> Any:  # Any: torch's
        """Run an operation, and record the axes of channels in its outputs."""
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return func(*args, **kwargs)
        name, pointwise = func.overloadpacket.__name__.strip("_"), torch.Tag.pointwise in func.tags
        if not pointwise and not _is_known(name):
            with self:  # its parts may be known operations
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and leaf in self._axes]
        known = {id(tensor): _Operand(self._axes[tensor], tuple(tensor.shape), tensor.device) for tensor in tensors}
        found = _moved(func, args, kwargs, known) if known and not pointwise and name in _MOVES else []
        result = func(*args, **kwargs)
        if known:
            outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            if pointwise or name not in _MOVES:
                found = [_placed("" if pointwise else name, args, known, output) for output in outputs[:1]]
            for index, output in enumerate(outputs):
                self._axes[output] = found[index] if index < len(found) else Axes()
        return result


def _is_known(name: str) -> bool:
    """Return whether an operation is followed as a whole."""
    patterns = (_FIRST, _LAST_NORM, _POOL, _SAMPLED)
    names = _LAST | _PRODUCTS | _MOVES | _KEEPS
    return name in names or name.startswith(_ATTENTION) or any(pattern.search(name) for pattern in patterns)


def _placed(name: str, args: _Given, known: _Known, output: Tensor) -> Axes:
    """Return the channels of an operation's first output; `name` is empty for a pointwise operation."""
    n_axes = output.ndim
    if not name or name in _KEEPS or _SAMPLED.search(name):
        return _aligned(known.values(), n_axes)
    if match := _POOL.search(name):
        kept = _aligned(known.values(), n_axes)
        return kept if kept.held else Axes(frozenset((n_axes - 1 - int(match[1]),)))
    if name in _PRODUCTS:
        left, right = args[1:3] if "add" in name else args[:2]
        return _product(left, right, known, n_axes)
    if name.startswith(_ATTENTION):
        value = known.get(id(args[2]))
        return value.axes if value else Axes()
    if _FIRST.search(name):
        return _made(known.get(id(args[0])), 1, n_axes)
    if _LAST_NORM.search(name):  # a norm over several axes may hold channels on any of them
        return (
            _made(known.get(id(args[0])), n_axes - 1, n_axes) if len(args[1]) == 1 else _aligned(known.values(), n_axes)
        )
    if name in _LAST:
        return _made(known.get(id(args[0])), n_axes - 1, n_axes)
    same = known.get(id(output))  # an operation in place keeps the axes
    return same.axes if same is not None and same.shape == output.shape else Axes()


def _made(source: _Operand | None, axis: int, n_axes: int) -> Axes:
    """Return new channels on an axis; channels of the input on another axis stay, and then the axis is unknown."""
    stays = source is not None and not source.axes.image and len(source.shape) == n_axes
    return Axes((source.axes.held if source is not None and stays else frozenset()) | {axis})


def _aligned(operands: Iterable[_Operand], n_axes: int) -> Axes:
    """Return the channels of a value that has the axes of its operands, counted from the last."""
    with_channels = [operand for operand in operands if operand.axes.held]
    sources = [operand for operand in with_channels if not operand.axes.image] or with_channels
    if not sources:
        return Axes()
    held = [frozenset(axis + n_axes - len(source.shape) for axis in source.axes.held) for source in sources]
    return Axes(frozenset.intersection(*held) or frozenset.union(*held), sources[0].axes.image)


def _product(left: Tensor, right: Tensor, known: _Known, n_axes: int) -> Axes:
    """Return the channels of a matrix product: rows of the left, columns of the right; parameters give new channels."""
    if min(left.ndim, right.ndim) < 2:
        return Axes()
    held: set[int] = set()
    for matrix, summed, other in ((left, -1, -2), (right, -2, -1)):
        operand = known.get(id(matrix))
        if operand is None:
            held.add(n_axes + other)
        elif not operand.axes.image:
            gone = len(operand.shape) + summed
            held |= {axis + n_axes - len(operand.shape) for axis in operand.axes.held if axis != gone}
    return Axes(frozenset(held))


def _moved(func: Any, args: _Given, kwargs: Any, known: _Known) -> list[Axes]:  # Any: torch's own
    """Return the channels of every output of an operation that only moves values, from a run on numbered values.

    An axis of an output holds channels where the channel's number changes along it and no other number does.
    """
    image = all(operand.axes.image for operand in known.values())
    numbers = {key: _numbered(operand, others=False) for key, operand in known.items()}
    channels = _run(func, args, kwargs, numbers)
    places = {tensor.untyped_storage().data_ptr() for tensor in numbers.values()}
    if all(output.untyped_storage().data_ptr() in places for output in channels):
        # Views: an axis of the numbers with a stride holds channels alone; other axes would need a copy.
        steps = [zip(output.shape, output.stride(), strict=True) for output in channels]
        return [Axes(frozenset(i for i, (n, step) in enumerate(one) if n > 1 and step), image) for one in steps]
    others = _run(func, args, kwargs, {key: _numbered(operand, others=True) for key, operand in known.items()})
    return [Axes(_changing(one) - _changing(other), image) for one, other in zip(channels, others, strict=False)]


def _run(func: Any, args: _Given, kwargs: Any, numbers: Mapping[int, Tensor]) -> list[Tensor]:  # Any: torch's own
    """Return the outputs of an operation on numbered values, none where the operation refuses them."""
    for whole in (False, True):  # a view of repeated numbers may need a full copy
        stand_ins = {key: tensor.contiguous() if whole else tensor for key, tensor in numbers.items()}
        swapped = tree_map_only(Tensor, partial(_swap, stand_ins), (args, kwargs))
        try:
            result = func(*swapped[0], **swapped[1])
        except (RuntimeError, IndexError, TypeError, ValueError):
            continue
        return [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return []


def _swap(numbers: Mapping[int, Tensor], tensor: Tensor) -> Tensor:
    """Return the numbers in place of a tensor, the tensor itself where there are none."""
    return numbers.get(id(tensor), tensor)


def _numbered(operand: _Operand, *, others: bool) -> Tensor:
    """Return a tensor that numbers the channels, or with `others` the positions on all other axes."""
    chosen = [size if (axis in operand.axes.held) != others else 1 for axis, size in enumerate(operand.shape)]
    numbers = torch.arange(float(torch.Size(chosen).numel()), dtype=torch.float64, device=operand.device)
    return numbers.reshape(chosen).expand(operand.shape)


def _changing(numbers: Tensor) -> frozenset[int]:
    """Return the axes along which numbers change; means of equal numbers may differ by rounding."""
    values = numbers.double()
    sizes = enumerate(values.shape) if values.numel() else ()
    return frozenset(
        axis for axis, size in sizes if size > 1 and float((values - values.narrow(axis, 0, 1)).abs().max()) > 1e-6
    )
