"""The captioner: a step of the decoder by loops, the beam by all sequences, the order by brute force, the pooling."""

import itertools
import math

import numpy as np
import pytest
import torch

from tasks.detectors.beam_search import beam_search, rerank
from tasks.detectors.caption_scores import bleu, caption_scores
from tasks.detectors.caption_words import CaptionWords, words_of
from tasks.detectors.captioner import Captioner, Sizes, caption_log_p, captioner_of
from tasks.detectors.captioning import Search, caption_regions
from tasks.detectors.pyramid import pool_regions

SIZES = Sizes(features=5, tokens=7, embedding=3, hidden=4, attention=2, lm_embedding=3, lm_hidden=4, lm_layers=2)
START, STOP, PAD, UNKNOWN = 3, 4, 5, 6


def made(sizes: Sizes = SIZES, scale: float = 1.5) -> Captioner:
    """Return a captioner with large random weights in float64."""
    torch.manual_seed(0)
    model = Captioner(sizes).double().eval()
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, dtype=torch.float64) * scale)
    model.feature_deviation.abs_().add_(0.5)
    return model


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def affine(state: dict[str, np.ndarray], name: str, x: list[float]) -> list[float]:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def lstm(gates: list[float], cell: list[float]) -> tuple[list[float], list[float]]:
    n = len(cell)
    new = [sigmoid(gates[n + i]) * cell[i] + sigmoid(gates[i]) * math.tanh(gates[2 * n + i]) for i in range(n)]
    return [sigmoid(gates[3 * n + i]) * math.tanh(new[i]) for i in range(n)], new


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(x) for x in logits))
    return [x - total for x in logits]


def slow_decoder(
    model: Captioner, regions: np.ndarray, tokens: list[int]
) -> tuple[list[list[float]], list[list[float]]]:
    """Return log probabilities and attention after each token, with loops over numbers."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    scaled = [
        [(x - m) / d for x, m, d in zip(row, state["feature_mean"], state["feature_deviation"], strict=True)]
        for row in regions
    ]
    pooled = [sum(row[i] for row in scaled) / len(scaled) for i in range(len(scaled[0]))]
    hidden = [math.tanh(x) for x in affine(state, "init_h.0", pooled)]
    cell = [math.tanh(x) for x in affine(state, "init_c.0", pooled)]
    found, seen = [], []
    for token in tokens:
        query = affine(state, "attend.query_to_hidden", hidden)
        scores = []
        for row in scaled:
            key = affine(state, "attend.key_to_hidden", row)
            scores += affine(state, "attend.output.0", [math.tanh(q + k) for q, k in zip(query, key, strict=True)])
        weights = [math.exp(x) for x in log_softmax(scores)]
        gate = [sigmoid(x) for x in affine(state, "feature_gate.0", hidden)]
        attended = [gate[i] * sum(w * row[i] for w, row in zip(weights, scaled, strict=True)) for i in range(len(gate))]
        given = [*state["embedding.weight"][token], *attended]
        gates = [
            sum(w * x for w, x in zip(a, given, strict=True))
            + b
            + sum(w * x for w, x in zip(c, hidden, strict=True))
            + d
            for a, b, c, d in zip(
                state["lstm.weight_ih"],
                state["lstm.bias_ih"],
                state["lstm.weight_hh"],
                state["lstm.bias_hh"],
                strict=True,
            )
        ]
        hidden, cell = lstm(gates, cell)
        found.append(log_softmax(affine(state, "output.1", hidden)))
        seen.append(weights)
    return found, seen


def test_the_decoder_is_that_of_loops() -> None:
    model, rng = made(), np.random.default_rng(0)
    regions, tokens = rng.normal(size=(2, 3, 5)), np.array([[START, 0, 2, 1], [START, 1, 1, STOP]])
    with torch.no_grad():
        log_p, weights = model(torch.from_numpy(regions), torch.from_numpy(tokens))
    for row in range(2):
        expected, attention = slow_decoder(model, regions[row], tokens[row].tolist())
        np.testing.assert_allclose(log_p[row], expected, atol=1e-12)
        np.testing.assert_allclose(weights[row], attention, atol=1e-12)


def test_the_log_probability_of_a_caption_ends_with_its_first_stop() -> None:
    log_p = torch.log(torch.tensor([[[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]]))
    found = [float(caption_log_p(log_p, torch.tensor([tokens]), 2)) for tokens in ([0, 2, 1], [0, 1, 0], [2, 2, 2])]
    np.testing.assert_allclose(np.exp(found), [0.5 * 0.7, 0.5 * 0.2 * 0.6, 0.2], rtol=1e-6)


def all_captions(length: int) -> list[list[int]]:
    """Return every sequence of the words 0, 1, 2 of at most a length, filled up with stops."""
    found = []
    for size in range(1, length + 1):
        for words in itertools.product(range(3), repeat=size):
            found.append([*words, *[STOP] * (length - size)])
    return found


def log_p_of(model: Captioner, regions: torch.Tensor, tokens: list[int]) -> tuple[float, float]:
    """Return log p(d | E) and log p(d) of one caption with its stop, without the search."""
    given, before = torch.tensor([[*tokens, STOP]]), torch.tensor([[START, *tokens]])
    with torch.no_grad():
        return (
            float(caption_log_p(model(regions[None], before)[0], given, STOP)),
            float(caption_log_p(model.lm(before), given, STOP)),
        )


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.9])
def test_the_search_finds_the_best_of_all_captions(weight: float) -> None:
    model, length = made(), 4
    regions = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 2, 5)))
    captions = all_captions(length)
    tokens, scores = caption_regions(model, regions, Search(len(captions), weight, length), len(captions))
    for row in range(3):
        both = [log_p_of(model, regions[row], caption) for caption in captions]
        expected = [given - weight * prior for given, prior in both]
        order = np.argsort(np.negative(expected))
        np.testing.assert_allclose(scores[row], np.array(expected)[order], atol=1e-9)
        assert tokens[row, :5].tolist() == [captions[i] for i in order[:5]]


def test_a_narrow_beam_ranks_its_own_captions_only() -> None:
    model, length, width = made(scale=0.3), 3, 4
    regions = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 2, 5)))
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for position in range(length + 1):  # the search, word by word; after the last word comes a stop
        longer = []
        for log_p, words in beams:
            if words and words[-1] == STOP:
                longer.append((log_p, [*words, STOP]))
                continue
            with torch.no_grad():
                following = model(regions, torch.tensor([[START, *words]]))[0][0, -1]
            allowed = [STOP] if position == length else [0, 1, 2, *([STOP] if words else [])]
            longer += [(log_p + float(following[token]), [*words, token]) for token in allowed]
        beams = sorted(longer, key=lambda beam: -beam[0])[:width]
    cut = [(p, words[:length]) for p, words in beams]
    scored = sorted(((p - 0.5 * log_p_of(model, regions[0], words)[1], words) for p, words in cut), reverse=True)
    tokens, scores = caption_regions(model, regions, Search(width, 0.5, length), width)
    assert tokens[0].tolist() == [words for _, words in scored]
    np.testing.assert_allclose(scores[0], [score for score, _ in scored], atol=1e-9)


def test_a_beam_that_is_wider_than_all_captions_has_empty_places() -> None:
    log_p = torch.log(torch.tensor([0.5, 0.5, 0.0]))

    def following(
        tokens: torch.Tensor, states: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        return log_p.expand(len(tokens), 3), states

    beams = beam_search(following, (torch.zeros(1, 1),), start=2, stop=1, never=(2,), width=9, length=3)
    np.testing.assert_allclose(beams.log_p[0].exp(), [0.25, 0.125, 0, 0, 0, 0, 0, 0, 0], rtol=1e-6)
    assert beams.tokens[0, :2].tolist() == [[0, 1, 1], [0, 0, 1]]  # never the empty one, nor one without an end
    scores, order = rerank(beams.log_p, torch.full((1, 9), -3.0), 1.0)
    assert order[0, 2:].tolist() == [2, 3, 4, 5, 6, 7, 8]
    assert bool(scores[0, 2:].isneginf().all())


def test_pooling_is_that_of_loops() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, 3, 4, 4)), rng.normal(size=(2, 2, 2, 2))]
    masks, image = (rng.random((5, 8, 8)) < 0.3).astype(np.float64), np.array([0, 1, 1, 0, 1])
    masks[4] = 0
    found = pool_regions([torch.from_numpy(each) for each in maps], torch.from_numpy(masks), torch.from_numpy(image))
    for region in range(5):
        expected: list[float] = []
        for layer in maps:
            size = layer.shape[2]
            step = 8 // size
            # bilinear without antialiasing at an even factor: the mean of the four pixels about a cell's centre
            small = np.array(
                [
                    [
                        np.mean(
                            [
                                masks[region, y * step + step // 2 - a, x * step + step // 2 - b]
                                for a in (0, 1)
                                for b in (0, 1)
                            ]
                        )
                        for x in range(size)
                    ]
                    for y in range(size)
                ]
            )
            total = small.sum()
            for channel in layer[image[region]]:
                value = sum(channel[y, x] * small[y, x] for y in range(size) for x in range(size))
                expected.append(value / total if total else 0.0)
        np.testing.assert_allclose(found[region], expected, atol=1e-12)


def test_captions_are_words_in_lower_case() -> None:
    assert words_of("A red, dotted ball -- on the cat's 2-door car!") == [
        *("a", "red", "dotted", "ball", "on", "the", "cat's", "2-door", "car")
    ]
    assert words_of("... ?!") == []
    words = CaptionWords.of(["red ball", "Blue ball", "ball"])
    assert words.words == ("ball", "blue", "red")
    start, stop, pad, unknown = 3, 4, 5, 6
    np.testing.assert_array_equal(
        words.encode(["red green ball", "ball"], 2), [[start, 2, unknown, stop], [start, 0, stop, pad]]
    )
    assert words.text([2, 0, stop, 1]) == "red ball"
    assert words.text([0, 1]) == "ball blue"


def test_bleu_of_worked_examples() -> None:
    five, other, four = (list(text) for text in ("abcde", "abcdx", "abcd"))
    assert bleu([five], [[five]]) == pytest.approx(1.0)
    # precisions 4/5, 3/4, 2/3, 1/2 and the same length
    assert bleu([other], [[five]]) == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 / 2) ** 0.25)
    # all sequences match, but 4 words stand for 5; of references, that of nearest length counts
    assert bleu([four], [[five]]) == pytest.approx(math.exp(1 - 5 / 4))
    assert bleu([four], [[five, four]]) == pytest.approx(1.0)
    # a corpus adds its counts: (4 + 5) / (5 + 5) words, (3 + 4) / 8 pairs, ...
    assert bleu([other, five], [[five], [five]]) == pytest.approx((9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25)
    # clipping: of 7 "a" the reference has 2; no pair matches
    assert bleu([["a"] * 7], [[["a", "x", "a"]]]) == 0.0


def test_captions_are_compared_with_those_of_other_regions() -> None:
    found, captions = ["red ball", "Blue car", "tree"], ["a red ball", "blue car", "green tree"]
    scores = caption_scores(found, captions, 0)
    assert scores.words == pytest.approx((4 / 5 + 1 + 2 / 3) / 3)
    assert (scores.null_words, scores.bleu, scores.n) == (0.0, 0.0, 3)
    same = caption_scores(["a b c d e", "f g h i"], ["a b c d e", "f g h i"], 0)
    assert same.bleu == pytest.approx(1.0)
    assert (same.words, same.null_bleu, same.null_words) == (1.0, 0.0, 0.0)
    alike = caption_scores(["a b", "a c"], ["a b", "a c"], 0)
    assert alike.null_words == pytest.approx(0.5)
    assert caption_scores([], [], 0).n == 0


def test_a_state_gives_its_captioner_and_misfits_are_named() -> None:
    model = made()
    state = dict(model.float().state_dict())
    published = {name: tensor for name, tensor in state.items() if not name.startswith("feature_m")}
    del published["feature_deviation"]
    published["encoder.encoder.model.conv1.weight"] = torch.zeros(2)
    found = captioner_of(published)
    assert found.sizes == SIZES
    np.testing.assert_array_equal(found.feature_deviation, np.ones(5))
    for change, expected in (
        ({"lm.output.0.bias": None}, "found 1 of them missing (first lm.output.0.bias)"),
        ({"extra.weight": torch.zeros(1)}, "found 'extra.weight'"),
        ({"embedding.weight": torch.zeros(9, 3)}, "expected output.1.weight (9, 4), found (7, 4)"),
        ({"init_h.0.bias": torch.full((4,), torch.nan)}, "found NaN or infinity in init_h.0.bias"),
    ):
        changed = {name: value for name, value in {**state, **change}.items() if value is not None}
        with pytest.raises(ValueError, match=r"^captioner: ") as error:
            captioner_of(changed)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="captioner: expected"):
        captioner_of({})
