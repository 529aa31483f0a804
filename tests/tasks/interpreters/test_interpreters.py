"""What every interpreter keeps to."""

import inspect

import numpy as np
import pytest

from tasks.interpreters import INTERPRETERS


@pytest.mark.parametrize("name", INTERPRETERS)
def test_contract(name: str) -> None:
    method = INTERPRETERS[name]
    maps = np.random.default_rng(0).random((5, 3, 4, 12), dtype=np.float32)
    before = maps.copy()
    method.check()
    features = method.fit(maps, seed=[1, 2])
    again = method.fit(maps, seed=[1, 2])
    bounds = method.shapes(12)
    assert set(features.arrays) == set(bounds)
    for key, array in features.arrays.items():
        assert array.tobytes() == again.arrays[key].tobytes()
        assert all(size <= bound for size, bound in zip(array.shape, bounds[key], strict=True))
    assert all(np.isfinite(list(features.numbers.values())))
    codes = method.encode(features.arrays, maps)
    assert codes.shape[:3] == maps.shape[:3]
    assert codes.dtype == np.float32
    rebuilt = method.reconstruct(features.arrays, codes)
    assert rebuilt.shape == maps.shape
    assert rebuilt.dtype == np.float32
    assert np.linalg.norm(rebuilt - maps) < 0.5 * np.linalg.norm(maps)
    columns = method.columns(features.arrays, codes)
    assert len(columns) == 60
    assert columns.dtype == np.float64
    np.testing.assert_array_equal(maps, before)


@pytest.mark.parametrize("name", INTERPRETERS)
def test_fit_shapes_and_check_take_the_same_parameters(name: str) -> None:
    method = INTERPRETERS[name]
    fitted = set(inspect.signature(method.fit).parameters) - {"maps", "seed"}
    assert set(inspect.signature(method.check).parameters) == fitted
    assert set(inspect.signature(method.shapes).parameters) - {"n_channels"} == fitted


@pytest.mark.parametrize("name", INTERPRETERS)
def test_images_are_encoded_one_by_one(name: str) -> None:
    method = INTERPRETERS[name]
    maps = np.random.default_rng(3).random((6, 2, 2, 9), dtype=np.float32)
    arrays = method.fit(maps, seed=0).arrays
    single = np.concatenate([method.encode(arrays, maps[i : i + 1]) for i in range(6)])
    np.testing.assert_allclose(method.encode(arrays, maps), single, atol=1e-5)
