"""Digests of large weights: after each step of a training a part of the blocks is read, at each step others."""

import itertools
from collections.abc import Collection
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.updates.parameters import lay_out
from tasks.recording import ReplayMismatch, UpdateRecorder, digests, fingerprints, open_updates
from tasks.recording.fingerprints import BLOCK, Turn, Watched
from tasks.recording.programs import Row
from tasks.recording.replay import ReplaySource
from tests.tasks.recording.conftest import Interruption, Repeated, Training, file_digests, same
from tests.tasks.recording.hybrids import Hybrid, sgd
from tests.tasks.recording.test_hybrid_odd import forms_of, opened
from tests.tasks.recording.test_replay import check_replay
from tests.tasks.recording.test_shares_odd import columns_of, expected_columns, first_bias, skips, usual, whole
from tests.tasks.recording.test_thinning import EVERY, STEPS, few

__all__ = ["few"]  # a fixture

SMALL, TURNS = 64, 7  # bytes of a block; layer "6" of the small net has 28 of them, and four are read at once


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read weights of some hundred bytes as if they had many megabytes."""
    monkeypatch.setattr(fingerprints, "BLOCK", SMALL)
    monkeypatch.setattr(fingerprints, "MOST", 4 * SMALL)


def summed(weight: Tensor, turn: Turn) -> bytes:
    """Return the sums of the words of the blocks that a turn reads, and the rest, by Python's integers."""
    data = weight.detach().numpy().tobytes()
    whole = len(data) // BLOCK
    turns = max(1, min(whole, -(-whole * BLOCK // turn.most)))
    found = b""
    for block in (block for block in range(whole) if block % turns == turn.number % turns):
        words = np.frombuffer(data[block * BLOCK : (block + 1) * BLOCK], np.uint64).tolist()
        found += (sum(words) % 2**64).to_bytes(8, "little")
    rest = data[whole * BLOCK :]
    return found + rest + bytes(-len(rest) % 4)


@pytest.mark.parametrize("shape", [(5, 3), (256, 256), (700, 300), (1031, 517)])
@pytest.mark.parametrize("most", [1, BLOCK, 2 * BLOCK, 3 * BLOCK + 5, 100 * BLOCK])
def test_every_block_is_read_once_in_the_turns_of_a_weight(shape: tuple[int, int], most: int) -> None:
    module = nn.Linear(shape[1], shape[0])
    (parameter,) = lay_out({"weight": ("float32", shape)})
    kept, blocks = Watched([parameter], [(module, "weight")]), parameter.nbytes // BLOCK
    turns = max(1, min(blocks, -(-blocks * BLOCK // most)))
    read: list[int] = []
    for number in range(turns):
        turn = Turn(most, 3 * turns + number)
        summary = kept.fingerprints(turn)["weight"].summary
        assert summary is not None
        assert summary.tobytes() == summed(module.weight, turn)
        assert turn.leaves(parameter) == (turns > 1)
        chosen = list(range(blocks))[turn.of(blocks)]
        assert len(chosen) * BLOCK < most + BLOCK
        read += chosen
    assert sorted(read) == list(range(blocks))


def test_a_change_that_torch_saw_is_looked_for_in_the_blocks_of_the_turn() -> None:
    module = nn.Linear(300, 700, bias=False)
    kept = Watched(lay_out({"weight": ("float32", (700, 300))}), [(module, "weight")])
    flat, size = module.weight.detach().view(-1), BLOCK // 4
    unseen = size + int(np.setdiff1d(np.arange(size, 2 * size), sampled_places(module))[0] - size)
    for number, found in [(0, [None, "weight"]), (1, ["weight", "weight"])]:
        before = kept.fingerprints(Turn(BLOCK, number))
        flat[unseen] += 1
        assert [kept.changed(before, strict=strict) for strict in (False, True)] == found
        flat[unseen] -= 1


def sampled_places(module: nn.Linear) -> list[int]:
    """Return the places of the sampled values of a weight."""
    values = module.weight.detach().clone()
    with torch.no_grad():
        module.weight.view(-1).copy_(torch.arange(values.numel()))
    parameter = lay_out({"weight": ("float32", tuple(values.shape))})
    sample = Watched(parameter, [(module, "weight")]).fingerprints()["weight"].sample
    with torch.no_grad():
        module.weight.copy_(values)
    found: list[int] = sample.view(np.float32).astype(int).tolist()
    return found


@pytest.mark.usefixtures("in_parts", "few")
@pytest.mark.parametrize("every", [EVERY, 7, 100])
def test_a_replay_is_checked_by_parts(tmp_path: Path, every: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where checkpoints between segments were removed, and by readers that would read other parts."""
    training = Training()
    final = training.recorded(tmp_path / "store", STEPS, every, kind="replay")
    monkeypatch.setattr(fingerprints, "MOST", 9 * SMALL)
    check_replay(tmp_path / "store", training)
    ledger = open_updates(str(tmp_path / "store")).ledger
    assert [name for name in ledger.columns if str(name).startswith("still/")] == ["still/6"]
    assert not ledger["still/6"].any()
    assert same(Training().plain(STEPS), final)
    monkeypatch.setattr(fingerprints, "MOST", 2**30)
    Training().recorded(tmp_path / "whole", STEPS, every, kind="replay")
    whole = open_updates(str(tmp_path / "whole")).ledger
    assert "still/6" not in whole
    assert (whole["digest/6"] != ledger["digest/6"]).all()
    for column in ("digest/0", "digest/3", "digest/8", "norm/6"):
        assert whole[column].equals(ledger[column]), column


@pytest.mark.usefixtures("in_parts")
def test_an_archive_may_have_segments_of_both_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that an earlier version began, which read all blocks and did not say so; kills do not change the rest."""
    monkeypatch.setattr(fingerprints, "MOST", 2**30)
    monkeypatch.setattr(digests, "READ", "not known")
    with pytest.raises(Interruption):
        Training().recorded(tmp_path / "store", 23, fail_at=17, kind="replay")
    monkeypatch.undo()
    monkeypatch.setattr(fingerprints, "BLOCK", SMALL)
    monkeypatch.setattr(fingerprints, "MOST", 4 * SMALL)
    training = Training()
    training.recorded(tmp_path / "store", 23, kind="replay")
    training.plain(23)
    check_replay(tmp_path / "store", training)
    for name in ("one", "two"):
        if name == "two":
            with pytest.raises(Interruption):
                Training().recorded(tmp_path / name, 23, fail_at=17, kind="replay")
        Training().recorded(tmp_path / name, 23, kind="replay")
    assert file_digests(tmp_path / "one") == file_digests(tmp_path / "two")


def flipped(training: Training, at: int, place: int) -> Repeated:
    """Return the training's program, in which a weight of layer 6 has another sign after a step."""
    model, optimizer, step = training.program()

    def other(row: Row) -> None:
        step(row)
        if row.step == at:
            weight = model.get_submodule("6").weight
            assert isinstance(weight, Tensor)
            weight.data.view(-1)[place] *= -1

    return model, optimizer, other


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("at", [0, 3, 6, 8])
def test_a_changed_weight_is_found_at_its_step_or_at_the_next(tmp_path: Path, at: int) -> None:
    """In a block that is read it is found at once; elsewhere by what the next step makes of it, or at a checkpoint."""
    training = Training()
    training.recorded(tmp_path / "store", 14, kind="replay")
    source = open_updates(str(tmp_path / "store"), program=training.program)
    segment = source.segments()[at // 7]
    words = SMALL // 4
    for block in (0, 1, 5, 6, 13, 27):
        source = open_updates(str(tmp_path / "store"), program=partial(flipped, training, at, block * words + 3))
        with pytest.raises(ReplayMismatch) as found:
            list(source.blocks(segment, ["6"]))
        if block % TURNS == (at - segment.start + 1) % TURNS:
            assert (found.value.step, found.value.layer) == (at, "6")
        elif at == segment.stop - 1:
            assert (found.value.step, found.value.layer) == (at, "6.weight")
        else:
            assert found.value.step == at + 1


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_skipped_update_of_a_large_weight_is_known(
    tmp_path: Path, momentum: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "BLOCK", 32)
    monkeypatch.setattr(fingerprints, "MOST", 32)
    if momentum:
        with pytest.raises(NotImplementedError, match="an update in each step under momentum, found the same weights"):
            columns_of(tmp_path / "store", skips, 4, momentum=momentum)
    else:
        found, weights = columns_of(tmp_path / "store", skips, 4)
        assert not found[1].any()
        expected = expected_columns(weights[0], first_bias(), weights[-1], -0.1)
        np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-12)
    source = open_updates(str(tmp_path / "store"))
    assert source.ledger["still/"].tolist() == [0, 1, 0, 0]
    assert isinstance(source, ReplaySource)
    assert source._course.still[""].tolist() == [False, True, False, False]


@pytest.mark.parametrize("most", [32, 2**20])
def test_an_undone_update_of_a_large_weight_is_not_split_under_momentum(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch saw the weights change, and they are as before: read in part, this is not known for sure."""
    monkeypatch.setattr(fingerprints, "BLOCK", 32)
    monkeypatch.setattr(fingerprints, "MOST", most)

    def undone(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        saved = [parameter.detach().clone() for parameter in model.parameters()]
        usual(model, optimizer, whole)
        if number == 1:
            with torch.no_grad():
                for parameter, value in zip(model.parameters(), saved, strict=True):
                    parameter.copy_(value)

    with pytest.raises(NotImplementedError, match="an update in each step under momentum, found the same weights"):
        columns_of(tmp_path / "store", undone, 4, momentum=0.9)
    ledger = open_updates(str(tmp_path / "store")).ledger
    assert ledger["still/"].tolist() == [0, -1, 0, 0] if most == 32 else "still/" not in ledger


@pytest.mark.usefixtures("in_parts")
def test_weights_that_go_and_come_back_between_two_steps_are_accepted(tmp_path: Path) -> None:
    """As averages of the weights that take their place for an evaluation, at the step of every turn.

    All bits of weights that are read whole are compared, so that factors still explain the steps.
    """
    for kind in ("replay", "hybrid"):
        training = Training()
        model, optimizer = training.start()
        with UpdateRecorder(model, optimizer, tmp_path / kind, kind=kind, checkpoint_every=30) as recorder:
            for step in range(2 * TURNS):
                with recorder.step([step]):
                    training.update(model, optimizer, step)
                saved = [parameter.detach().clone() for parameter in model.parameters()]
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(0.5)
                    for parameter, value in zip(model.parameters(), saved, strict=True):
                        parameter.copy_(value)
        assert same(training.states[-1], Training().plain(2 * TURNS))
    with pytest.raises(RuntimeError, match="step 3: layer '0': expected its weights after step 2"):
        change_between(tmp_path / "other")


def change_between(store: Path) -> None:
    """Halve all weights between two steps."""
    training = Training()
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, store, kind="hybrid", checkpoint_every=30) as recorder:
        for step in range(5):
            with recorder.step([step]):
                training.update(model, optimizer, step)
            if step == 2:
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(0.5)


def wide() -> nn.Module:
    """A linear layer of which the check of the factors samples some rows only."""
    return nn.Sequential(nn.Linear(40, 1000), nn.ReLU(), nn.Linear(1000, 3))


@pytest.mark.parametrize("place", ["after_step", "after_backward"])
@pytest.mark.parametrize("row", [1, 500, 998])
def test_a_row_that_changes_outside_the_optimisers_step_is_in_the_archive(tmp_path: Path, row: int, place: str) -> None:
    """As a dead unit that begins again: the factors do not explain it, in whatever rows they are checked."""

    def begin_again(model: nn.Module, step: int) -> None:
        if step in (3, 9):
            with torch.no_grad():
                weight = next(iter(model.parameters()))
                weight[row] = torch.linspace(-1, 1, 40, dtype=weight.dtype)

    training = Hybrid(sgd("heavy ball"), wide, torch.float32)
    setattr(training, place, begin_again)
    training.recorded(tmp_path, tolerance=1e-3)
    source = opened(tmp_path)
    forms = forms_of(source, "0.weight")
    assert [step for step, form in enumerate(forms) if form != "factors"] == [3, 9]
    for block in itertools.chain.from_iterable(source.blocks(segment, ["0"]) for segment in source.segments()):
        truth = training.update_of("0", block.start, block.stop)
        error = (block.dense() - truth).flatten(1).norm(dim=1)
        assert bool((error <= 1e-4 * truth.flatten(1).norm(dim=1)).all())


@pytest.mark.parametrize("kind", ["replay", "hybrid"])
@pytest.mark.parametrize("at", [2, 3, 6, 7, 9])
def test_a_few_weights_that_change_between_two_blocks_are_refused(tmp_path: Path, kind: str, at: int) -> None:
    """In weights that are read whole everywhere; here in rows that are not sampled, also between two segments."""
    store = tmp_path / kind
    with pytest.raises(RuntimeError, match=f"(step {at + 1}|close): layer '0': expected its weights after step {at}"):
        between(store, kind, {at}, restore=False)


@pytest.mark.parametrize("kind", ["replay", "hybrid"])
@pytest.mark.parametrize(("first", "at"), [(None, 3), (None, 7), (0, 2), (0, 9)])
def test_in_large_weights_they_are_refused_between_segments_and_from_the_second_on(
    tmp_path: Path, kind: str, first: int | None, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "MOST", BLOCK)
    once = set() if first is None else {first}
    with pytest.raises(RuntimeError, match=f"(step {at + 1}|close): layer '0': expected its weights after step {at}"):
        between(tmp_path / kind, kind, {at}, restore=False, restored=once)


@pytest.mark.parametrize("most", [BLOCK, 2**22])
def test_weights_that_come_back_stay_factors_where_they_are_read_whole(
    tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprints, "MOST", most)
    between(tmp_path / "store", "hybrid", {0, 4}, restore=True)
    source = opened(tmp_path / "store")
    others = [step for step, form in enumerate(forms_of(source, "0.weight")) if form != "factors"]
    assert others == ([1, 5] if most == BLOCK else [])


def between(store: Path, kind: str, at: set[int], *, restore: bool, restored: Collection[int] = ()) -> None:
    """Record ten steps of a layer of four blocks, and change eight weights after some of them, or restore them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 1024), nn.ReLU(), nn.Linear(1024, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weight = model[0].weight
    assert isinstance(weight, Tensor)
    data = torch.randn(10, 4, 256)
    with UpdateRecorder(model, optimizer, store, kind=kind, checkpoint_every=4) as recorder:
        for step in range(10):
            with recorder.step([step]):
                optimizer.zero_grad()
                model(data[step]).square().sum().mul(1e-2).backward()
                optimizer.step()
            if step in at or step in restored:
                before = weight[515, 16:24].detach().clone()
                with torch.no_grad():
                    weight[515, 16:24] = 3.0
                    if restore or step in restored:
                        weight[515, 16:24] = before
