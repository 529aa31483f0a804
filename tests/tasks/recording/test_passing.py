"""Blocks that are projected as they pass give the contributions of blocks that keep their weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from storage.stages import FinishedStage
from tasks.modules.naming import traced_module
from tasks.modules.rows import Rows
from tasks.recording import UpdateRecorder, open_updates, passing, replay
from tasks.recording.passing import PassingBlock
from tasks.recording.traced import traced_source
from tasks.tracing import contributions, running
from tasks.tracing.running import runs
from tests.tasks.recording.conftest import Training, momentum
from tests.tasks.recording.recordings import OPTIMIZERS

LAYER, STEPS, EVERY = "1", 11, 4


def linear_net() -> nn.Module:
    """Three linear layers, the second one without a bias."""
    torch.manual_seed(4)
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 40), nn.ReLU(), nn.Linear(40, 30, bias=False), nn.Linear(30, 3))


@pytest.fixture(autouse=True)
def every_layer_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "BLOCK", 1)
    monkeypatch.setattr(passing, "LARGE", 1)
    monkeypatch.setattr(running, "LARGE", 1)


def recorded(store: Path, optimizer: str = "sgd") -> Training:
    """Record a training as a replay and return it."""
    training = Training(OPTIMIZERS.get(optimizer, momentum), build=linear_net)
    training.recorded(store, STEPS, EVERY, kind="replay")
    return training


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("anchored", [False, True])
def test_contributions_are_those_of_updates_in_float64(tmp_path: Path, optimizer: str, anchored: bool) -> None:
    training = recorded(tmp_path / "store", optimizer)
    source = open_updates(str(tmp_path / "store"), program=training.program)
    inputs = torch.randn(5, 72, generator=torch.Generator().manual_seed(1))
    weight, anchor = source.final(LAYER), source.final(LAYER) - source.initial(LAYER) if anchored else None
    module = training.build().get_submodule(LAYER)
    seen: list[int] = []
    for segment in source.segments():
        for block in source.blocks(segment, [LAYER, "4"], passing=[LAYER]):
            if block.layer != LAYER:
                assert not isinstance(block, PassingBlock)
                continue
            assert isinstance(block, PassingBlock)
            assert len(block.steps) == 1
            found = block.project(module, weight, inputs, anchor=anchor)
            before, after = (training.states[at]["1.weight"].double() for at in (block.start, block.stop))
            wide = None if anchor is None else anchor.double()
            expected = contributions(module, weight.double(), inputs.double(), (after - before)[None], anchor=wide)
            for name in ("gamma", "norm", "cosine", "preactivation_norm"):
                made, exact = getattr(found, name), getattr(expected, name).float()
                assert (made.shape, made.dtype) == (exact.shape, torch.float32)
                torch.testing.assert_close(made, exact, rtol=1e-5, atol=1e-7 * float(exact.abs().max()))
            seen += block.steps.tolist()
    assert seen == list(range(STEPS))


def test_a_step_that_changes_nothing_contributes_exactly_nothing(tmp_path: Path) -> None:
    class Still(Training):
        def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
            optimizer.param_groups[0]["lr"] = 0.0 if step % 2 else 0.1
            return super().update(model, optimizer, step)

    training = Still(momentum, build=linear_net)
    training.recorded(tmp_path / "store", 6, 6, kind="replay")
    source = open_updates(str(tmp_path / "store"), program=training.program)
    given = training.build().get_submodule(LAYER), source.final(LAYER), torch.randn(2, 72)
    (segment,) = source.segments()
    found = [block.project(*given) for block in source.blocks(segment, [LAYER], passing=[LAYER])]
    assert [bool(one.gamma.any() or one.norm.any()) for one in found] == [True, False] * 3


def test_parts_by_example_are_the_same(tmp_path: Path) -> None:
    training = Training(momentum, build=linear_net)
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", checkpoint_every=EVERY) as recorder:
        for step in range(STEPS):
            with recorder.step(range(8)):
                training.update(model, optimizer, step)
    source = open_updates(str(tmp_path / "store"), program=training.program)
    given = training.build().get_submodule(LAYER), source.final(LAYER), torch.randn(3, 72)
    segment = source.segments()[1]
    made = [
        [block.per_example(*given)[0] for block in source.blocks(segment, [LAYER], members=True, passing=passes)]
        for passes in ([], [LAYER])
    ]
    assert len(made[0]) == EVERY
    for kept, passed in zip(*made, strict=True):
        torch.testing.assert_close(passed, kept, rtol=0, atol=0)


def test_weights_are_refused_and_so_are_other_queries_and_blocks_left_out(tmp_path: Path) -> None:
    training = recorded(tmp_path / "store")
    source = open_updates(str(tmp_path / "store"), program=training.program)
    module, weight = training.build().get_submodule(LAYER), source.final(LAYER)
    inputs, others = torch.randn(2, 72), torch.randn(2, 72)
    segment = source.segments()[0]
    block = next(source.blocks(segment, [LAYER], passing=[LAYER]))
    with pytest.raises(RuntimeError, match="layer '1': expected to be projected only, found a request of its weights"):
        block.dense()
    wrong = r"layer '1', step 1: expected every block of a pass to be projected once, in order, on the same queries"
    for first, second in ((None, inputs), (inputs, others)):
        blocks = source.blocks(segment, [LAYER], passing=[LAYER])
        block = next(blocks)
        if first is not None:
            block.project(module, weight, first)
        with pytest.raises(RuntimeError, match=wrong):
            next(blocks).project(module, weight, second)
    blocks = source.blocks(segment, [LAYER], passing=[LAYER])
    next(blocks).project(module, weight, inputs)
    inputs += 1  # the same tensor with other values
    with pytest.raises(RuntimeError, match=wrong):
        next(blocks).project(module, weight, inputs)


def test_a_layer_that_is_asked_for_twice_keeps_its_weights(tmp_path: Path) -> None:
    training = recorded(tmp_path / "store")
    inner = open_updates(str(tmp_path / "store"), program=training.program)
    source = traced_source(inner, training.build())
    first = source.segments()[0], ["1", "3", "3@0"]
    kinds = {block.layer: isinstance(block, PassingBlock) for block in source.blocks(*first, passing=["1", "3"])}
    assert kinds == {"1": True, "3": False, "3@0": False}


def test_blocks_that_are_projected_too_late_are_refused(tmp_path: Path) -> None:
    training = recorded(tmp_path / "store")
    source = open_updates(str(tmp_path / "store"), program=training.program)
    given = training.build().get_submodule(LAYER), source.final(LAYER), torch.randn(2, 72)
    first, _ = list(source.blocks(source.segments()[0], [LAYER], passing=[LAYER]))[:2]
    with pytest.raises(
        RuntimeError, match="layer '1', step 0: expected to be projected before the next block is taken"
    ):
        first.project(*given)


def test_a_tied_weight_passes_only_if_all_its_layers_do(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        torch.manual_seed(4)
        found = nn.Sequential(nn.Flatten(), nn.Linear(72, 72), nn.ReLU(), nn.Linear(72, 72), nn.Linear(72, 3))
        found[3].weight = found[1].weight
        return found

    training = Training(momentum, build=tied)
    training.recorded(tmp_path / "store", 4, 4, kind="replay")
    source = open_updates(str(tmp_path / "store"), program=training.program)
    inputs, (segment,) = torch.randn(2, 72), source.segments()
    module, weight, bias = nn.Linear(72, 72), source.final("1"), source.final_bias("3")
    assert bias is not None
    for passes, expected in ((["1"], False), (["1", "3"], True)):
        for block in source.blocks(segment, ["1", "3"], passing=passes):
            assert isinstance(block, PassingBlock) == expected
            found = block.project(module, weight, inputs, bias=None if expected else bias)
            before, after = (training.states[at]["1.weight"].double() for at in (block.start, block.stop))
            if expected:
                wide = contributions(module, weight.double(), inputs.double(), (after - before)[None])
                torch.testing.assert_close(found.gamma, wide.gamma.float(), rtol=1e-5, atol=1e-6)


def test_a_map_with_the_name_of_its_piece_keeps_its_weights(tmp_path: Path) -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(4)
            self.attention, self.last = nn.MultiheadAttention(12, 2, batch_first=True), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            tokens = x.flatten(1).view(len(x), 6, 12)
            found: Tensor = self.last(self.attention(tokens, tokens, tokens)[0].mean(1))
            return found

    training = Training(momentum, build=Attending)
    training.recorded(tmp_path / "store", 4, 4, kind="replay")
    inner, model = open_updates(str(tmp_path / "store"), program=training.program), training.build()
    source, name = traced_source(inner, model), "attention.out_proj"
    given = traced_module(model, name), source.final(name), torch.randn(2, 6, 13)  # with the bias as a column
    (segment,) = source.segments()
    blocks = list(source.blocks(segment, [name, "last"], passing=[name, "last"]))
    gammas = [block.project(*given).gamma for block in blocks if block.layer == name]
    assert len(gammas) == 4
    wanted = [block.project(*given).gamma for block in source.blocks(segment, [name])]
    torch.testing.assert_close(gammas, wanted)


def test_sources_are_read_once_however_many_segments_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(momentum, build=linear_net)
    training.recorded(tmp_path / "store", 12, 1, kind="replay")
    source = traced_source(open_updates(str(tmp_path / "store"), program=training.program), training.build())
    reads, markers = [], FinishedStage.markers
    monkeypatch.setattr(FinishedStage, "markers", lambda stage: reads.append(1) or markers(stage))  # type: ignore[func-returns-value]
    for segment in source.segments():
        list(source.blocks(segment, [LAYER], members=True, passing=[LAYER]))
    assert len(reads) == 1


def test_when_running_products_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LARGE", 4 * 8 * 6)
    linear, inputs = nn.Linear(8, 6), torch.randn(3, 8)
    weight, kernel = torch.randn(6, 8), torch.randn(6, 8, 1, 1)
    assert runs(linear, weight, inputs)
    assert runs(linear, weight, inputs, anchor=weight)
    assert not runs(linear, weight, inputs[:0])
    assert not runs(linear, weight, torch.randn(17, 8))  # of many queries copies are cheaper
    assert not runs(linear, weight, torch.randn(3, 6, 8))  # 18 rows
    assert not runs(linear, weight, Rows(torch.randn(18, 8), torch.tensor([0, 9, 18])))
    assert not runs(linear, weight, inputs, bias=torch.zeros(6))
    assert not runs(linear, weight.double(), inputs.double())
    assert not runs(nn.Linear(8, 5), weight[:5], inputs)  # small
    assert not runs(nn.Conv2d(8, 6, 1), kernel, torch.randn(1, 8, 5, 5))
