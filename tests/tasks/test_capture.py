"""What layers put out: captured channels last, refused where it is not finite or too large for float16."""

import numpy as np
import pytest
import torch

from tasks.capture import capture_batch, capture_layers, check_finite, run_head, split_at, to_storage_dtype
from tests.tasks.small_networks import EXAMPLE, Residual, Small, seeded

IDS = np.array([11, 22, 33])


def test_captured_batches_are_channels_last_and_run_back() -> None:
    model = seeded(Small)
    split = split_at(model, "last-map", EXAMPLE)
    maps, logits = capture_batch(split, EXAMPLE)
    assert maps.shape == (3, 8, 8, 5)
    assert [str(array.dtype) for array in (maps, logits)] == ["float32", "float32"]
    with torch.no_grad():
        np.testing.assert_array_equal(maps.transpose(0, 3, 1, 2), split.trunk(EXAMPLE).numpy())
        np.testing.assert_array_equal(logits, model(EXAMPLE).numpy())
    np.testing.assert_allclose(run_head(split, maps), logits, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(run_head(split, maps.astype(np.float16)), logits, rtol=1e-2, atol=1e-3)
    features, again = capture_batch(split_at(model, "penultimate", EXAMPLE), EXAMPLE)
    np.testing.assert_allclose(features, maps.reshape(3, 4, 2, 4, 2, 5).max((2, 4)).mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(again, logits)


def test_any_layers_can_be_captured_at_once() -> None:
    model = seeded(Residual)
    found = capture_layers(model, ["body", "stem", "fc"], EXAMPLE)
    assert list(found) == ["body", "stem", "fc"]
    with torch.no_grad():
        stem = model.get_submodule("stem")(EXAMPLE)  # the ReLU behind it works in place
        np.testing.assert_allclose(found["stem"], stem.permute(0, 2, 3, 1).numpy(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(found["fc"], model(EXAMPLE).numpy(), rtol=1e-6, atol=1e-6)
        first = torch.relu(stem)
        second = torch.relu(first + 2 * model.get_submodule("body")(first))
        last = model.get_submodule("body")(second)
        np.testing.assert_allclose(found["body"], last.permute(0, 2, 3, 1).numpy(), rtol=1e-5, atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_cannot_be_captured_are_named() -> None:
    model = seeded(Small)
    with pytest.raises(ValueError, match="layer 'nothing': expected a module, found none"):
        capture_layers(model, ["nothing"], EXAMPLE)
    with pytest.raises(ValueError, match="layer 'unused': expected a call"):
        capture_layers(model, ["conv1", "unused"], EXAMPLE)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_name_layer_and_sample(bad: float) -> None:
    array = np.zeros((3, 2, 2, 4), dtype=np.float32)
    check_finite(array, "last-map", IDS)
    array[1, 0, 1, 2] = bad
    with pytest.raises(
        ValueError, match=r"layer 'last-map': expected finite activations, .* for sample id 22 \(1 of 3"
    ):
        check_finite(array, "last-map", IDS)
    with pytest.raises(ValueError, match="sample id 22"):
        to_storage_dtype(array, "float32", "last-map", IDS)


def test_float16_refuses_what_it_cannot_hold() -> None:
    array = np.zeros((3, 4), dtype=np.float32)
    array[2, 1] = -65504
    np.testing.assert_array_equal(to_storage_dtype(array, "float16", "fc", IDS), array.astype(np.float16))
    assert to_storage_dtype(array, "float16", "fc", IDS).dtype == np.float16
    array[2, 1] = -65520
    with pytest.raises(
        ValueError, match=r"layer 'fc': .* up to 65504, the largest float16, found 65520 for sample id 33"
    ):
        to_storage_dtype(array, "float16", "fc", IDS)
    np.testing.assert_array_equal(to_storage_dtype(array, "float32", "fc", IDS), array)
