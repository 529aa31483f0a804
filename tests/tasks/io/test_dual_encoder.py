"""Tests of `tasks.io.dual_encoder` and of the protocol of image-text models."""

import numpy as np
import pytest
import torch

from tasks.io.dual_encoder import SIZE, WIDTH, DualEncoder, TinyDualEncoder, mini_broden_words, planes
from tasks.io.image_text import IMAGE_TEXT, open_image_text


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return DualEncoder(len(mini_broden_words().words)).state_dict()


def test_the_model_has_about_200_000_parameters() -> None:
    assert 180_000 < sum(parameter.numel() for parameter in DualEncoder(56).parameters()) < 220_000


def test_features_are_unit_rows(state: dict[str, torch.Tensor]) -> None:
    model = open_image_text("dual-encoder", state=state)
    images = np.random.default_rng(0).integers(0, 256, (70, 64, 64, 3), dtype=np.uint8)
    rows = model.encode_images(images)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), np.ones(70), atol=1e-6)
    np.testing.assert_allclose(model.encode_images(images[66:68]), rows[66:68], atol=1e-6)
    texts = model.encode_texts(["wheel", "Car"])
    words = mini_broden_words().words
    expected = state["words"][[words.index("wheel"), words.index("car")]].numpy()
    np.testing.assert_allclose(texts, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    assert rows.shape[1] == texts.shape[1] == WIDTH
    assert model.encode_images(images[:0]).shape == (0, WIDTH)


def test_images_of_any_size_are_resized() -> None:
    small = np.zeros((1, 32, 48, 3), dtype=np.uint8)
    small[:, :, 24:, 1] = 255
    found = planes(small)
    assert found.shape == (1, 3, SIZE, SIZE)
    np.testing.assert_allclose(found[0, 1, 10, [0, 20, 44, 63]], [0, 0, 1, 1])
    exact = np.random.default_rng(1).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    np.testing.assert_allclose(planes(exact)[0].permute(1, 2, 0), exact[0] / 255, atol=1e-7)


def test_unknown_words_and_other_weights_are_named(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="expected words of mini-broden, found 'dog', 'zebra'; use another"):
        TinyDualEncoder(state).encode_texts(["cat", "dog", "zebra"])
    with pytest.raises(ValueError, match="dual encoder: expected its own weights, found others"):
        TinyDualEncoder({**state, "words": torch.zeros(3, WIDTH)})


def test_every_kind_is_opened_by_name() -> None:
    assert set(IMAGE_TEXT) == {"dual-encoder", "open-clip"}
