"""Tests of `tasks.training.dual_encoder`."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.io.annotations import coverage
from tasks.io.dual_encoder import TinyDualEncoder, mini_broden_words
from tasks.io.mini_broden import MiniBrodenSource, draw
from tasks.training.dual_encoder import BATCH, DRAWINGS, PRESENT, drawn_batch, train_dual_encoder


def areas(state: dict[str, torch.Tensor], n: int) -> dict[str, float]:
    """Return the mean area under the curve of cosine, present against absent labels, by category on drawn images."""
    source = MiniBrodenSource(n, 64, 0)
    keys = [row.key for row in source.rows()]
    model = TinyDualEncoder(state)
    images = np.stack([np.asarray(sample.image) for sample in source.read(keys)])
    cosine = model.encode_images(images) @ model.encode_texts(mini_broden_words().words).T
    present = coverage(source.masks(keys), 57)[:, 1:] >= PRESENT
    vocabulary = source.vocabulary()
    found: dict[str, list[float]] = {category: [] for category in vocabulary.categories}
    for word, category in enumerate(vocabulary.category_of[1:]):
        positive, negative = cosine[present[:, word], word], cosine[~present[:, word], word]
        if positive.size:
            found[vocabulary.categories[category]].append(area(positive, negative))
    return {category: float(np.mean(values)) for category, values in found.items()}


def area(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> float:
    """Return the share of pairs in which the positive is larger."""
    return float(np.mean(positive[:, None] > negative) + np.mean(positive[:, None] == negative) / 2)


def test_a_short_training_learns_scenes_and_repeats_itself() -> None:
    torch.set_num_threads(1)
    losses: list[float] = []
    state = train_dual_encoder(1, steps=12, on_step=lambda step, loss: losses.append(loss))
    assert losses[-1] < 0.75 * losses[0]
    assert areas(state, 100)["scene"] > 0.75
    torch.manual_seed(5)  # the state of torch's generators does not matter
    again = train_dual_encoder(1, steps=1)
    other = train_dual_encoder(2, steps=1)
    repeated = train_dual_encoder(1, steps=1)
    assert all(torch.equal(again[name], repeated[name]) for name in state)
    assert not torch.equal(again["words"], other["words"])


def test_a_batch_holds_drawn_images_and_their_words() -> None:
    images, present = drawn_batch(DRAWINGS, 3, 2, 56)
    pixels, masks = draw(DRAWINGS, 4, 64)
    np.testing.assert_allclose(images[1].permute(1, 2, 0), pixels / 255, atol=1e-7)
    shares = [np.mean((masks == number).any(axis=0)) for number in range(1, 57)]
    np.testing.assert_array_equal(present[1], np.array(shares) >= PRESENT)
    assert BATCH == 64


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_of_half_the_length_separates_present_from_absent_labels() -> None:
    torch.set_num_threads(1)
    found = areas(train_dual_encoder(0, steps=350), 1000)  # the whole one reaches 0.93 and more in each category
    assert min(found.values()) > 0.8
    assert np.mean(list(found.values())) > 0.9
