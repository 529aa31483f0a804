"""The LSTM and the transformer: their sums, and sequences of several lengths in one batch."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.capture import capture_inputs
from tasks.io.networks import build_model
from tasks.modules import PaddedLinear
from tasks.modules.naming import traced_module, whole_layers
from tasks.recording.layers import choose_layers

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
            here, there = together[layer][row], alone[layer][0]
            if isinstance(module := traced_module(model, layer), nn.Embedding):
                padded = module.weight[here.long()][length:]
                assert not padded.any(), layer
            elif here.ndim == 1:
                torch.testing.assert_close(here, there)
            else:
                torch.testing.assert_close(here[:length], there, msg=layer)
                assert not here[length:].any(), layer
    assert any(isinstance(traced_module(model, layer), PaddedLinear | nn.Linear) for layer in layers)


def test_images_are_read_row_by_row() -> None:
    model = built("lstm", {"features": 6, "width": 4, "classes": 3})
    images = torch.randn(2, 2, 5, 3, dtype=torch.float64)
    rows = torch.stack([torch.cat([images[:, 0, t], images[:, 1, t]], dim=1) for t in range(5)], dim=1)
    torch.testing.assert_close(capture_inputs(model, ["lstm.l0"], images)["lstm.l0"][..., :6], rows)
    torch.testing.assert_close(model(rows), model(images))


def test_patches_are_those_of_the_image() -> None:
    model = built("transformer", {"features": 2 * 4, "patch": 2, "width": 8, "heads": 2, "length": 6})
    images = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    seen = capture_inputs(model, ["project"], images)["project"]
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
    with pytest.raises(ValueError, match=r"^expected at least one token in each sequence, found none in 1$"):
        model(torch.tensor([[1, 2], [0, 0]]))
    with pytest.raises(
        ValueError, match=r"^expected padding, token 0, at the end of a sequence, found it before other"
    ):
        model(torch.tensor([[1, 2], [0, 1]]))
    with pytest.raises(IndexError):
        model(torch.tensor([[1, 7]]))


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
