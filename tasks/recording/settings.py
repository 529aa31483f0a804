"""Settings of an optimiser as JSON and tensors: each value is restored exactly, with type and dtype.

None, true, false, finite numbers and texts are plain JSON, and a tuple is a JSON list. Any other value is an object of
one entry that names its kind: list, dict, float (infinite or NaN), numpy, dtype, device, tensor.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
HELD = "None, numbers, texts, dtypes, devices, NumPy numbers and arrays, tensors, and tuples, lists and dicts of these"

Value = Any  # Any: all that an optimiser may hold
Json = Any  # Any: JSON values nest without bound


def encode_setting(value: Value, what: str, tensors: dict[str, Tensor]) -> Json:
    """Return a value as JSON; its tensors are added to `tensors`, each object once.

    Raises
    ------
    ValueError : a value that cannot be restored exactly; the message begins with `what`
    """
    kind = type(value)
    if value is None or kind in (bool, int, str) or (kind is float and math.isfinite(value)):
        return value
    if kind is float:
        return {"float": repr(value)}
    if kind is tuple or kind is list:
        items = [encode_setting(item, f"{what}[{index}]", tensors) for index, item in enumerate(value)]
        return items if kind is tuple else {"list": items}
    if kind is dict:
        pairs = [(encode_setting(key, f"a key of {what}", tensors), key) for key in value]
        return {"dict": [[name, encode_setting(value[key], f"{what}[{key!r}]", tensors)] for name, key in pairs]}
    if isinstance(value, np.generic) or kind is np.ndarray:
        return {"numpy": _encode_array(value, what)}
    if kind is torch.dtype:
        return {"dtype": str(value).removeprefix("torch.")}
    if kind is torch.device:
        return {"device": str(value)}
    check_tensor(value, what)
    name = next((known for known, tensor in tensors.items() if tensor is value), str(len(tensors)))
    tensors[name] = value
    return {"tensor": name} if value.device.type == "cpu" else {"tensor": name, "device": str(value.device)}


def decode_setting(node: Json, tensors: Mapping[str, Tensor]) -> Value:
    """Return the value of a `node` from `encode_setting`; `tensors` are on their devices."""
    if isinstance(node, list):
        return tuple(decode_setting(item, tensors) for item in node)
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return tensors[node["tensor"]]
    ((kind, content),) = node.items()
    if kind == "list":
        return [decode_setting(item, tensors) for item in content]
    if kind == "dict":
        return {decode_setting(key, tensors): decode_setting(item, tensors) for key, item in content}
    return PLAIN[kind](content)


def check_tensor(value: Value, what: str) -> None:
    """Raise ValueError, which begins with `what`, unless a file can hold `value`, a tensor, exactly."""
    if type(value) is not Tensor:
        raise ValueError(f"{what}: expected {HELD}, found a {type(value).__name__}; keep it outside the optimiser")
    if value.dtype not in NAMES or value.layout is not torch.strided or value.requires_grad:
        found = f"a {value.layout} tensor of {value.dtype}{' that requires a gradient' * value.requires_grad}"
        raise ValueError(f"{what}: expected a dense tensor of {', '.join(DTYPES)} without a gradient, found {found}")


def _encode_array(value: "np.generic | np.ndarray[Any, Any]", what: str) -> Json:  # Any: every dtype
    """Return a NumPy number (shape None) or array as dtype, shape and bytes."""
    if value.dtype.hasobject or value.dtype.names is not None:
        raise ValueError(f"{what}: expected numbers, found NumPy's {value.dtype}; keep it outside the optimiser")
    return [value.dtype.str, None if isinstance(value, np.generic) else list(value.shape), value.tobytes().hex()]


def _decode_array(content: Json) -> Value:
    """Return a NumPy number or array."""
    dtype, shape, data = content
    array: np.ndarray[Any, Any] = np.ndarray(shape or (), dtype, bytearray.fromhex(data))  # Any: every dtype
    return array[()] if shape is None else array


PLAIN: dict[str, Callable[[Json], Value]] = {
    "float": float,
    "numpy": _decode_array,
    "dtype": lambda name: getattr(torch, name),
    "device": torch.device,
}
