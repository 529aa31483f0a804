"""The ICE method: maps in, concepts, codes and their measures out."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.interpreters import ice

Floats = NDArray[np.float32]


@pytest.fixture
def maps() -> Floats:
    """Return (6, 3, 4, 8) maps of two concepts on the left and the right half of the image."""
    rng = np.random.default_rng(0)
    maps = np.zeros((6, 3, 4, 8), dtype=np.float32)
    maps[:, :, :2, :4] = 1 + rng.random((6, 3, 2, 1))
    maps[:, :, 2:, 4:] = 3 + rng.random((6, 3, 2, 1))
    return maps


def test_fit_finds_the_two_concepts(maps: Floats) -> None:
    features = ice.fit(maps, seed=0, components=2)
    found = features.arrays["components"]
    np.testing.assert_allclose(found, np.repeat([[0, 0.5], [0.5, 0]], 4, axis=1), atol=1e-5)
    assert found.dtype == np.float32
    assert features.numbers["rank"] == 2
    assert features.numbers["clamped"] == 0
    assert features.numbers["relative_error"] < 1e-5
    codes = ice.encode(features.arrays, maps)
    np.testing.assert_allclose(codes[..., 0], maps[..., 4] * 2, atol=1e-4)
    np.testing.assert_allclose(ice.reconstruct(features.arrays, codes), maps, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_code_shapes_and_padded_components(maps: Floats, dtype: type[np.float16] | type[np.float32]) -> None:
    components = np.zeros((5, 8), dtype=np.float32)  # as stored: rows beyond the rank are zeros
    components[:2] = ice.fit(maps, seed=0, components=2).arrays["components"]
    codes = ice.encode({"components": components}, maps.astype(dtype))
    assert codes.shape == (6, 3, 4, 5)
    assert codes.dtype == np.float32
    np.testing.assert_array_equal(codes[..., 2:], 0)
    np.testing.assert_allclose(ice.reconstruct({"components": components}, codes), maps, atol=5e-3)


def test_all_zero_maps_give_zeros() -> None:
    zero = np.zeros((2, 3, 3, 6), dtype=np.float32)
    features = ice.fit(zero, seed=0, components=4)
    np.testing.assert_array_equal(features.arrays["components"], np.zeros((4, 6)))
    assert features.numbers["relative_error"] == 0
    np.testing.assert_array_equal(ice.encode(features.arrays, zero), np.zeros((2, 3, 3, 4)))


def test_negatives_are_clamped_or_refused(maps: Floats) -> None:
    maps[0, 0, 0, 5], maps[1, 2, 3, 0] = -1.0, -2.0
    features = ice.fit(maps, seed=0, components=2)
    assert features.numbers["clamped"] == 2
    clamped = ice.encode(features.arrays, np.maximum(maps, 0))
    np.testing.assert_allclose(ice.encode(features.arrays, maps), clamped, atol=1e-6)
    with pytest.raises(ValueError, match="maps: expected activations of at least 0, found 2 negative"):
        ice.fit(maps, seed=0, components=2, negative="refuse")


def test_negatives_are_shifted(maps: Floats) -> None:
    low = -np.linspace(0.5, 4, 8, dtype=np.float32)
    low[3] = 0.25  # a channel whose smallest value is above 0 stays as it is
    signed = maps.copy() + low
    found = ice.fit(signed, seed=0, components=3, negative="shift")
    np.testing.assert_allclose(found.arrays["offset"], [np.minimum(low, 0)], atol=1e-6)
    assert found.numbers["clamped"] == 0
    codes = ice.encode(found.arrays, signed)
    np.testing.assert_allclose(ice.reconstruct(found.arrays, codes), signed, atol=0.1)
    lower = signed - 1  # held-out values below the smallest of the fit are read as that
    held_out = ice.encode(found.arrays, np.maximum(lower, found.arrays["offset"][0]))
    np.testing.assert_allclose(ice.encode(found.arrays, lower), held_out, atol=1e-5)
    assert ice.shapes(8, components=3, negative="shift") == {"components": (3, 8), "offset": (1, 8)}
    rows = ice.columns(found.arrays, codes)
    whole = (ice.reconstruct(found.arrays, codes) - found.arrays["offset"][0]).reshape(-1, 8).astype(np.float64)
    np.testing.assert_allclose(rows @ rows.T, whole @ whole.T, rtol=1e-3, atol=1e-3)


def test_shift_of_maps_that_are_not_negative_changes_nothing(maps: Floats) -> None:
    plain, shifted = (ice.fit(maps, seed=0, components=2, negative=how) for how in ("clamp", "shift"))
    np.testing.assert_array_equal(shifted.arrays["components"], plain.arrays["components"])
    np.testing.assert_array_equal(shifted.arrays["offset"], 0)


def test_rank_is_cut_to_the_number_of_positions() -> None:
    one = np.ones((1, 2, 1, 7), dtype=np.float32)
    features = ice.fit(one, seed=0, components=10)
    assert features.arrays["components"].shape == (2, 7)
    assert features.numbers["rank"] == 2
    assert ice.shapes(7, components=10) == {"components": (10, 7)}


def test_columns_carry_the_inner_products_of_the_reconstruction(maps: Floats) -> None:
    rng = np.random.default_rng(1)
    arrays = {"components": rng.random((3, 8)).astype(np.float32)}
    codes = rng.random((4, 2, 2, 3)).astype(np.float32)
    columns = ice.columns(arrays, codes)
    rebuilt = ice.reconstruct(arrays, codes).reshape(16, 8).astype(np.float64)
    assert columns.shape == (16, 3)
    assert columns.dtype == np.float64
    np.testing.assert_allclose(columns @ columns.T, rebuilt @ rebuilt.T, rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"components": 0}, "components: expected an integer of at least 1, found 0"),
        ({"components": 2.5}, "components: expected an integer of at least 1, found 2.5"),
        ({"components": True}, "components: expected an integer of at least 1, found True"),
        ({"negative": "drop"}, "negative: expected clamp, shift or refuse, found 'drop'"),
    ],
)
def test_check_names_the_parameter(params: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ice.check(**params)  # type: ignore[arg-type]  # the wrong types are the point


def test_maps_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"maps: expected \(n, h, w, d\), found shape \(3, 4\)"):
        ice.fit(np.ones((3, 4), dtype=np.float32), seed=0)


def test_fidelity_by_hand() -> None:
    assert ice.fidelity(np.array([1.0, 3.0]), np.array([0.0, 5.0])) == 0.75  # mean change 1.5, mean logit 2
    assert ice.fidelity(np.array([1.0, -1.0]), np.array([1.0, -1.0])) == 0.0
    assert ice.fidelity(np.array([1.0, -1.0]), np.array([1.0, 1.0])) == np.inf
    with pytest.raises(ValueError, match=r"expected two equal, non-empty shapes, found \(2,\) and \(3,\)"):
        ice.fidelity(np.zeros(2), np.zeros(3))


def test_importance_of_a_linear_head_by_hand(maps: Floats) -> None:
    weight = torch.arange(16.0).reshape(2, 8)

    def head(x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) @ weight.T

    components = np.eye(8, dtype=np.float32)[[1, 4]]
    # pooling averages over the positions, so a component at every position raises the pooled map by itself
    np.testing.assert_allclose(ice.importance(head, maps, components, 1, batch=4), [9.0, 12.0], rtol=1e-6)


def test_importance_is_the_derivative_of_a_curved_head(maps: Floats) -> None:
    def head(x: Tensor) -> Tensor:
        return torch.stack([x.pow(2).sum(dim=(1, 2, 3)), x.sum(dim=(1, 2, 3))], dim=1)

    components = np.random.default_rng(2).random((3, 8)).astype(np.float32)
    step = 1e-4
    up, down = (((maps.astype(np.float64) + s * step * components[:, None, None, None]) ** 2) for s in (1, -1))
    by_difference = (up - down).sum(axis=(2, 3, 4)).mean(axis=1) / (2 * step)
    np.testing.assert_allclose(ice.importance(head, maps, components, 0), by_difference, rtol=1e-5)


def test_importance_of_parts_is_the_derivative_along_them(maps: Floats) -> None:
    def head(x: Tensor) -> Tensor:
        return torch.stack([x.sum(dim=(1, 2, 3)), x.pow(2).sum(dim=(1, 2, 3))], dim=1)

    rng = np.random.default_rng(3)
    components, codes = rng.random((3, 8)).astype(np.float32), rng.random((6, 3, 4, 3)).astype(np.float32)
    parts = codes.astype(np.float64)[..., None] * components.astype(np.float64)
    step = 1e-4
    up, down = ((((maps[..., None, :] + s * step * parts) ** 2).sum(axis=(1, 2, 4))).mean(axis=0) for s in (1, -1))
    found = ice.importance(head, maps, components, 1, codes=codes)
    np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-5)
    np.testing.assert_allclose(ice.importance(head, maps, components, 1, codes=codes, batch=4), found, rtol=1e-12)
    ones = np.ones_like(codes)
    plain = ice.importance(head, maps, components, 1)
    np.testing.assert_allclose(ice.importance(head, maps, components, 1, codes=ones), plain, rtol=1e-6)


def test_top_heat_maps_by_hand() -> None:
    codes = np.zeros((2, 2, 3), dtype=np.float32)
    codes[:, :, 0] = [[4, 0], [0, 0]]
    codes[:, :, 1] = [[0, 0], [0, 2]]
    codes[:, :, 2] = [[0, 1], [0, 0]]
    np.testing.assert_allclose(ice.top_heat_maps(codes, 2, (2, 2)), [[1.0, 0.0], [0.0, 0.5]])
    np.testing.assert_allclose(ice.top_heat_maps(codes, 3, (2, 2)), [[1.0, 0.25], [0.0, 0.5]])
    large = ice.top_heat_maps(codes, 1, (4, 4))
    # bilinear between pixel centres: 1, 3/4, 1/4, 0 along each side
    np.testing.assert_allclose(large, np.outer([1, 0.75, 0.25, 0], [1, 0.75, 0.25, 0]), atol=1e-6)


def test_flat_heat_maps_are_zero() -> None:
    np.testing.assert_array_equal(ice.top_heat_maps(np.ones((2, 2, 3), dtype=np.float32), 2, (5, 6)), np.zeros((5, 6)))
