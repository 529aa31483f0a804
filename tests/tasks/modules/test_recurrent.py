import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tasks.capture import capture_inputs
from tasks.modules import composed_kind_of

IN, UNITS, LONGEST, LENGTHS = 3, 4, 5, [3, 5, 1]


class Reads(nn.Module):
    """A recurrent module that reads sequences, packed by their lengths or whole."""

    def __init__(self, module: nn.RNNBase, *, packed: bool, start: object = None) -> None:
        super().__init__()
        self.reader, self.packed, self.start = module, packed, start

    def forward(self, x: Tensor) -> Tensor:
        """Return the last layer's hidden states (batch, steps, units), 0 beyond a sequence's end."""
        first = self.reader.batch_first
        given = x if first else x.transpose(0, 1)
        if self.packed:
            lengths = torch.tensor(LENGTHS[: len(x)])
            taken = pack_padded_sequence(given, lengths, batch_first=first, enforce_sorted=False)
            made = pad_packed_sequence(self.reader(taken)[0], batch_first=first, total_length=LONGEST)[0]
        else:
            made = self.reader(given, self.start)[0]
        return made if first else made.transpose(0, 1)


def squash(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def cell(module: nn.RNNBase, tail: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sums of the gates as they are traced, and the next states, unit by unit."""
    size, bias = module.hidden_size, module.bias
    zero = torch.zeros(10 * size, dtype=torch.float64)
    w, u = getattr(module, f"weight_ih{tail}"), getattr(module, f"weight_hh{tail}")
    b, d = (getattr(module, f"bias_{n}{tail}") if bias else zero[: len(w)] for n in ("ih", "hh"))
    seen, held = w @ x + b, u @ h + d
    if module.mode == "GRU":
        gates = torch.cat([seen[: 2 * size] + held[: 2 * size], seen[2 * size :], held[2 * size :]])
    else:
        gates = seen + held
    after, state = torch.zeros(size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for k in range(size):
        at = [float(gates[gate * size + k]) for gate in range(len(gates) // size)]
        if module.mode == "LSTM":
            state[k] = squash(at[1]) * c[k] + squash(at[0]) * math.tanh(at[2])
            after[k] = squash(at[3]) * math.tanh(state[k])
        elif module.mode == "GRU":
            new = math.tanh(at[2] + squash(at[0]) * at[3])
            after[k] = (1 - squash(at[1])) * new + squash(at[1]) * h[k]
        else:
            after[k] = math.tanh(at[0]) if module.mode == "RNN_TANH" else max(at[0], 0.0)
    return gates, after, state


@torch.no_grad()
def by_loops(module: nn.RNNBase, x: Tensor, lengths: list[int]) -> tuple[dict[str, Tensor], Tensor]:
    """Return by map the sums of the gates (batch, steps, gates), and the outputs of the last layer."""
    found: dict[str, Tensor] = {}
    layer_in = x
    for layer in range(module.num_layers):
        outs = []
        for end in ["", *(["_reverse"] if module.bidirectional else [])]:
            tail = f"_l{layer}{end}"
            wide = len(getattr(module, f"weight_ih{tail}")) + (UNITS if module.mode == "GRU" else 0)
            gates = torch.zeros(len(x), LONGEST, wide, dtype=torch.float64)
            states = torch.zeros(len(x), LONGEST, module.proj_size or UNITS, dtype=torch.float64)
            for b, length in enumerate(lengths):
                h = torch.zeros(module.proj_size or UNITS, dtype=torch.float64)
                c = torch.zeros(UNITS, dtype=torch.float64)
                for t in range(length - 1, -1, -1) if end else range(length):
                    gates[b, t], h, c = cell(module, tail, layer_in[b, t], h, c)
                    if module.proj_size:
                        h = getattr(module, f"weight_hr{tail}") @ h
                    states[b, t] = h
            found[tail[1:]] = gates
            outs.append(states)
        layer_in = torch.cat(outs, dim=2)
    return found, layer_in


@torch.no_grad()
def traced(model: Reads, x: Tensor) -> dict[str, Tensor]:
    """Return by map the sums of the gates, from its inputs and its assembled weights."""
    module = model.reader
    kind = composed_kind_of(module)
    assert kind is not None
    maps, pieces = kind.maps(module), kind.pieces(module)
    names = [name for name in maps if not name.startswith("hr")]
    inputs = capture_inputs(model, [f"reader.{name}" for name in names], x)
    found = {}
    for name in names:
        stacks = []
        for piece in maps[name].pieces:
            bias = pieces[piece].bias
            stacks.append(
                (
                    getattr(module, pieces[piece].weight)[None],
                    None if bias is None else getattr(module, bias)[None],
                )
            )
        weights, none = maps[name].assemble(stacks)
        assert none is None
        assert tuple(weights.shape[1:]) == maps[name].size
        found[name] = inputs[f"reader.{name}"] @ weights[0].T
    return found


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "relu", "projected"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_the_gates_of_all_steps(kind: str, *, packed: bool, first: bool) -> None:
    torch.manual_seed(2)
    classes = {"GRU": nn.GRU, "RNN": nn.RNN, "relu": nn.RNN}
    more: dict[str, Any] = {"relu": {"nonlinearity": "relu"}, "projected": {"proj_size": 2}}.get(
        kind, {}
    )  # Any: settings of torch
    module = classes.get(kind, nn.LSTM)(IN, UNITS, 2, batch_first=first, bidirectional=True, **more).double().eval()
    model = Reads(module, packed=packed).eval()
    x = torch.randn(3, LONGEST, IN, dtype=torch.float64)
    lengths = LENGTHS if packed else [LONGEST] * 3
    gates, outputs = by_loops(module, x, lengths)
    torch.testing.assert_close(model(x), outputs)
    found = traced(model, x)
    assert set(found) == set(gates)
    for name, values in gates.items():
        torch.testing.assert_close(found[name], values, msg=name)


def test_without_biases_the_gates_see_no_column_of_ones() -> None:
    torch.manual_seed(2)
    module = nn.GRU(IN, UNITS, batch_first=True, bias=False).double().eval()
    x = torch.randn(3, LONGEST, IN, dtype=torch.float64)
    model = Reads(module, packed=True).eval()
    gates, _ = by_loops(module, x, LENGTHS)
    torch.testing.assert_close(traced(model, x)["l0"], gates["l0"])
    assert capture_inputs(model, ["reader.l0"], x)["reader.l0"].shape == (3, LONGEST, IN + UNITS)


def test_rows_beyond_the_end_are_empty_and_others_those_of_the_sequence_alone() -> None:
    torch.manual_seed(2)
    module = nn.LSTM(IN, UNITS, 2, batch_first=True, bidirectional=True).double().eval()
    x = torch.randn(3, LONGEST, IN, dtype=torch.float64)
    names = ["reader.l0", "reader.l0_reverse", "reader.l1", "reader.l1_reverse"]
    together = capture_inputs(Reads(module, packed=True).eval(), names, x)
    for b, length in enumerate(LENGTHS):
        alone = capture_inputs(Reads(module, packed=False).eval(), names, x[b : b + 1, :length])
        for name in names:
            torch.testing.assert_close(together[name][b, :length], alone[name][0])
            assert not together[name][b, length:].any()
            assert (together[name][b, :length, -1] == 1).all()


def test_states_that_are_given_begin_the_steps() -> None:
    torch.manual_seed(2)
    module = nn.LSTM(IN, UNITS, batch_first=True).double().eval()
    start = torch.randn(1, 3, UNITS, dtype=torch.float64), torch.randn(1, 3, UNITS, dtype=torch.float64)
    x = torch.randn(3, LONGEST, IN, dtype=torch.float64)
    model = Reads(module, packed=False, start=start).eval()
    seen = capture_inputs(model, ["reader.l0"], x)["reader.l0"]
    torch.testing.assert_close(seen[:, 0, IN : IN + UNITS], start[0][0])
    with torch.no_grad():
        torch.testing.assert_close(seen[:, 1:, IN : IN + UNITS], model(x)[:, :-1])


def test_a_sequence_without_a_batch_is_refused() -> None:
    class Alone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reader = nn.GRU(IN, UNITS)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.reader(x[0])[0]
            return found

    text = r"^layer 'reader.l0': expected sequences with 3 axes or a packed sequence, found \(5, 3\)$"
    with pytest.raises(ValueError, match=text):
        capture_inputs(Alone().eval(), ["reader.l0"], torch.randn(1, LONGEST, IN))
