import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tasks.capture import capture_inputs
from tasks.modules import composed_kind_of
from tasks.modules.composed import PaddedLinear
from tasks.modules.rows import padded

SIZE, HEADS, QUERIES, KEYS, BATCH = 6, 3, 4, 5, 2
WIDTH = SIZE // HEADS
LENGTHS = [5, 3]


class Attends(nn.Module):
    """An attention of fixed keys and values, called as a test says."""

    def __init__(self, attention: nn.MultiheadAttention, **named: Any) -> None:  # Any: arguments of the call
        super().__init__()
        self.attention, self.named = attention, named
        generator = torch.Generator().manual_seed(1)
        self.key = torch.randn(BATCH, KEYS, attention.kdim, generator=generator, dtype=torch.float64)
        self.value = torch.randn(BATCH, KEYS, attention.vdim, generator=generator, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        """Return what the attention makes of queries (batch, queries, size)."""
        sides = [x, self.key, self.value]
        sides = sides if self.attention.batch_first else [one.transpose(0, 1) for one in sides]
        found: Tensor = self.attention(*sides, **self.named)[0]
        return found if self.attention.batch_first else found.transpose(0, 1)


def weights_of(module: nn.MultiheadAttention) -> tuple[list[Tensor], list[Tensor]]:
    """Return the weights and biases of queries, keys and values."""
    if module._qkv_same_embed_dim:
        weights = list(module.in_proj_weight.chunk(3))
    else:
        weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
    biases = torch.zeros(3 * SIZE, dtype=torch.float64) if module.in_proj_bias is None else module.in_proj_bias
    return weights, list(biases.chunk(3))


@torch.no_grad()
def by_loops(module: nn.MultiheadAttention, sides: list[Tensor], allowed: Tensor) -> Tensor:
    """Return what the output map sees (batch, queries, size); `allowed` (batch, queries, keys)."""
    weights, biases = weights_of(module)
    found = torch.zeros(BATCH, QUERIES, SIZE, dtype=torch.float64)
    for b in range(BATCH):
        q, k, v = (side[b] @ w.T + bias for side, w, bias in zip(sides, weights, biases, strict=True))
        for head in range(HEADS):
            part = slice(head * WIDTH, (head + 1) * WIDTH)
            for i in range(QUERIES):
                scores = [float(q[i, part] @ k[j, part]) / math.sqrt(WIDTH) for j in range(KEYS)]
                powers = [math.exp(s) if allowed[b, i, j] else 0.0 for j, s in enumerate(scores)]
                for j in range(KEYS):
                    found[b, i, part] += powers[j] / sum(powers) * v[j, part]
    return found


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("mask", ["none", "padding", "numbers", "causal", "both"])
def test_the_inputs_of_every_map(mask: str, *, separate: bool, first: bool) -> None:
    torch.manual_seed(0)
    sizes = {"kdim": 4, "vdim": 3} if separate else {}
    module = nn.MultiheadAttention(SIZE, HEADS, batch_first=first, **sizes).double().eval()
    nn.init.normal_(module.in_proj_bias)
    allowed = torch.ones(BATCH, QUERIES, KEYS, dtype=torch.bool)
    named: dict[str, object] = {"need_weights": False}
    padding = torch.arange(KEYS) >= torch.tensor(LENGTHS)[:, None]
    if mask in ("padding", "numbers", "both"):
        allowed &= ~padding[:, None]
        numbers = torch.zeros(BATCH, KEYS, dtype=torch.float64).masked_fill(padding, -torch.inf)
        named["key_padding_mask"] = numbers if mask == "numbers" else padding
    if mask in ("causal", "both"):
        later = torch.ones(QUERIES, KEYS).triu(1).bool()
        allowed &= ~later
        named["attn_mask"] = later
    model = Attends(module, **named)
    x = torch.randn(BATCH, QUERIES, SIZE, dtype=torch.float64)
    names = [f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj")]
    found = {name: padded(rows) for name, rows in capture_inputs(model, names, x).items()}
    seen = by_loops(module, [x, model.key, model.value], allowed)
    masked = mask in ("padding", "numbers", "both")
    present = ~padding if masked else torch.ones(BATCH, KEYS, dtype=torch.bool)
    for name, side in (("k_proj", model.key), ("v_proj", model.value)):
        torch.testing.assert_close(found[f"attention.{name}"][..., :-1], side * present[..., None])
        torch.testing.assert_close(found[f"attention.{name}"][..., -1], present.double())
    assert torch.equal(found["attention.q_proj"][..., :-1], x)
    torch.testing.assert_close(found["attention.out_proj"][..., :-1], seen)
    torch.testing.assert_close(seen @ module.out_proj.weight.T + module.out_proj.bias, model(x))


def test_padded_queries_of_self_attention_are_padding() -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(SIZE, HEADS, batch_first=True).double().eval()

    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = module

        def forward(self, x: Tensor) -> Tensor:
            padding = torch.arange(x.shape[1]) >= torch.tensor(LENGTHS)[: len(x), None]
            found: Tensor = self.attention(x, x, x, key_padding_mask=padding, need_weights=False)[0]
            return found

    names = [f"attention.{name}" for name in ("q_proj", "k_proj", "v_proj", "out_proj", "out_proj.1")]
    x = torch.randn(BATCH, KEYS, SIZE, dtype=torch.float64)
    found = {name: padded(rows) for name, rows in capture_inputs(Alone().eval(), names, x).items()}
    short = x[1:, : LENGTHS[1]]
    plain = module(short, short, short, need_weights=False)[0]
    for name in names:
        assert not found[name][1, LENGTHS[1] :].any()
        assert (found[name][1, : LENGTHS[1], -1] == 1).all()
    made = found["attention.out_proj"][1:, : LENGTHS[1], :-1] @ module.out_proj.weight.T + module.out_proj.bias
    torch.testing.assert_close(made, plain)
    assert torch.equal(found["attention.out_proj.1"][..., :-1], found["attention.out_proj"][..., WIDTH : 2 * WIDTH])


@pytest.mark.parametrize("separate", [False, True])
def test_heads_are_rows_and_columns(*, separate: bool) -> None:
    torch.manual_seed(0)
    sizes = {"kdim": 4, "vdim": 3} if separate else {}
    module = nn.MultiheadAttention(SIZE, HEADS, **sizes).double()
    nn.init.normal_(module.in_proj_bias)
    kind = composed_kind_of(module)
    assert kind is not None
    pieces, maps = kind.pieces(module), kind.maps(module)
    stacks = {
        name: (
            module.get_parameter(piece.weight)[None] if "." not in piece.weight else module.out_proj.weight[None],
            None if piece.bias is None else (module.in_proj_bias if name != "out_proj" else module.out_proj.bias)[None],
        )
        for name, piece in pieces.items()
    }
    weights, biases = weights_of(module)
    for place, name in enumerate(("q_proj", "k_proj", "v_proj")):
        whole, bias = maps[name].assemble([stacks[maps[name].pieces[0]]])
        assert torch.equal(whole[0], weights[place])
        assert bias is not None
        assert torch.equal(bias[0], biases[place])
        for head in range(HEADS):
            one = maps[f"{name}.{head}"]
            rows, row_bias = one.assemble([stacks[one.pieces[0]]])
            assert one.part
            assert one.size == tuple(rows.shape[1:])
            assert torch.equal(rows[0], weights[place][head * WIDTH : (head + 1) * WIDTH])
            assert row_bias is not None
            assert torch.equal(row_bias[0], biases[place][head * WIDTH : (head + 1) * WIDTH])
    columns, none = maps["out_proj.2"].assemble([stacks["out_proj"]])
    assert torch.equal(columns[0], module.out_proj.weight[:, 2 * WIDTH :])
    assert none is None


def test_the_bias_of_a_map_does_not_see_padding() -> None:
    rows = torch.cat([torch.ones(1, 3, 2), torch.tensor([[[1.0], [1.0], [0.0]]])], dim=2)
    module = PaddedLinear(2, 1)
    nn.init.ones_(module.weight)
    nn.init.ones_(module.bias)
    rows[0, 2, :2] = 0
    assert module(rows).flatten().tolist() == [3.0, 3.0, 0.0]


@pytest.mark.parametrize(
    "asked", [{}, {"need_weights": True}, {"need_weights": False}, {"average_attn_weights": False}]
)
def test_dropout_counts_in_training_mode_alone(asked: dict[str, object]) -> None:
    """In evaluation nothing is dropped, whether the call returns its weights or not: the inputs are exact."""
    torch.manual_seed(0)
    module = nn.MultiheadAttention(SIZE, HEADS, dropout=0.4, batch_first=True, kdim=4, vdim=3).double().eval()
    x = torch.randn(BATCH, QUERIES, SIZE, dtype=torch.float64)
    model = Attends(module, **asked)
    state = torch.get_rng_state()
    found = padded(capture_inputs(model, ["attention.out_proj"], x)["attention.out_proj"])
    assert torch.equal(torch.get_rng_state(), state)
    everything = torch.ones(BATCH, QUERIES, KEYS, dtype=torch.bool)
    torch.testing.assert_close(found[..., :-1], by_loops(module, [x, model.key, model.value], everything))
    text = (
        r"^layer 'attention.q_proj': expected evaluation mode with dropout 0.4, found training mode, in which each "
        r"call drops other weights; call eval\(\) first$"
    )
    with pytest.raises(ValueError, match=text):
        capture_inputs(model.train(), ["attention.q_proj"], x)
