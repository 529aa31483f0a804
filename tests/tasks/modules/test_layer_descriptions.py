"""What a layer is in words: class and sizes, units, calls, maps of composed modules, and the output layer."""

import pytest
from torch import nn

from tasks.figures.layer_names import axis_names, joined_title, short_name
from tasks.modules.titles import describe, layer_descriptions


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (nn.Linear(32, 10), "Linear 32 → 10"),
        (nn.Conv2d(3, 16, 3), "Conv2d 3 → 16, 3 x 3"),
        (nn.Conv2d(8, 8, (1, 5), groups=8), "Conv2d 8 → 8, 1 x 5, 8 groups"),
        (nn.Conv1d(2, 4, 7), "Conv1d 2 → 4, 7"),
        (nn.ConvTranspose2d(4, 2, 2), "ConvTranspose2d 4 → 2, 2 x 2"),
        (nn.Embedding(30000, 64), "Embedding 30,000 → 64"),
        (nn.MultiheadAttention(64, 4), "MultiheadAttention 64, 4 heads"),
        (nn.MultiheadAttention(8, 1), "MultiheadAttention 8, 1 head"),
        (nn.LSTM(8, 32), "LSTM 8 → 32"),
        (nn.BatchNorm2d(16), "BatchNorm2d 16"),
        (nn.LayerNorm((4, 6)), "LayerNorm 4 x 6"),
        (nn.ReLU(), "ReLU"),
    ],
)
def test_a_module_is_described_by_class_and_sizes(module: nn.Module, said: str) -> None:
    assert describe(module) == said


class Mixed(nn.Module):
    """Layers of several kinds; never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.recurrent = nn.GRU(8, 5)
        self.wide = nn.Linear(5, 3)
        self.head = nn.Linear(5, 3)


def test_units_calls_maps_and_the_output_are_named() -> None:
    layers = [
        "stem",
        "stem:7",
        "stem@1",
        "attention.q_proj",
        "attention.out_proj",
        "recurrent.l0",
        "wide",
        "head",
        "last-map",
        "none.such",
    ]
    found = layer_descriptions(Mixed(), layers, n_outputs=3)
    assert found == {
        "stem": "Linear 6 → 8",
        "stem:7": "Linear 6 → 8, unit 7",
        "stem@1": "Linear 6 → 8, call 2",
        "attention.q_proj": "q_proj of MultiheadAttention 8, 2 heads",
        "attention.out_proj": "out_proj of MultiheadAttention 8, 2 heads",
        "recurrent.l0": "l0 of GRU 8 → 5",
        "wide": "Linear 5 → 3",
        "head": "Linear 5 → 3, output",
    }
    assert layer_descriptions(Mixed(), ["head"], n_outputs=0) == {"head": "Linear 5 → 3"}
    assert layer_descriptions(Mixed(), ["head"], n_outputs=1000) == {"head": "Linear 5 → 3"}


def test_a_title_is_cut_into_lines_for_an_axis() -> None:
    title = joined_title("11", "Linear 32 → 10, output")
    assert title == "11 · Linear 32 → 10, output"
    assert (short_name(title), short_name("conv<1>")) == ("11", "conv<1>")
    assert axis_names([title, "conv<1>"], 18) == ["11<br>Linear 32 → 10", "conv&lt;1&gt;"]
    assert axis_names([title] * 9, 18) == ["11"] * 9  # there is room for the names only
