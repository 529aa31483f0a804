"""An archive as another kind: bit for bit or within the stated error, compressed, resumed after kills, checked."""

import json
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.collect import find_garbage
from storage.documents import DamagedError
from storage.stores import StoreError, open_store
from storage.updates import archives
from storage.verify import verify_stages
from tasks.recording import ReplayMismatch, UpdateSource, conversion, open_updates, update_source
from tasks.recording.conversion import materialise
from tests.forked import ended, forked
from tests.tasks.recording.conftest import LAYERS, Training, file_digests
from tests.tasks.recording.recordings import OPTIMIZERS, STEPS
from tests.tasks.recording.test_kills import watch


def rows(source: UpdateSource, layer: str) -> Tensor:
    """Return all updates of a layer, (T, ...) float64."""
    return torch.cat([b.dense(torch.float64) for s in source.segments() for b in source.blocks(s, [layer])])


def truth(training: Training, layer: str) -> Tensor:
    """Return the same from the copies that the loop kept."""
    weights = torch.stack([state[f"{layer}.weight"].double() for state in training.states])
    return weights[1:] - weights[:-1]


def check(source: UpdateSource, training: Training) -> None:
    """Compare updates with the loop's, at the stated exactness, and the ends bit for bit."""
    for layer in LAYERS:
        made, expected = rows(source, layer), truth(training, layer)
        error = (made - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
        assert float(error.max()) <= source.exactness[layer]
        assert torch.equal(source.initial(layer), training.states[0][f"{layer}.weight"])
        assert torch.equal(source.final(layer), training.states[-1][f"{layer}.weight"])


@pytest.mark.parametrize("kind", ["dense", "hybrid"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_replay_becomes_another_kind(tmp_path: Path, name: str, kind: str) -> None:
    training = Training(OPTIMIZERS[name])
    training.recorded(tmp_path / "store", STEPS, kind="replay")
    states = training.states
    path = materialise(str(tmp_path / "store"), kind, program=training.program)
    training.states = states
    made = open_updates(str(tmp_path / "store"))  # without the program
    assert made.kind == kind
    check(made, training)
    if kind == "dense":
        assert set(made.exactness.values()) == {0.0}
    replayed = open_updates(str(tmp_path / "store"), program=training.program)
    assert replayed.kind == "replay"
    facts = ["step", "epoch", "label", "lr", "loss", "clip"]
    assert made.ledger[facts].equals(replayed.ledger[facts])
    for one, other in ((made.examples, replayed.examples), (made.ghosts, replayed.ghosts)):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    store = open_store(str(tmp_path / "store"))
    assert [list(lines) for lines in verify_stages(store, [path])] == [[]]
    assert list(find_garbage(store, 0.0)) == []  # it stays as long as its archive


def test_a_dense_archive_becomes_a_hybrid_one(tmp_path: Path) -> None:
    training = Training()
    training.recorded(tmp_path / "store", STEPS, kind="dense")
    stage = open_store(str(tmp_path / "store"))
    path = materialise(str(tmp_path / "store"), "hybrid", tolerance=1e-3)
    (made,) = archives.find_conversions(stage)[archives.find_archives(stage)[0]]
    assert made.path == path
    source = update_source(made)
    assert source.kind == "hybrid"
    check(source, training)
    assert open_updates(str(tmp_path / "store")).kind == "dense"  # which is better, and needs no program


def test_a_dense_copy_is_smaller(tmp_path: Path) -> None:
    """Differences of bit patterns compress, where a step is small next to the weights."""

    def slow(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e-5)

    training = Training(slow, lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 60), nn.ReLU(), nn.Linear(60, 3)))
    training.recorded(tmp_path / "store", 20, kind="dense")
    path = materialise(str(tmp_path / "store"), "dense")
    chunks = [
        sum(f.stat().st_size for f in (tmp_path / "store").glob(f"{p}/*/files/segment*/updates/*/c/**/*"))
        for p in ("updates", "materialised")
    ]
    assert chunks[1] < 0.7 * chunks[0]
    store = open_store(str(tmp_path / "store"))
    (made,) = archives.find_conversions(store)[archives.find_archives(store)[0]]
    assert made.path == path
    for layer in ("1", "3"):
        assert torch.equal(rows(update_source(made), layer), truth(training, layer))


def test_a_thinned_archive_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_CHECKPOINTS", 3)
    training = Training()
    training.recorded(tmp_path / "store", 22, 2, kind="replay")
    states = training.states
    materialise(str(tmp_path / "store"), "dense", program=training.program)
    training.states = states
    check(open_updates(str(tmp_path / "store")), training)


def test_refusals_are_one_line(tmp_path: Path) -> None:
    training = Training()
    training.recorded(tmp_path / "store", 9, kind="replay")
    url = str(tmp_path / "store")
    with pytest.raises(ValueError, match=r"^program: expected one to repeat the training"):
        materialise(url, "dense")
    with pytest.raises(ValueError, match=r"^kind: expected one of dense, hybrid, found 'replay'$"):
        materialise(url, "replay", program=training.program)
    path = materialise(url, "dense", program=training.program)
    with pytest.raises(StoreError, match=rf"^{path}: expected no finished conversion of updates/\w+, found one; read"):
        materialise(url, "dense", program=training.program)
    Training().recorded(tmp_path / "hybrid", 9, kind="hybrid")
    with pytest.raises(ValueError, match=r"^kind: expected an archive of kind replay or dense, .* found hybrid;"):
        materialise(str(tmp_path / "hybrid"), "dense")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="expected a layerlore store, found none"):
        materialise(str(tmp_path / "empty"), "dense")


def test_another_training_is_not_converted(tmp_path: Path) -> None:
    Training().recorded(tmp_path / "store", 16, kind="replay")

    class Other(Training):
        def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
            return super().update(model, optimizer, step + (step == 9))

    with pytest.raises(ReplayMismatch, match=r"^step 9, layer '0'"):
        materialise(str(tmp_path / "store"), "dense", program=Other().program)
    store = open_store(str(tmp_path / "store"))
    assert archives.find_conversions(store) == {}  # nothing looks whole
    training = Training()
    materialise(str(tmp_path / "store"), "dense", program=training.program)  # goes on after the first segment
    assert len(archives.find_conversions(store)) == 1


def test_updates_that_do_not_sum_to_the_change_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training()
    take, calls = conversion._Restored._take, list[int]()

    def wrong(walk: conversion._Restored) -> None:
        take(walk)
        calls.append(1)
        if len(calls) == 10:  # after the last row; the weights before the first came first
            walk._held["6.weight"].data[0, 0] += 0.1

    monkeypatch.setattr(conversion._Restored, "_take", wrong)
    training.recorded(tmp_path / "other", 9, 9, kind="dense")
    with pytest.raises(DamagedError, match=r"layer '6': expected updates that sum to the change of its weights"):
        materialise(str(tmp_path / "other"), "hybrid")


def convert(store: Path, last: int, kind: str) -> None:
    """Convert until the end or the event of a number; write the files' digests and the count of events."""
    torch.set_num_threads(1)
    events = watch(last)
    materialise(str(store), kind, program=Training().program, say=lambda text: None)
    Path(f"{store}.json").write_text(json.dumps(file_digests(store, "materialised")))
    Path(f"{store}.events").write_text(str(next(events) - 1))


def attempt(store: Path, last: int, kind: str) -> int:
    """Convert in another process; return its exit code."""
    with forked(convert, store, last, kind) as process:
        return ended(process)


def record(store: Path) -> None:
    torch.set_num_threads(1)
    Training().recorded(store, 24, 4, kind="replay", preflight=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["dense", "hybrid"])
def test_kills_change_no_file(tmp_path: Path, kind: str) -> None:
    rng = random.Random(2)
    with forked(record, tmp_path / "whole") as process:
        assert ended(process) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "killed")
    assert attempt(tmp_path / "whole", 0, kind) == 0
    events = int((tmp_path / "whole.events").read_text())
    killed = sum(attempt(tmp_path / "killed", rng.randint(1, events // 3), kind) == -signal.SIGKILL for _ in range(5))
    assert killed >= 3
    assert attempt(tmp_path / "killed", 0, kind) == 0
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert json.loads((tmp_path / "killed.json").read_text()) == whole
    assert open_updates(str(tmp_path / "killed")).kind == kind
