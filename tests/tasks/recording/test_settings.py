"""Every setting of an optimiser comes back as it was: value, type and dtype."""

import json
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.documents import canonical
from tasks.recording.settings import decode_setting, encode_setting


class Level(IntEnum):
    LOW = 1


class Pair(NamedTuple):
    one: float
    two: float


class Half(float):
    """A number of the loop's own kind."""


PLAIN: list[Any] = [  # Any: settings of every kind
    *(None, True, False, 0, -3, 2**70, 0.1, -0.0, 5e-324, 1e300, float("inf"), -float("inf"), float("nan"), "", "ä\n"),
    *(
        (),
        (0.9, 0.999),
        (None, 1e-3),
        [],
        ["a", "b"],
        [1, (2, [3.0])],
        {},
        {"a": (1, {"b": [None]}), 2: "c", (3, 4): 5},
    ),
]
NUMPY: list[Any] = [
    *(kind(1.1) for kind in (np.float64, np.float32, np.float16, np.longdouble)),
    *(kind(3) for kind in (np.int64, np.int32, np.int8, np.uint64, np.bool_)),
    *(np.complex64(1 + 2j), np.str_("warm"), np.datetime64("2026-01-02"), np.float64("nan"), np.float32("inf")),
    *(np.arange(6.0, dtype=np.float32).reshape(2, 3), np.zeros((0, 2)), np.array(1.5), np.arange(3, dtype=">i2")),
]
TENSORS: list[Any] = [
    *(torch.tensor(1.1, dtype=kind) for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16)),
    *(torch.tensor(3, dtype=kind) for kind in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)),
    *(torch.tensor(True), torch.tensor([[1.0, float("nan")]]), torch.zeros(0), (torch.tensor(0.9), torch.tensor(0.99))),
    *(torch.bfloat16, torch.device("cuda:1"), {"rates": [torch.tensor(0.1), np.float32(0.2)]}),
]


def identical(one: Any, other: Any) -> bool:  # Any: settings of every kind
    """Say whether two values have the same types and the same bits, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        if (one.dtype, one.shape, one.device) != (other.dtype, other.shape, other.device):
            return False
        return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))
    if isinstance(one, np.ndarray | np.generic):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if isinstance(one, dict):
        return list(one) == list(other) and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(identical, one, other))
    return repr(one) == repr(other)


def through_a_file(value: Any) -> Any:  # Any: settings of every kind
    """Return a value as a checkpoint gives it back."""
    tensors: dict[str, Tensor] = {}
    text = canonical(encode_setting(value, "it", tensors))
    return decode_setting(json.loads(text), {name: tensor.clone() for name, tensor in tensors.items()})


@pytest.mark.parametrize("value", [*PLAIN, *NUMPY, *TENSORS], ids=lambda value: f"{type(value).__name__}-{value}"[:40])
def test_a_setting_comes_back_as_it_was(value: Any) -> None:  # Any: settings of every kind
    assert identical(through_a_file(value), value)


def test_two_settings_that_share_a_tensor_share_it_afterwards() -> None:
    rate, other = torch.tensor(0.1), torch.tensor(0.1)
    first, second, third = through_a_file((rate, rate, other))
    assert first is second
    assert first is not third


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1, 2}, "it: expected None, numbers, .*, found a set; keep it outside the optimiser"),
        (1j, "it: .*found a complex"),
        (b"x", "it: .*found a bytes"),
        (len, "it: .*found a builtin_function_or_method"),
        ([0, {"hook": print}], r"it\[1\]\['hook'\]: .*found a builtin_function_or_method"),
        ({Level.LOW: 0}, "a key of it: .*found a Level"),
        (Level.LOW, "it: .*found a Level"),
        (Pair(0.9, 0.99), "it: .*found a Pair"),
        (Half(0.5), "it: .*found a Half"),
        (nn.Parameter(torch.ones(1)), "it: .*found a Parameter"),
        (torch.ones(1, requires_grad=True), r"it: expected a dense tensor .*torch\.float32 that requires a gradient"),
        (torch.ones(1, dtype=torch.complex64), r"it: expected a dense tensor of F64, .* of torch\.complex64"),
        (torch.ones(2).to_sparse(), r"it: expected a dense tensor .*torch\.sparse_coo"),
        (np.array([None]), "it: expected numbers, found NumPy's object"),
        (np.zeros(1, [("a", "f4")]), "it: expected numbers, found NumPy's"),
    ],
)
def test_what_would_not_come_back_is_named(value: object, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text}"):
        encode_setting(value, "it", {})


@pytest.mark.parametrize("make", [lambda: (0.9, 0.999), lambda: None, lambda: 0.1, lambda: "text"])
def test_plain_settings_are_plain_json(make: Callable[[], object]) -> None:
    value = make()
    assert json.loads(canonical(encode_setting(value, "it", {}))) == (
        list(value) if isinstance(value, tuple) else value
    )
