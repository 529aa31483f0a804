from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import FinishedStage, begin_stage
from storage.stores import open_store
from storage.updates.archives import Segment
from tasks.recording import UpdateSource, update_source
from tasks.recording.checkpoints import pack_checkpoint, write_checkpoint, write_initial
from tasks.recording.segment import SegmentRecorder, attempt_folder
from tests.tasks.recording.conftest import LAYERS, Training

STEPS, EVERY = 23, 10


def make_stage(path: Path, training: Training, keep: Callable[[int], bool] | None) -> FinishedStage:
    """Record as a training stage does: a known number of partitions, checkpoints of its own, some steps not kept."""
    stage = begin_stage(open_store(str(path), create=True), StageSpec("training", 1), Layout(-(-STEPS // EVERY)))
    model, optimizer = training.start()
    parent = ""
    for number in range(stage.layout.partitions):
        start, stop = number * EVERY, min(STEPS, (number + 1) * EVERY)
        segment = Segment(number, start, stop, attempt_folder(number))
        with stage.partition(number) as part:
            part.numbers["parent"] = parent
            if number == 0:
                part.numbers["initial"] = write_initial(part.write_addressed, pack_checkpoint(model, optimizer))
            recorder = SegmentRecorder(model, optimizer, LAYERS, segment=segment, write=part.write_large, keep=keep)
            for step in range(start, stop):
                with recorder.step([step]):
                    training.update(model, optimizer, step)
            part.numbers["recording"] = recorder.close()
            parent = write_checkpoint(part.write_addressed, number, pack_checkpoint(model, optimizer, generators=False))
            part.numbers["checkpoint"] = parent
    return stage.seal({})


def spans(source: UpdateSource, layer: str) -> list[tuple[int, int, bool]]:
    return [(b.start, b.stop, b.recorded) for s in source.segments() for b in source.blocks(s, [layer])]


def test_a_training_stage_is_a_source(tmp_path: Path) -> None:
    training = Training()
    source = update_source(make_stage(tmp_path / "store", training, None))
    assert [(s.start, s.stop) for s in source.segments()] == [(0, 10), (10, 20), (20, 23)]
    assert spans(source, "6") == [(0, 10, True), (10, 20, True), (20, 23, True)]
    assert torch.equal(source.final("6"), training.states[-1]["6.weight"])


def test_steps_that_are_not_kept_make_one_row_until_the_next(tmp_path: Path) -> None:
    kept = [0, 1, 5, 6, 7, 12, 20]
    training = Training()
    source = update_source(make_stage(tmp_path / "store", training, kept.__contains__))
    assert spans(source, "6") == [
        (0, 2, True),
        (2, 5, False),
        (5, 8, True),
        (8, 10, False),
        (10, 12, False),
        (12, 13, True),
        (13, 20, False),
        (20, 21, True),
        (21, 23, False),
    ]
    for layer in LAYERS:
        total = torch.zeros_like(source.initial(layer), dtype=torch.float64)
        for segment in source.segments():
            for block in source.blocks(segment, [layer]):
                states = [training.states[t][f"{layer}.weight"] for t in range(block.start, block.stop + 1)]
                states = states if block.recorded else [states[0], states[-1]]
                expected = torch.stack([after - before for before, after in pairwise(states)])
                assert torch.equal(block.dense(), expected)
                steps = range(block.start, block.stop) if block.recorded else [block.stop - 1]
                np.testing.assert_array_equal(block.steps, list(steps))
                total += block.dense(torch.float64).sum(0)
        change = source.final(layer).double() - source.initial(layer).double()
        np.testing.assert_allclose(total.numpy(), change.numpy(), rtol=0, atol=1e-12)
    ledger = source.ledger
    assert len(ledger) == STEPS  # every step has its row there
    assert source.recorded.nonzero()[0].tolist() == kept
    whole = (training.states[5]["6.weight"].double() - training.states[2]["6.weight"].double()).norm()
    assert ledger["norm/6"][4] == pytest.approx(float(whole), rel=1e-12)
    assert ledger["norm/6"][2:4].isna().all()


def test_nothing_is_kept(tmp_path: Path) -> None:
    source = update_source(make_stage(tmp_path / "store", Training(), lambda _: False))
    assert spans(source, "0") == [(0, 10, False), (10, 20, False), (20, 23, False)]


def test_a_segment_takes_no_more_steps_than_it_has(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    written: dict[str, bytes] = {}
    segment = Segment(3, 30, 32, "segment-000003-x")

    def write(name: str, data: bytes | memoryview, *, checked: bool = False) -> None:
        written[name] = bytes(data)

    recorder = SegmentRecorder(model, optimizer, None, segment=segment, write=write)
    for _ in range(2):
        with recorder.step([0]):
            pass
    with pytest.raises(RuntimeError, match="segment 3 ends before step 32; close it"), recorder.step([0]):
        pass
    numbers = recorder.close()
    assert (numbers["start"], numbers["stop"], numbers["rows"], numbers["kind"]) == (30, 32, 2, "dense")
    assert (numbers["files"], numbers["bytes"]) == (len(written), sum(map(len, written.values())))
    assert all(name.startswith("segment-000003-x/") for name in written)


def test_an_abandoned_segment_writes_nothing_more(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    written: list[str] = []
    recorder = SegmentRecorder(
        model, optimizer, None, segment=Segment(0, 0, 9, "s"), write=lambda name, _, checked=False: written.append(name)
    )
    with recorder.step([0]):
        pass
    recorder.abandon()
    assert written == []
    with pytest.raises(RuntimeError, match="the recording was abandoned"), recorder.step([0]):
        pass


class Tied(nn.Module):
    """An autoencoder whose decoder uses the encoder's weight, and one more layer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.decoder.weight = self.encoder.weight


def test_a_weight_that_two_layers_use_is_written_once_and_read_by_both(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stage = begin_stage(open_store(str(tmp_path / "s"), create=True), StageSpec("training", 1), Layout(1))
    before = model.encoder.weight.detach().clone()
    with stage.partition(0) as part:
        initial = write_initial(part.write_addressed, pack_checkpoint(model, optimizer))
        segment = Segment(0, 0, 2, attempt_folder(0))
        recorder = SegmentRecorder(model, optimizer, None, segment=segment, write=part.write_large)
        for _ in range(2):
            with recorder.step([0]):
                model.last(model.decoder(model.encoder(torch.ones(1, 4)))).sum().backward()
                optimizer.step()
        part.numbers.update(parent="", initial=initial, recording=recorder.close())
        part.numbers["checkpoint"] = write_checkpoint(part.write_addressed, 0, pack_checkpoint(model, optimizer))
    source = update_source(stage.seal({}))
    assert source.layers == ["encoder", "decoder", "last"]
    names = {name.split("/")[2] for name in stage.seal({}).note["files"] if "/updates/" in name}
    assert names == {"encoder.weight", "encoder.bias", "decoder.bias", "last.weight", "last.bias", "zarr.json"}
    for layer in ("encoder", "decoder"):
        (block,) = source.blocks(source.segments()[0], [layer])
        change = (model.encoder.weight.detach() - before).numpy()
        np.testing.assert_allclose(block.dense().sum(0).numpy(), change, rtol=0, atol=1e-6)
        assert torch.equal(source.final(layer), model.encoder.weight)
    assert not torch.equal(model.encoder.bias, model.decoder.bias)
    bias = source.final_bias("decoder")
    assert bias is not None
    assert torch.equal(bias, model.decoder.bias)


def test_weights_are_read_where_the_module_has_them_now(tmp_path: Path) -> None:
    model = nn.Linear(2, 2, bias=False)
    written: dict[str, bytes] = {}

    def write(name: str, data: bytes | memoryview, *, checked: bool = False) -> None:
        written[name] = bytes(data)

    recorder = SegmentRecorder(
        model, torch.optim.SGD(model.parameters(), lr=1.0), None, segment=Segment(0, 0, 1, "s"), write=write
    )
    before = model.weight.detach().clone()
    with recorder.step([0]):
        model.weight = nn.Parameter(before.t().contiguous().t() + 1)  # another object, another order in memory
    recorder.close()
    found = np.frombuffer(written["s/updates/weight/c/0/0/0"][:-4], np.int32)
    expected = (before + 1).view(torch.int32) - before.view(torch.int32)
    np.testing.assert_array_equal(found, expected.reshape(-1).numpy())
