"""Traced layers of archives: attention, recurrent layers, embeddings, tied weights, and layers of several calls."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.capture import capture_inputs
from tasks.modules.naming import traced_module
from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.programs import Row
from tasks.recording.traced import TracedSource
from tasks.tracing import contributions, unit_contributions

STEPS, BATCH, VOCABULARY, LENGTH, SIZE, UNITS = 11, 4, 7, 5, 6, 4
DATA = torch.randint(0, VOCABULARY, (20, LENGTH), generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(20) % VOCABULARY
RECORDED = ["embed", "attend", "apart", "read", "gated", "again", "out"]
TRACED = [
    "embed",
    *(f"{name}.{part}_proj" for name in ("attend", "apart") for part in ("q", "k", "v", "out")),
    *("read.l0", "read.l0_reverse", "gated.l0", "gated.l1", "again", "out"),
]


class Reader(nn.Module):
    """Embedding, both kinds of attention, LSTM, GRU, a layer of two calls, and the embedding's table as the output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, SIZE)
        self.attend = nn.MultiheadAttention(SIZE, 2, batch_first=True)
        self.apart = nn.MultiheadAttention(SIZE, 3, kdim=3, vdim=4, batch_first=True)
        self.read = nn.LSTM(SIZE, UNITS, batch_first=True, bidirectional=True)
        self.gated = nn.GRU(2 * UNITS, SIZE, 2, batch_first=True)
        self.again = nn.Linear(SIZE, SIZE)
        self.out = nn.Linear(SIZE, VOCABULARY)
        self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (n, vocabulary)."""
        x = self.embed(tokens.long())
        x = x + self.attend(x, x, x, need_weights=False)[0]
        x = x + self.apart(x, x[..., :3], x[..., :4])[0]
        x = self.gated(self.read(x)[0])[0]
        logits: Tensor = self.out(self.again(self.again(x).relu()).mean(1))
        return logits


class Loop:
    """A training that keeps the weights after every step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = Reader()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.3, momentum=0.5, weight_decay=1e-3)
        self.states = [self.state()]

    def state(self) -> dict[str, Tensor]:
        """Return copies of the weights."""
        return {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def step(self, row: Row) -> float:
        """Make the update of a row."""
        ids = torch.from_numpy(row.examples)
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(DATA[ids]), LABELS[ids])
        loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
        self.optimizer.step()
        return loss.item()


def program() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], object]]:
    """Begin the training again."""
    loop = Loop()
    return loop.model, loop.optimizer, loop.step


def ids_of(step: int) -> NDArray[np.int64]:
    return np.arange(step * BATCH, (step + 1) * BATCH) % len(DATA)


def record(store: Path, kind: str, layers: list[str] | None = RECORDED, stop: int = STEPS) -> Loop:
    """Record a training, of which the first `stop` steps are made."""
    loop = Loop()
    more = {"program": program} if kind == "replay" else {}
    recorder = UpdateRecorder(
        loop.model, loop.optimizer, store, kind=kind, layers=layers, checkpoint_every=4, tolerance=1e-3, **more
    )
    for step in range(recorder.first_step, stop):
        with recorder.step(ids_of(step)) as row:
            row.loss = loop.step(row)
        loop.states.append(loop.state())
    if stop == STEPS:
        recorder.close()
    else:
        recorder._abandon()
    return loop


def weight_of(state: dict[str, Tensor], layer: str) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias of a traced layer from the parameters, cut by hand."""
    layer = layer.partition("@")[0]
    if layer in ("embed", "again", "out"):
        return state["embed.weight" if layer == "out" else f"{layer}.weight"], state.get(f"{layer}.bias")
    name, _, part = layer.partition(".")
    if part == "out_proj":
        return state[f"{name}.out_proj.weight"], state[f"{name}.out_proj.bias"]
    if name in ("attend", "apart"):
        place = "qkv".index(part[0])
        rows = slice(place * SIZE, (place + 1) * SIZE)
        whole = state["attend.in_proj_weight"][rows] if name == "attend" else state[f"apart.{part}_weight"]
        return whole, state[f"{name}.in_proj_bias"][rows]
    w, u, b, d = (state[f"{name}.{kind}_{part}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    if name == "read":
        return torch.cat([w, u, (b + d)[:, None]], dim=1), None
    new = 2 * SIZE
    gates = [torch.cat([w[:new], u[:new], (b + d)[:new, None]], dim=1)]
    gates.append(torch.cat([w[new:], torch.zeros_like(u[new:]), b[new:, None]], dim=1))
    gates.append(torch.cat([torch.zeros_like(w[new:]), u[new:], d[new:, None]], dim=1))
    return torch.cat(gates), None


@pytest.fixture(scope="module", params=["dense", "hybrid", "replay"])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Loop, TracedSource]:
    """The kind of an archive, its training and its updates by traced layer."""
    kind = request.param
    store = tmp_path_factory.mktemp(kind)
    loop = record(store, kind)
    source = open_updates(str(store), program=program if kind == "replay" else None)
    return kind, loop, TracedSource(source, Reader())


def test_maps_take_the_place_of_pieces(recorded: tuple[str, Loop, TracedSource]) -> None:
    kind, _, source = recorded
    assert source.layers == TRACED
    assert source.kind == kind
    assert set(source.exactness) == set(TRACED)
    assert "attend.in_proj" in source.source.layers
    assert source.splits("read.l0") == (kind == "replay")


def test_the_updates_of_every_traced_layer(recorded: tuple[str, Loop, TracedSource]) -> None:
    kind, loop, source = recorded
    extra = ["again@0", "again@1"]
    seen: dict[str, list[int]] = {layer: [] for layer in TRACED + extra}
    tolerance = 2e-3 if kind == "hybrid" else 1e-6
    for layer in seen:
        first, bias = weight_of(loop.states[0], layer)
        torch.testing.assert_close(source.initial(layer), first, rtol=0, atol=0)
        torch.testing.assert_close(source.final(layer), weight_of(loop.states[-1], layer)[0], rtol=0, atol=0)
        stored = source.initial_bias(layer)
        assert (stored is None) == (bias is None)
        assert stored is None or bias is None or torch.equal(stored, bias)
    for segment in source.segments():
        for block in source.blocks(segment, TRACED + extra):
            updates, biases, weights = block.dense(), block.dense_bias(), block.weights
            for row, step in enumerate(block.steps.tolist()):
                seen[block.layer].append(step)
                (before, b0), (after, b1) = (weight_of(loop.states[at], block.layer) for at in (step, step + 1))
                size = float((after - before).norm())
                assert float((updates[row] - (after - before)).norm()) <= tolerance * size + 1e-7, (block.layer, step)
                assert float((weights[row + 1] - after).norm()) <= tolerance * (size * STEPS + 1e-3)
                if b0 is not None and b1 is not None:
                    assert biases is not None
                    torch.testing.assert_close(biases[row], b1 - b0, rtol=0, atol=1e-7)
    assert all(steps == list(range(STEPS)) for steps in seen.values())


@pytest.mark.parametrize("bias", [False, True])
def test_contributions_of_all_steps_and_the_start_sum_to_the_output(
    recorded: tuple[str, Loop, TracedSource], *, bias: bool
) -> None:
    kind, loop, source = recorded
    model = loop.model.eval()
    queries = DATA[:3].float()
    layers = [*TRACED, "attend.q_proj.1", "apart.v_proj.2", "attend.out_proj.0", "again@1"]
    inputs = capture_inputs(model, layers, queries)
    totals = dict.fromkeys(layers, torch.zeros(3))
    for segment in source.segments():
        for block in source.blocks(segment, layers):
            counted = source.final_bias(block.layer) if bias else None
            found = block.project(
                traced_module(model, block.layer), source.final(block.layer), inputs[block.layer], bias=counted
            )
            totals[block.layer] = totals[block.layer] + found.gamma.sum(1)
    for layer in layers:
        counted = source.final_bias(layer) if bias else None
        start = source.initial_bias(layer) if bias else None
        first = contributions(
            traced_module(model, layer),
            source.final(layer),
            inputs[layer],
            source.initial(layer)[None],
            bias=counted,
            bias_updates=None if counted is None or start is None else start[None],
        )
        square = first.preactivation_norm.square()
        left = (totals[layer] + first.gamma[:, 0] - square).abs() / square
        assert float(left.max()) < (5e-3 if kind == "hybrid" else 1e-4), (layer, left)


def test_calls_and_heads_are_parts_of_the_whole(recorded: tuple[str, Loop, TracedSource]) -> None:
    _, loop, source = recorded
    model, queries = loop.model.eval(), DATA[:3].float()
    parts = {"again": ["again@0", "again@1"], "attend.v_proj": ["attend.v_proj.0", "attend.v_proj.1"]}
    for whole, names in parts.items():
        inputs = capture_inputs(model, [whole, *names], queries)
        gammas, squares = {}, {}
        for layer in (whole, *names):
            update = (source.final(layer) - source.initial(layer))[None]
            found = contributions(traced_module(model, layer), source.final(layer), inputs[layer], update)
            gammas[layer], squares[layer] = found.gamma, found.norm.square()
        torch.testing.assert_close(gammas[whole], gammas[names[0]] + gammas[names[1]])
        torch.testing.assert_close(squares[whole], squares[names[0]] + squares[names[1]])


def test_units_of_gates_sum_to_the_layer(recorded: tuple[str, Loop, TracedSource]) -> None:
    _, loop, source = recorded
    layer, model = "gated.l0", loop.model.eval()
    inputs = capture_inputs(model, [layer], DATA[:3].float())[layer]
    final, update = source.final(layer), (source.final(layer) - source.initial(layer))[None]
    module = traced_module(model, layer)
    whole = contributions(module, final, inputs, update).gamma
    units = sum(unit_contributions(module, final, inputs, update, unit).gamma for unit in range(len(final)))
    torch.testing.assert_close(units, whole)


def test_the_tied_table_is_archived_once(recorded: tuple[str, Loop, TracedSource]) -> None:
    _, loop, source = recorded
    assert torch.equal(source.final("embed"), source.final("out"))
    inputs = capture_inputs(loop.model.eval(), ["embed", "out"], DATA[:3].float())
    assert inputs["embed"].shape == (3, LENGTH)
    assert inputs["out"].shape == (3, SIZE)


def test_a_stopped_recording_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    whole = record(tmp_path / "whole", "dense")
    record(tmp_path / "stopped", "dense", stop=6)
    record(tmp_path / "stopped", "dense")
    one, other = (open_updates(str(tmp_path / name)) for name in ("whole", "stopped"))
    assert one.layers == other.layers
    for segment, again in zip(one.segments(), other.segments(), strict=True):
        for first, second in zip(one.blocks(segment), other.blocks(again), strict=True):
            assert torch.equal(first.weights, second.weights), first.layer
    for layer in ("read.hh_l0", "apart.q_proj", "attend.in_proj"):
        assert torch.equal(one.final(layer), other.final(layer))
    assert torch.equal(other.final("read.hh_l0"), whole.states[-1]["read.weight_hh_l0"])


def test_all_layers_are_recorded_without_names(tmp_path: Path) -> None:
    loop = record(tmp_path / "all", "dense", layers=None)
    kept = open_updates(str(tmp_path / "all"))
    assert TracedSource(kept, loop.model).layers == TRACED
    assert len(kept.layers) == 17


def test_pieces_that_are_recorded_alone_are_not_a_map(tmp_path: Path) -> None:
    loop = record(tmp_path / "part", "dense", layers=["read.ih_l0", "out"])
    source = TracedSource(open_updates(str(tmp_path / "part")), loop.model)
    assert source.layers == ["read.ih_l0", "out"]
    with pytest.raises(KeyError, match="layer: expected a recorded one"):
        list(source.blocks(source.segments()[0], ["read.l0"]))


def test_a_replay_splits_maps_and_no_tied_weight(tmp_path: Path) -> None:
    loop = record(tmp_path / "replay", "replay", layers=["embed", "read", "out"])
    source = TracedSource(open_updates(str(tmp_path / "replay"), program=program), loop.model)
    layers = ["embed", "read.l0", "out"]
    inputs = capture_inputs(loop.model.eval(), layers, DATA[:3].float())
    for block in source.blocks(source.segments()[0], layers, members=True):
        module, weight = traced_module(loop.model, block.layer), source.final(block.layer)
        assert block.project(module, weight, inputs[block.layer]).gamma.shape == (3, len(block.steps))
        if block.layer == "read.l0":  # `test_map_members` compares its parts with loops
            assert [one.shape for one in block.per_example(module, weight, inputs[block.layer])] == [(3, BATCH)] * 4
            continue
        with pytest.raises(NotImplementedError, match=f"layer '{block.layer}': expected"):
            block.per_example(module, weight, inputs[block.layer])


def test_a_replay_splits_the_updates_of_an_embedding(tmp_path: Path) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(VOCABULARY, SIZE), nn.Linear(SIZE, VOCABULARY)

        def forward(self, tokens: Tensor) -> Tensor:
            found: Tensor = self.head(self.embed(tokens.long()).mean(1))
            return found

    def begin() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], object]]:
        torch.manual_seed(0)
        model = Bag()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)

        def step(row: Row) -> None:
            optimizer.zero_grad()
            ids = torch.from_numpy(row.examples)
            nn.functional.cross_entropy(model(DATA[ids]), LABELS[ids]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return model, optimizer, step

    model, optimizer, step = begin()
    with UpdateRecorder(
        model, optimizer, tmp_path / "bag", kind="replay", checkpoint_every=4, program=begin
    ) as recorder:
        for number in range(5):
            with recorder.step(ids_of(number)) as row:
                step(row)
    source = TracedSource(open_updates(str(tmp_path / "bag"), program=begin), model)
    assert source.splits("embed")
    inputs, weight, module = DATA[:3].float(), source.final("embed"), model.get_submodule("embed")
    for segment in source.segments():
        for block in source.blocks(segment, ["embed"], members=True):
            gamma = block.project(module, weight, inputs).gamma
            for row_index, columns in enumerate(block.per_example(module, weight, inputs)):
                assert columns.shape == (3, BATCH)
                torch.testing.assert_close(columns.sum(1), gamma[:, row_index], rtol=1e-4, atol=1e-6)
                assert float(columns.std(dim=1).max()) > 0
