"""The LSTM and the transformer: their sums, and sequences of several lengths in one batch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.capture import capture_inputs
from tasks.io.networks import build_model
from tasks.modules.naming import traced_module, whole_layers
from tasks.modules.rows import Rows, padded, values_of
from tasks.recording.layers import choose_layers
from tasks.tracing import contributions

TOKENS = torch.tensor([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [5, 3, 5, 0, 0]])
LENGTHS = [5, 2, 3]
Settings = dict[str, Any]  # Any: arguments of several types
READERS: dict[str, tuple[str, Settings]] = {
    "lstm": ("lstm", {"vocabulary": 7, "width": 4, "layers": 2, "bidirectional": True, "classes": 3}),
    "transformer": ("transformer", {"vocabulary": 7, "width": 8, "heads": 2, "length": 5, "classes": 3}),
}


def built(name: str, arguments: Settings) -> nn.Module:
    return build_model(name, arguments, 1).double().eval()


@pytest.mark.parametrize("reader", READERS)
def test_a_padded_sequence_gives_what_it_gives_alone(reader: str) -> None:
    model = built(*READERS[reader])
    with torch.no_grad():
        together = model(TOKENS)
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(together[row : row + 1], model(TOKENS[row : row + 1, :length]))


@pytest.mark.parametrize("reader", READERS)
def test_padding_is_rows_of_nothing_in_every_layer(reader: str) -> None:
    model = built(*READERS[reader])
    layers = whole_layers(model, list(choose_layers(model)))
    together = capture_inputs(model, layers, TOKENS)
    for row, length in enumerate(LENGTHS):
        alone = capture_inputs(model, layers, TOKENS[row : row + 1, :length])
        for layer in layers:
            rows = together[layer]
            if isinstance(rows, Rows):
                first, last = rows.offsets[row : row + 2].tolist()
                torch.testing.assert_close(rows.values[first:last], values_of(alone[layer]))
                continue
            here, there = rows[row], padded(alone[layer])[0]
            if isinstance(module := traced_module(model, layer), nn.Embedding):
                assert not module.get_parameter("weight")[here.long()][length:].any(), layer
            elif here.ndim == 1:
                torch.testing.assert_close(here, there)
            else:
                torch.testing.assert_close(here[:length], there, msg=layer)
                assert not here[length:].any(), layer


FEATURES: dict[str, tuple[str, Settings]] = {
    "lstm": ("lstm", {"features": 3, "width": 4, "classes": 3}),
    "transformer": ("transformer", {"features": 3, "width": 8, "heads": 2, "length": 5, "classes": 3}),
}


@pytest.mark.parametrize("reader", FEATURES)
def test_features_of_several_lengths(reader: str) -> None:
    model = built(*FEATURES[reader])
    there = (torch.arange(5) < torch.tensor(LENGTHS)[:, None]).double()[..., None]
    steps = torch.randn(3, 5, 3, dtype=torch.float64) * there
    with torch.no_grad():
        together = model(torch.cat([steps, there], dim=2))
        for row, length in enumerate(LENGTHS):
            torch.testing.assert_close(together[row : row + 1], model(steps[row : row + 1, :length]))


def test_a_bias_does_not_see_padding() -> None:
    model = built(*READERS["transformer"])
    layers = ["blocks.0.wide", "blocks.1.narrow", "blocks.0.attention.out_proj"]
    together = capture_inputs(model, layers, TOKENS)
    for layer in layers:
        module = traced_module(model, layer)
        shape = {"wide": (32, 8), "narrow": (8, 32), "out_proj": (8, 8)}[layer.rpartition(".")[2]]
        weight = torch.randn(*shape, dtype=torch.float64)
        bias = torch.randn(len(weight), dtype=torch.float64)
        updates = torch.randn(2, *weight.shape, dtype=torch.float64), torch.randn(2, len(bias), dtype=torch.float64)
        found = contributions(module, weight, together[layer], updates[0], bias=bias, bias_updates=updates[1])
        for row, length in enumerate(LENGTHS):
            one = capture_inputs(model, [layer], TOKENS[row : row + 1, :length])[layer]
            alone = contributions(module, weight, one, updates[0], bias=bias, bias_updates=updates[1])
            torch.testing.assert_close(found.gamma[row], alone.gamma[0])
            torch.testing.assert_close(found.norm[row], alone.norm[0])


def test_images_are_read_row_by_row() -> None:
    model = built("lstm", {"features": 6, "width": 4, "classes": 3})
    images = torch.randn(2, 2, 5, 3, dtype=torch.float64)
    rows = torch.stack([torch.cat([images[:, 0, t], images[:, 1, t]], dim=1) for t in range(5)], dim=1)
    torch.testing.assert_close(padded(capture_inputs(model, ["lstm.l0"], images)["lstm.l0"])[..., :6], rows)
    torch.testing.assert_close(model(rows), model(images))


def test_patches_are_those_of_the_image() -> None:
    model = built("transformer", {"features": 2 * 4, "patch": 2, "width": 8, "heads": 2, "length": 6})
    images = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    seen = padded(capture_inputs(model, ["project"], images)["project"])
    assert seen.shape == (3, 6, 8)
    patch = images[1, :, 2:4, 2:4]  # second row of patches, second of three columns
    torch.testing.assert_close(seen[1, 4], patch.flatten())


def test_the_encoder_is_the_sum_of_its_parts() -> None:
    model = built("transformer", {"features": 4, "width": 8, "heads": 2, "layers": 1, "length": 3, "classes": 3})
    x = torch.randn(2, 3, 4, dtype=torch.float64)

    def norm(values: Tensor) -> Tensor:
        return (values - values.mean(-1, keepdim=True)) / (values.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    with torch.no_grad():
        state: Settings = dict(model.state_dict())
        tokens = x @ state["project.weight"].T + state["project.bias"] + state["positions.weight"][1:4]
        q, k, v = (
            norm(tokens) @ w.T + b
            for w, b in zip(
                state["blocks.0.attention.in_proj_weight"].chunk(3),
                state["blocks.0.attention.in_proj_bias"].chunk(3),
                strict=True,
            )
        )
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            scores = (q[..., part] @ k[..., part].mT / 2).softmax(-1)
            heads.append(scores @ v[..., part])
        out = state["blocks.0.attention.out_proj.weight"], state["blocks.0.attention.out_proj.bias"]
        tokens = tokens + torch.cat(heads, -1) @ out[0].T + out[1]
        hidden = nn.functional.gelu(norm(tokens) @ state["blocks.0.wide.weight"].T + state["blocks.0.wide.bias"])
        tokens = tokens + hidden @ state["blocks.0.narrow.weight"].T + state["blocks.0.narrow.bias"]
        expected = norm(tokens).mean(1) @ state["head.weight"].T + state["head.bias"]
        torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("reader", READERS)
def test_empty_and_broken_sequences_are_named(reader: str) -> None:
    model = built(*READERS[reader])
    with pytest.raises(ValueError, match=r"^expected at least one step in each sequence, found none in 1$"):
        model(torch.tensor([[1, 2], [0, 0]]))
    with pytest.raises(ValueError, match=r"^expected padding at the end of a sequence, found it before other steps$"):
        model(torch.tensor([[1, 2], [0, 1]]))
    with pytest.raises(ValueError, match=r"^expected tokens below 7, the vocabulary, found 7$"):
        model(torch.tensor([[1, 7]]))


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_features_and_tokens_are_not_taken_for_each_other(name: str) -> None:
    tokens, features = built(name, {"vocabulary": 7}), built(name, {"features": 3})
    with pytest.raises(ValueError, match=r"^expected tokens, found features of size 2; set `arguments: {features: 2}`"):
        tokens(torch.ones(1, 4, 3).double())
    with pytest.raises(ValueError, match=r"^expected tokens, found features of size 8; set `arguments: {features: 8}`"):
        tokens(torch.ones(1, 1, 8, 8).double())
    size = r"^expected steps of 3 features, as its arguments state, or 4 with one that is 0 at padding, found "
    with pytest.raises(ValueError, match=f"{size}tokens$"):
        features(torch.ones(1, 4, 1).double())
    with pytest.raises(ValueError, match=f"{size}6$"):
        features(torch.ones(1, 4, 6).double())
    with pytest.raises(ValueError, match=r"^expected steps of 3 features, as its arguments state, found 8$"):
        features(torch.ones(1, 1, 8, 8).double())
    assert features(torch.ones(1, 4, 3).double()).shape == features(torch.ones(1, 4, 4).double()).shape


def test_too_many_steps_are_named() -> None:
    with pytest.raises(ValueError, match=r"^expected up to 5 steps, found 6$"):
        built(*READERS["transformer"])(torch.ones(1, 6))


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("lstm", {}, "features, vocabulary: expected one of them, found none"),
        ("transformer", {"features": 3, "vocabulary": 3}, "features, vocabulary: expected one of them, found both"),
        ("lstm", {"features": 3, "layers": 0}, "layers: expected at least 1, found 0"),
        ("lstm", {"vocabulary": 0}, "vocabulary: expected at least 1, found 0"),
        ("transformer", {"features": 3, "width": 6, "heads": 4}, "width: expected a multiple of 4 heads, found 6"),
    ],
)
def test_bad_settings_are_named(name: str, arguments: Settings, text: str) -> None:
    with pytest.raises(ValueError, match=f"model '{name}' with arguments .*: {text}$"):
        build_model(name, arguments, 0)
