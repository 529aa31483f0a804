from itertools import pairwise

import numpy as np
import pytest
import torch

from storage.checksums import crc32c
from storage.updates import bits
from storage.updates.bits import BITS, Ints, add_rows, as_floats, subtract_rows, update_norms, weights_digests

rng = np.random.default_rng(0)


def patterns(dtype: str, rows: int = 5, size: int = 300) -> Ints:
    """Any bit patterns: NaN, infinities and subnormal numbers among them."""
    info = np.iinfo(BITS[dtype])
    found = rng.integers(info.min, info.max, (rows, size), BITS[dtype], endpoint=True)
    found[1] = found[0]
    found[-1, :3] = [0, info.min, info.max]
    return found


@pytest.mark.parametrize("dtype", BITS)
def test_differences_restore_every_bit(dtype: str) -> None:
    rows = patterns(dtype)
    out = np.empty_like(rows[1:])
    subtract_rows(rows[1:], rows[0], out)
    assert not out[0].any()
    restored = add_rows(rows[0], out)
    assert restored.dtype == rows.dtype
    np.testing.assert_array_equal(restored, rows)


def test_two_rows_by_hand() -> None:
    rows = np.array([[0x7FFFFFFF, -5], [-0x80000000, 7]], np.int32)
    out = np.empty((1, 2), np.int32)
    subtract_rows(rows[1:], rows[0], out)
    np.testing.assert_array_equal(out, [[1, 12]])


@pytest.mark.parametrize("tile", [7, 64, 2**17])
@pytest.mark.parametrize("dtype", BITS)
def test_norms_are_those_of_a_float64_loop(dtype: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bits, "TILE", tile)
    values = torch.from_numpy(rng.standard_normal((6, 101))).to(getattr(torch, dtype))
    ints = values.view(getattr(torch, BITS[dtype])).numpy()
    exact = values.double().numpy()
    expected = [np.sqrt(sum((b - a) ** 2 for a, b in zip(*pair, strict=True))) for pair in pairwise(exact)]
    np.testing.assert_allclose(update_norms(ints[1:], ints[0], dtype), expected, rtol=1e-12)


def test_bfloat16_is_widened_exactly() -> None:
    values = torch.tensor([1.0, -3.140625, 0.0, float("inf"), 1e-38], dtype=torch.bfloat16)
    np.testing.assert_array_equal(as_floats(values.view(torch.int16).numpy(), "bfloat16"), values.float().numpy())


@pytest.mark.parametrize("dtype", BITS)
def test_a_digest_is_that_of_the_row_alone(dtype: str) -> None:
    weight, bias = patterns(dtype, 4, 33), patterns(dtype, 4, 3)
    found = weights_digests([weight, bias])
    data = weight[2].tobytes() + bias[2].tobytes()
    words = np.frombuffer(data, np.uint16 if BITS[dtype] == "int16" else np.uint32)
    assert found[2] & 0xFFFFFFFF == crc32c(np.frombuffer(data, np.uint8))
    assert found[2] >> 32 == sum(map(int, words)) % 2**32
    assert weights_digests([weight[2:3], bias[2:3]]) == [found[2]]


def test_a_digest_notices_every_flipped_bit() -> None:
    row = patterns("float32", 2, 8)[:1]
    changed = []
    for bit in range(8 * 32):
        other = row.view(np.uint8).copy()
        other[0, bit // 8] ^= 1 << bit % 8
        changed += weights_digests([other.view(np.int32)])
    assert len({*changed, *weights_digests([row])}) == 8 * 32 + 1
