"""Blocks that are projected as they pass give the contributions of blocks that keep their weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

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
    """Three linear layers, the last one of which is used twice."""
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
        for block in source.only_projected([LAYER]).blocks(segment, [LAYER, "4"]):
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
    source = open_updates(str(tmp_path / "store"), program=training.program).only_projected([LAYER])
    given = training.build().get_submodule(LAYER), source.final(LAYER), torch.randn(2, 72)
    (segment,) = source.segments()
    found = [block.project(*given) for block in source.blocks(segment, [LAYER])]
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
        [block.per_example(*given)[0] for block in one.blocks(segment, [LAYER], members=True)]
        for one in (source, source.only_projected([LAYER]))
    ]
    assert len(made[0]) == EVERY
    for kept, passed in zip(*made, strict=True):
        torch.testing.assert_close(passed, kept, rtol=0, atol=0)


def test_weights_are_refused_and_so_are_other_queries_and_blocks_left_out(tmp_path: Path) -> None:
    training = recorded(tmp_path / "store")
    source = open_updates(str(tmp_path / "store"), program=training.program).only_projected([LAYER])
    module, weight = training.build().get_submodule(LAYER), source.final(LAYER)
    inputs, others = torch.randn(2, 72), torch.randn(2, 72)
    segment = source.segments()[0]
    block = next(source.blocks(segment, [LAYER]))
    with pytest.raises(RuntimeError, match="layer '1': expected to be projected only, found a request of its weights"):
        block.dense()
    wrong = r"layer '1', step 1: expected every block of a pass to be projected once, in order, on the same queries"
    for first, second in ((None, inputs), (inputs, others)):
        blocks = source.blocks(segment, [LAYER])
        block = next(blocks)
        if first is not None:
            block.project(module, weight, first)
        with pytest.raises(RuntimeError, match=wrong):
            next(blocks).project(module, weight, second)
    blocks = source.blocks(segment, [LAYER])
    next(blocks).project(module, weight, inputs)
    inputs += 1  # the same tensor with other values
    with pytest.raises(RuntimeError, match=wrong):
        next(blocks).project(module, weight, inputs)


def test_a_layer_that_is_asked_for_twice_keeps_its_weights(tmp_path: Path) -> None:
    training = recorded(tmp_path / "store")
    inner = open_updates(str(tmp_path / "store"), program=training.program)
    source = traced_source(inner, training.build()).only_projected(["1", "3"])
    kinds = {
        block.layer: isinstance(block, PassingBlock) for block in source.blocks(source.segments()[0], ["1", "3", "3@0"])
    }
    assert kinds == {"1": True, "3": False, "3@0": False}


def test_when_running_products_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LARGE", 4 * 8 * 6)
    linear, inputs = nn.Linear(8, 6), torch.randn(3, 8)
    weight, kernel = torch.randn(6, 8), torch.randn(6, 8, 1, 1)
    assert runs(linear, weight, inputs)
    assert runs(linear, weight, inputs, anchor=weight)
    assert not runs(linear, weight, torch.randn(17, 8))  # of many queries copies are cheaper
    assert not runs(linear, weight, torch.randn(3, 6, 8))  # 18 rows
    assert not runs(linear, weight, Rows(torch.randn(18, 8), torch.tensor([0, 9, 18])))
    assert not runs(linear, weight, inputs, bias=torch.zeros(6))
    assert not runs(linear, weight.double(), inputs.double())
    assert not runs(nn.Linear(8, 5), weight[:5], inputs)  # small
    assert not runs(nn.Conv2d(8, 6, 1), kernel, torch.randn(1, 8, 5, 5))
