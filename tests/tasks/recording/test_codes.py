"""Codes of updates: values worked by hand, and the stated error of each code."""

import math

import pytest
import torch
from torch import Tensor

from tasks.recording.codes import ERRORS, code_bytes, decode, encode, smallest_code
from tasks.recording.halves import halved, pack_halves, unpack_halves

SHAPES = [(7, 5), (4, 3, 2, 2), (1, 1), (300, 40)]


def round_trip(update: Tensor, code: str) -> tuple[str, Tensor, int]:
    """Return form, decoded update and bytes."""
    encoded = encode(update.clone(), code)
    data = torch.empty(encoded.nbytes, dtype=torch.uint8)
    encoded.fill(data)
    if bool(update.isfinite().all()):
        assert encoded.norm == pytest.approx(float(update.double().norm()), rel=1e-5)
    return encoded.form, decode(encoded.form, data, update.shape, update.dtype), data.numel()


def test_int8_by_hand() -> None:
    """Each row is in steps of .0097 sqrt(12) of its root mean square."""
    update = torch.tensor([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0], [0.06, 0.08, 0.0]])
    form, found, size = round_trip(update, "int8")
    assert form == "levels"
    assert size < 3 * 4 + 2 * 9 + 16
    step = 0.0097 * math.sqrt(12) * 5 / math.sqrt(3)  # 0.097
    expected = torch.tensor([[31 * step, -41 * step, 0.0], [0.0, 0.0, 0.0], [0.02 * 31 * step, 0.02 * 41 * step, 0.0]])
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_levels_take_about_seven_bits() -> None:
    generator = torch.Generator().manual_seed(1)
    shape = 256, 1024
    update = torch.randn(shape, generator=generator) * torch.rand(256, 1, generator=generator)
    form, _, size = round_trip(update, "int8")
    assert form == "levels"
    assert size == pytest.approx(code_bytes("int8", shape, 4), rel=0.02)
    assert code_bytes("int8", shape, 4) == 256 * 4 + 256 * 1024 * 7 // 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_halves_keep_eleven_bits(dtype: torch.dtype, scale: float) -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = [torch.randn(3, 4, generator=generator, dtype=dtype), torch.zeros(1, 4, dtype=dtype)]
    gradients = [torch.randn(4, 5, generator=generator, dtype=dtype) * scale]
    data = pack_halves(halved(inputs), halved(gradients)).numpy()
    found = unpack_halves(data, (16, 20), dtype)
    expected = torch.cat([part.flatten() for part in inputs + gradients])
    torch.testing.assert_close(found, expected, rtol=2**-11, atol=0.0)


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
        assert size <= code_bytes("float16", shape, dtype.itemsize) + 32
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
        (1e-2, 2700, "factors"),  # 3,780 bytes of halves against 3,840
        (1e-2, 2800, "int8"),
    ],
)
def test_the_smallest_code_within_the_tolerance(tolerance: float, numbers: int, expected: str) -> None:
    assert smallest_code(tolerance, (64, 64), 4, numbers) == expected


def test_few_outputs_are_not_kept_in_8_bits() -> None:
    assert [smallest_code(1e-2, (rows, 100), 4, 0) for rows in (15, 16)] == ["float16", "int8"]
