"""Members' parts of the maps of attention and recurrent layers, against gradients of one example's loss in float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from storage.updates.archives import Segment
from tasks.capture import capture_inputs
from tasks.modules.naming import traced_module
from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.programs import Row, step_row
from tasks.recording.replay import ReplaySource
from tasks.recording.replaying import Replay
from tasks.recording.traced import TracedSource
from tasks.tracing import contributions
from tests.tasks.recording.conftest import Repeated

STEPS, BATCH, LENGTH, SIZE = 6, 4, 5, 6
Forward = Callable[["Reader", Tensor], Tensor]


class Reader(nn.Module):
    """A module of sequences (n, 5, 6) under the name `read`, and a head on the mean of its answer."""

    def __init__(self, read: nn.Module, forward_of: Forward, width: int) -> None:
        super().__init__()
        self.read, self.forward_of, self.out = read, forward_of, nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        found: Tensor = self.out(self.forward_of(self, x).tanh().mean(1))
        return found


def lengths(x: Tensor) -> Tensor:
    """Return a length of each sequence, from its own values."""
    return 2 + (x[:, 0, 0] > 0).long() + (x[:, 1, 1] > 0).long()


def padded(net: Reader, x: Tensor) -> Tensor:
    """Return the answer of attention that does not see the last steps."""
    mask = torch.arange(LENGTH) >= lengths(x)[:, None]
    found: Tensor = net.read(x, x, x, key_padding_mask=mask, need_weights=False)[0]
    return found


def masked(net: Reader, x: Tensor) -> Tensor:
    """Return the answer of attention with samples second, keys of other sizes, and a mask of each sample and head."""
    y = x.transpose(0, 1)
    mask = (x[:, None, :, :1] * x[:, None, None, :, 0]).expand(-1, 3, -1, -1).reshape(-1, LENGTH, LENGTH)
    found: Tensor = net.read(y, y[..., :3], y[..., :4], attn_mask=mask)[0]
    return found.transpose(0, 1)


def packed(net: Reader, x: Tensor) -> Tensor:
    """Return the answer of a recurrent layer to sequences of several lengths."""
    made, state = net.read(pack_padded_sequence(x, lengths(x), batch_first=True, enforce_sorted=False))
    hidden = state[0] if isinstance(state, tuple) else state
    answer: Tensor = pad_packed_sequence(made, batch_first=True, total_length=LENGTH)[0]
    return torch.cat([answer, hidden.transpose(0, 1)[..., :1].expand(-1, -1, answer.shape[2])], dim=1)


def started(net: Reader, x: Tensor) -> Tensor:
    """Return the answer of a recurrent layer with samples second, and a state before the first step."""
    start = x[:, :2, :4].transpose(0, 1).contiguous()
    found: Tensor = net.read(x.transpose(0, 1), (start, 2 * start))[0]
    return found.transpose(0, 1)


def twice(net: Reader, x: Tensor) -> Tensor:
    """Return the answer of a layer that is called two times."""
    found: Tensor = net.read(net.read(x)[0])[0]
    return found


def gates(state: dict[str, Tensor], tail: str, units: int = 0) -> Tensor:
    """Return the weights of gates, or a gradient of them, by hand; `units` of the new gate of a GRU."""
    w, u, b, d = (state[f"read.{kind}_{tail}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    new = len(w) - units
    rows = [torch.cat([w[:new], u[:new], (b + d)[:new, None]], dim=1)]
    rows.append(torch.cat([w[new:], torch.zeros_like(u[new:]), b[new:, None]], dim=1))
    rows.append(torch.cat([torch.zeros_like(w[new:]), u[new:], d[new:, None]], dim=1))
    return torch.cat(rows)


By = dict[str, Callable[[dict[str, Tensor]], Tensor]]  # a map from the parameters, or from gradients of them


def attention(fused: bool, heads: int) -> By:
    """Return the maps of an attention by hand, and those of its second head."""
    found: By = {"read.out_proj": lambda s: s["read.out_proj.weight"]}
    width = SIZE // heads
    found["read.out_proj.1"] = lambda s: s["read.out_proj.weight"][:, width : 2 * width]
    for place, name in enumerate("qkv"):
        rows = slice(place * SIZE, (place + 1) * SIZE)

        def take(s: dict[str, Tensor], name: str = name, rows: slice = rows) -> Tensor:
            return s["read.in_proj_weight"][rows] if fused else s[f"read.{name}_proj_weight"]

        found[f"read.{name}_proj"] = take
        found[f"read.{name}_proj.1"] = lambda s, take=take: take(s)[width : 2 * width]  # type: ignore[misc]
    return found


def recurrent(*tails: str, units: int = 0) -> By:
    """Return the gates of a recurrent layer by hand."""
    return {f"read.{tail}": lambda s, tail=tail: gates(s, tail, units) for tail in tails}  # type: ignore[misc]


CASES: dict[str, tuple[Callable[[], nn.Module], Forward, int, By]] = {
    "fused": (lambda: nn.MultiheadAttention(SIZE, 2, batch_first=True), padded, SIZE, attention(True, 2)),
    "separate": (lambda: nn.MultiheadAttention(SIZE, 3, kdim=3, vdim=4), masked, SIZE, attention(False, 3)),
    "lstm": (
        lambda: nn.LSTM(SIZE, 4, bidirectional=True), started, 8, recurrent("l0", "l0_reverse"),
    ),
    "gru": (lambda: nn.GRU(SIZE, 4, 2, batch_first=True), packed, 4, recurrent("l0", "l1", units=4)),
    "projected": (
        lambda: nn.LSTM(SIZE, 4, proj_size=3, batch_first=True), packed, 3,
        {**recurrent("l0"), "read.hr_l0": lambda s: s["read.weight_hr_l0"]},
    ),
    "rnn": (lambda: nn.RNN(SIZE, SIZE, nonlinearity="relu", batch_first=True), twice, SIZE, recurrent("l0")),
}  # fmt: skip


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(50 + step)
    inputs = torch.randn(BATCH, LENGTH, SIZE, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (BATCH,), generator=generator)


class Small:
    """A training in float64 of a reader."""

    def __init__(self, case: str, settings: dict[str, Any], adam: bool = False) -> None:
        self.case, self.settings, self.adam = case, settings, adam

    def model(self) -> Reader:
        torch.manual_seed(0)
        build, forward_of, width, _ = CASES[self.case]
        return Reader(build(), forward_of, width).double()

    def program(self) -> Repeated:
        model = self.model()
        kind = torch.optim.Adam if self.adam else torch.optim.SGD
        optimizer = kind(model.parameters(), **self.settings)

        def step(row: Row) -> None:
            optimizer.param_groups[0]["lr"] = 0.2 / (1 + row.step)
            optimizer.zero_grad()
            inputs, labels = data(row.step)
            nn.functional.cross_entropy(model(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch's stub
            nn.utils.clip_grad_norm_(model.parameters(), 0.4)
            optimizer.step()

        return model, optimizer, step

    def record(self, store: Path, kind: str = "replay") -> list[dict[str, Tensor]]:
        """Record; return the weights before each step and after the last."""
        model, optimizer, step = self.program()
        states, more = [], {"program": self.program} if kind == "replay" else {}
        with UpdateRecorder(model, optimizer, store, kind=kind, checkpoint_every=4, **more) as recorder:  # type: ignore[arg-type]
            for number in range(STEPS):
                states.append({k: v.detach().clone() for k, v in model.state_dict().items()})
                with recorder.step(list(range(BATCH))):
                    step(step_row(number))
        return [*states, {k: v.detach().clone() for k, v in model.state_dict().items()}]


def gradients(model: Reader, state: dict[str, Tensor], step: int) -> list[dict[str, Tensor]]:
    """Return the gradient of each example's part of the loss alone, after the clipping of the whole."""
    model.load_state_dict(state)
    inputs, labels = data(step)
    names = [name for name, _ in model.named_parameters()]
    found = []
    for row in range(BATCH):
        loss = nn.functional.cross_entropy(model(inputs[row : row + 1]), labels[row : row + 1]) / BATCH
        found.append(dict(zip(names, torch.autograd.grad(loss, list(model.parameters())), strict=True)))
    whole = torch.sqrt(sum(sum(one[name] for one in found).square().sum() for name in names))  # type: ignore[arg-type,misc,union-attr]
    factor = min(1.0, 0.4 / (float(whole) + 1e-6))
    return [{name: factor * value for name, value in one.items()} for one in found]


@pytest.mark.parametrize("settings", [{"lr": 0.1}, {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.01}])
@pytest.mark.parametrize("case", list(CASES))
def test_parts_are_those_of_each_examples_own_loss(tmp_path: Path, case: str, settings: dict[str, Any]) -> None:
    small = Small(case, settings)
    states = small.record(tmp_path / "store")
    source = TracedSource(open_updates(str(tmp_path / "store"), program=small.program), small.model())
    model, by = small.model(), CASES[case][3]
    layers, final = list(by), states[-1]
    queries = torch.randn(3, LENGTH, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    inputs = capture_inputs(model, layers, queries)
    rates, mu = [0.2 / (1 + step) for step in range(STEPS)], settings.get("momentum", 0.0)
    own = [gradients(model, state, step) for step, state in enumerate(states[:-1])]
    found: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for segment in source.segments():
        for block in source.blocks(segment, layers, members=True):
            weight = by[block.layer](final)
            found[block.layer] += block.per_example(traced_module(model, block.layer), weight, inputs[block.layer])
    for layer in layers:
        assert source.splits(layer)
        module, weight = traced_module(model, layer), by[layer](final)
        for step in range(STEPS):
            effect = -sum(rate * mu**late for late, rate in enumerate(rates[step:]))
            updates = torch.stack([effect * by[layer](one) for one in own[step]])
            expected = contributions(module, weight, inputs[layer], updates).gamma
            torch.testing.assert_close(found[layer][step], expected, rtol=1e-6, atol=1e-9)
            assert expected.std() > 0  # an equal split would be another


def test_without_decay_the_parts_sum_to_gamma(tmp_path: Path) -> None:
    small = Small("gru", {"lr": 0.1, "momentum": 0.5})
    states = small.record(tmp_path / "store")
    source = TracedSource(open_updates(str(tmp_path / "store"), program=small.program), small.model())
    queries = torch.randn(2, LENGTH, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    layer, model = "read.l1", small.model()
    rows, module = capture_inputs(model, [layer], queries)[layer], traced_module(model, layer)
    weight, parts, gamma = gates(states[-1], "l1", 4), torch.zeros(2), torch.zeros(2)
    for segment in source.segments():
        for block in source.blocks(segment, [layer], members=True):
            parts = parts + torch.stack([one.sum(1) for one in block.per_example(module, weight, rows)]).sum(0)
            gamma = gamma + block.project(module, weight, rows).gamma.sum(1)
            with pytest.raises(
                NotImplementedError, match="expected credit by gradient under momentum, found credit by"
            ):
                block.per_example(module, weight, rows, credit="step")
    torch.testing.assert_close(parts, gamma, rtol=1e-6, atol=1e-10)


def test_steps_without_other_changes_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, plain, made = Small("gru", {"lr": 0.1, "momentum": 0.5}), ReplaySource.replay, list[Segment]()
    small.record(tmp_path / "store")

    def counted(source: ReplaySource, segment: Segment) -> Replay:
        made.append(segment)
        return plain(source, segment)

    monkeypatch.setattr(ReplaySource, "replay", counted)
    source = TracedSource(open_updates(str(tmp_path / "store"), program=small.program), small.model())
    for segment in source.segments():
        for block in source.blocks(segment, ["read.l1"], members=True):
            assert block.recorded
    pieces = 2  # read.weight_ih_l1 and read.weight_hh_l1 are read one after the other
    assert 0 < len(made) <= pieces * len(source.segments())


@pytest.mark.parametrize("case", ["fused", "gru"])
def test_parts_of_weights_that_are_clamped_sum_to_gamma(tmp_path: Path, case: str) -> None:
    class Clamped(Small):
        def program(self) -> Repeated:
            model, optimizer, step = super().program()

            def clamped(row: Row) -> None:
                step(row)
                with torch.no_grad():
                    for parameter in model.read.parameters():  # type: ignore[union-attr]  # torch's stub
                        parameter.clamp_(-0.25, 0.25)

            return model, optimizer, clamped

    small, layer = Clamped(case, {"lr": 0.1, "momentum": 0.5}), {"fused": "read.v_proj", "gru": "read.l1"}[case]
    states = small.record(tmp_path / "store")
    source = TracedSource(open_updates(str(tmp_path / "store"), program=small.program), small.model())
    model, module = small.model(), traced_module(small.model(), layer)
    queries = torch.randn(2, LENGTH, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    rows, weight = capture_inputs(model, [layer], queries)[layer], CASES[case][3][layer](states[-1])
    parts, gamma = torch.zeros(2), torch.zeros(2)
    for segment in source.segments():
        for block in source.blocks(segment, [layer], members=True):
            parts = parts + torch.stack([one.sum(1) for one in block.per_example(module, weight, rows)]).sum(0)
            gamma = gamma + block.project(module, weight, rows).gamma.sum(1)
    torch.testing.assert_close(parts, gamma, rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize(
    ("kind", "adam", "change", "reason"),
    [
        ("dense", False, lambda read: None, "expected an archive with each example's part of this map, found whole"),
        ("replay", True, lambda read: None, r"expected an optimiser that is linear in the gradient \(torch's SGD\)"),
        ("replay", False, lambda read: setattr(read, "dropout", 0.2), "without dropout"),
    ],
)
def test_what_cannot_be_split_is_said(
    tmp_path: Path, kind: str, adam: bool, change: Callable[[Any], None], reason: str
) -> None:
    class Changed(Small):
        def model(self) -> Reader:
            model = super().model()
            change(model.read)
            return model

    small = Changed("fused", {"lr": 0.01}, adam)
    states = small.record(tmp_path / "store", kind)
    program = small.program if kind == "replay" else None
    source, layer = TracedSource(open_updates(str(tmp_path / "store"), program=program), small.model()), "read.q_proj"
    assert not source.splits(layer)
    rows = capture_inputs(small.model().eval(), [layer], torch.randn(2, LENGTH, SIZE, dtype=torch.float64))[layer]
    block = next(source.blocks(source.segments()[0], [layer], members=True))
    with pytest.raises(NotImplementedError, match=reason):
        block.per_example(traced_module(small.model(), layer), states[-1]["read.in_proj_weight"][:SIZE], rows)


def test_a_frozen_module_has_parts_of_0(tmp_path: Path) -> None:
    class Frozen(Small):
        def model(self) -> Reader:
            model = super().model()
            before = model.forward_of
            with torch.random.fork_rng():
                torch.manual_seed(1)
                model.below = nn.Linear(SIZE, SIZE).double()
            model.read.requires_grad_(False)
            model.forward_of = lambda net, x: before(net, net.below(x))  # type: ignore[operator]  # it is a module
            return model

    small = Frozen("fused", {"lr": 0.1})
    states = small.record(tmp_path / "store")
    source, layer = (
        TracedSource(open_updates(str(tmp_path / "store"), program=small.program), small.model()),
        "read.q_proj",
    )
    rows = capture_inputs(small.model(), [layer], torch.randn(2, LENGTH, SIZE, dtype=torch.float64))[layer]
    blocks = [block for one in source.segments() for block in source.blocks(one, [layer], members=True)]
    weight, module = states[-1]["read.in_proj_weight"][:SIZE], traced_module(small.model(), layer)
    parts = [part for block in blocks for part in block.per_example(module, weight, rows)]
    assert len(parts) == STEPS
    assert all(torch.equal(part, torch.zeros(2, BATCH, dtype=part.dtype)) for part in parts)
