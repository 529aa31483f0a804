"""Codes of updates: values worked by hand, and the stated error of each code."""

import math

import pytest
import torch
from torch import Tensor

from tasks.recording.codes import ERRORS, code_bytes, decode, encode, smallest_code

SHAPES = [(7, 5), (4, 3, 2, 2), (1, 1), (300, 40)]


def round_trip(update: Tensor, code: str) -> tuple[str, Tensor, int]:
    """Return form, decoded update and bytes."""
    encoded = encode(update, code)
    data = torch.cat([part.contiguous().reshape(-1).view(torch.uint8) for part in encoded.parts])
    if bool(update.isfinite().all()):
        assert encoded.norm == pytest.approx(float(update.double().norm()), rel=1e-5)
    return encoded.form, decode(encoded.form, data, update.shape, update.dtype), data.numel()


def test_int8_by_hand() -> None:
    update = torch.tensor([[127.0, -63.4, 0.0], [0.0, 0.0, 0.0], [2.54, 0.01, -1.27]])
    form, found, size = round_trip(update, "int8")
    assert (form, size) == ("int8", 3 * 4 + 9)
    expected = torch.tensor([[127.0, -63.0, 0.0], [0.0, 0.0, 0.0], [2.54, 0.0, -1.28]])  # steps of 1, none, 0.02
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_float16_has_one_scale_where_rows_are_uneven() -> None:
    spiky = torch.zeros(2, 10_000)
    spiky[:, 0], spiky[:, 1:] = 1e4, torch.linspace(0.1, 0.3, 9_999)  # steps of 0.3 would lose the rest
    form, found, _ = round_trip(spiky, "float16")
    assert form == "float16"
    assert float((found / spiky - 1).abs().max()) <= 2**-11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("code", ["int8", "float16"])
@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e20])
def test_every_update_keeps_the_stated_error(
    code: str, shape: tuple[int, ...], dtype: torch.dtype, scale: float
) -> None:
    generator = torch.Generator().manual_seed(1)
    for power in (1, 3, 9):  # up to very heavy tails
        update = torch.randn(shape, generator=generator, dtype=dtype).pow(power) * scale
        _, found, size = round_trip(update, code)
        assert float((found - update).double().norm()) <= ERRORS[code] * float(update.double().norm())
        assert size <= code_bytes("float16", shape, dtype.itemsize) + 16
        assert found.dtype == dtype


def test_zeros_and_numbers_that_are_not_finite() -> None:
    for code in ("int8", "float16"):
        assert torch.equal(round_trip(torch.zeros(3, 2), code)[1], torch.zeros(3, 2))
        update = torch.tensor([[1.0, math.inf], [math.nan, -2.0]])
        form, found, _ = round_trip(update, code)
        assert form == "plain"
        assert torch.equal(found.nan_to_num(nan=9.0), update.nan_to_num(nan=9.0))


@pytest.mark.parametrize(
    ("tolerance", "numbers", "expected"),
    [
        (1e-2, 0, "int8"),
        (9e-3, 0, "float16"),
        (5e-4, 0, "float16"),
        (4e-4, 0, "exact"),
        (0.0, 0, "exact"),
        (1e-5, 4095, "factors"),
        (1e-5, 4096, "exact"),  # as many numbers as weights
        (9e-6, 10, "exact"),
        (1e-3, 2000, "factors"),  # 8,000 bytes against 8,448
        (1e-3, 2113, "float16"),
        (1e-2, 1000, "factors"),  # 4,000 bytes against 4,352
        (1e-2, 1200, "int8"),
    ],
)
def test_the_smallest_code_within_the_tolerance(tolerance: float, numbers: int, expected: str) -> None:
    assert smallest_code(tolerance, (64, 64), 4, numbers) == expected


def test_few_outputs_are_not_kept_in_8_bits() -> None:
    assert [smallest_code(1e-2, (rows, 100), 4, 0) for rows in (15, 16)] == ["float16", "int8"]
