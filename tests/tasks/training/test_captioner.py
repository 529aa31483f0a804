"""The training of a captioner on regions of planted words."""

import numpy as np
import pytest
import torch

from tasks.detectors.caption_words import CaptionWords
from tasks.detectors.captioner import Sizes, captioner_of
from tasks.detectors.captioning import Search, caption_regions
from tasks.training.captioner import Plan, Regions, caption_loss, draw_exemplars, train_captioner

COLOURS, THINGS = ("red", "blue"), ("ball", "car")


def planted(seed: int, n: int) -> tuple[Regions, CaptionWords, list[str]]:
    """Return regions with features that are the words of their captions, with noise."""
    rng = np.random.default_rng(seed)
    pairs = [(a, b) for a in range(2) for b in range(2)]
    caption = rng.integers(0, len(pairs), n)
    features = rng.normal(0, 0.2, (n, 4)).astype(np.float32)
    for row, number in zip(features, caption, strict=True):
        row[pairs[number][0]] += 5
        row[2 + pairs[number][1]] += 5
    texts = [f"{COLOURS[a]} {THINGS[b]}" for a, b in pairs]
    words = CaptionWords.of(texts)
    tokens = words.encode([texts[number] for number in caption], 2)
    return Regions(torch.from_numpy(features), torch.from_numpy(tokens), caption), words, texts


def test_planted_words_are_learned() -> None:
    (train, words, texts), (held_out, _, _) = planted(0, 384), planted(1, 48)
    sizes = Sizes(4, len(words), embedding=8, hidden=32, attention=16, lm_embedding=16, lm_hidden=64, lm_layers=1)
    losses: dict[str, list[float]] = {"decoder": [], "language model": []}
    state = train_captioner(
        train, held_out, sizes, Plan(3, 40, 3, 0), lambda part, epoch, loss: losses[part].append(loss)
    )
    model = captioner_of(state)
    np.testing.assert_allclose(model.feature_mean, train.features.mean(dim=0), atol=1e-5)
    drawn = draw_exemplars(held_out.caption, np.arange(len(held_out)), 3, np.random.default_rng(0))
    tokens, _ = caption_regions(model, held_out.features[torch.from_numpy(drawn)], Search(10, 0.2, 3), 1)
    found = [words.text(row) for row in tokens[:, 0].tolist()]
    assert np.mean([text == texts[number] for text, number in zip(found, held_out.caption, strict=True)]) > 0.9
    # a language model knows the words only: colour and thing of four equal captions, 2 log 2 over 3 tokens
    assert min(losses["language model"]) == pytest.approx(2 * np.log(2) / 3, abs=0.15)
    assert min(losses["decoder"]) < 0.2


def test_the_same_seed_gives_the_same_captioner() -> None:
    (train, words, _), (held_out, _, _) = planted(0, 40), planted(1, 12)
    sizes = Sizes(4, len(words), 4, 8, 4, 4, 8, 2)
    once, again = (train_captioner(train, held_out, sizes, Plan(2, 2, 2, 5), lambda *_: None) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_exemplars_have_the_caption_of_their_first_region() -> None:
    caption = np.array([4, 1, 4, 1, 4, 9])
    rows = np.array([5, 0, 3, 1])
    drawn = draw_exemplars(caption, rows, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn[:, 0], rows)
    assert [set(row) for row in drawn.tolist()] == [{5}, {0, 2, 4}, {1, 3}, {1, 3}]


def test_padding_does_not_count() -> None:
    log_p = torch.log(torch.tensor([[[0.5, 0.1, 0.1, 0.2, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]]]))
    pad = 3  # one word, then start, stop, padding, unknown
    assert float(caption_loss(log_p, torch.tensor([[0, pad]]))) == pytest.approx(np.log(2))
    assert float(caption_loss(log_p, torch.tensor([[0, 2]]))) == pytest.approx((np.log(2) + np.log(5)) / 2)
