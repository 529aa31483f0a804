"""The call of a module with several linear maps, sample by sample: its arguments and its outputs for one alone."""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

ATTENTION = (
    *("query", "key", "value", "key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal"),
)
RECURRENT = ("input", "hx")
Arguments = dict[str, object]


def arguments_of(module: nn.Module, given: Sequence[object], named: Mapping[str, object]) -> Arguments:
    """Return the arguments of a call by name, with copies of tensors that do not need a gradient."""
    names = ATTENTION if isinstance(module, nn.MultiheadAttention) else RECURRENT
    return {name: _copy(one) for name, one in {**dict(zip(names, given, strict=False)), **named}.items()}


def outputs_of(output: object) -> list[Tensor]:
    """Return the tensors that a call gives and that a gradient can reach, in a fixed order."""
    if isinstance(output, Tensor):
        return [output] if output.requires_grad else []
    if isinstance(output, PackedSequence):
        return outputs_of(output.data)
    return [one for part in output for one in outputs_of(part)] if isinstance(output, tuple) else []


def count_samples(module: nn.Module, arguments: Arguments) -> int:
    """Return the number of samples of a call, 0 for one without an axis of samples."""
    first = arguments.get(ATTENTION[0] if isinstance(module, nn.MultiheadAttention) else RECURRENT[0])
    if isinstance(first, PackedSequence):
        return int(first.batch_sizes[0])
    return first.shape[_axis(module)] if isinstance(first, Tensor) and first.ndim == 3 else 0


def alone(module: nn.Module, arguments: Arguments, n: int) -> Iterator[Arguments]:
    """Yield the arguments of each of n samples, as a call of its own takes them: a batch of one, not packed."""
    for index in range(n):
        yield {name: _of_sample(module, name, one, index) for name, one in arguments.items()}


def output_parts(
    module: nn.Module, output: object, gradients: Sequence[Tensor | None], n: int
) -> Iterator[list[Tensor | None]]:
    """Yield the parts of each of n samples of gradients of `outputs_of(output)`, in the layout of a call of its own."""
    packed = output[0] if isinstance(output, tuple) and isinstance(output[0], PackedSequence) else None
    whole = list(gradients)
    if isinstance(packed, PackedSequence) and whole[0] is not None:
        whole[0], lengths = pad_packed_sequence(packed._replace(data=whole[0]), batch_first=True)
    for index in range(n):
        parts: list[Tensor | None] = []
        for place, gradient in enumerate(whole):
            if gradient is None:
                parts.append(None)
            elif place == 0 and packed is not None:
                one = gradient[index : index + 1, : int(lengths[index])]
                parts.append(one if module.batch_first else one.transpose(0, 1))
            else:
                state = isinstance(module, nn.RNNBase) and place > 0  # states have samples on axis 1
                parts.append(gradient.narrow(1 if state else _axis(module), index, 1))
        yield parts


def _axis(module: nn.Module) -> int:
    """Return the axis of samples of a module's sequences."""
    return 0 if module.batch_first else 1


def _copy(value: object) -> object:
    """Return a copy of a tensor, of the tensors of a tuple, or of a packed batch."""
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.detach().clone())
    if isinstance(value, tuple):
        return tuple(_copy(one) for one in value)
    return value.detach().clone() if isinstance(value, Tensor) else value


def _of_sample(module: nn.Module, name: str, value: object, index: int) -> object:
    """Return an argument of one sample."""
    if name == "need_weights":
        return False
    if isinstance(value, PackedSequence):
        steps, lengths = pad_packed_sequence(value, batch_first=True)
        one = steps[index : index + 1, : int(lengths[index])]
        return one if module.batch_first else one.transpose(0, 1)
    if isinstance(value, tuple):
        return tuple(_of_sample(module, name, one, index) for one in value)
    if not isinstance(value, Tensor):
        return value
    if name == "hx":
        return value.narrow(1, index, 1).contiguous()
    if name == "key_padding_mask":
        return value[index : index + 1]
    if name == "attn_mask":
        heads = int(module.num_heads)  # type: ignore[arg-type]  # torch's stub
        return value if value.ndim == 2 else value[index * heads : (index + 1) * heads]
    return value.narrow(_axis(module), index, 1).contiguous()
