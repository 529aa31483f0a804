"""A long replay archive keeps some of its checkpoints, and is read from them; kills do not change which."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from storage.stages import find_finished
from storage.stores import open_store
from storage.updates import archives
from storage.verify import verify_stages
from tasks.recording import ReplayMismatch, digests, open_updates
from tests.forked import ended, forked
from tests.tasks.recording.conftest import LAYERS, Training, file_digests
from tests.tasks.recording.test_kills import watch
from tests.tasks.recording.test_replay import check_replay

STEPS, EVERY, MOST = 38, 2, 4  # 19 segments, of which every fourth checkpoint is kept


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_CHECKPOINTS", MOST)


def checkpoints(store: Path) -> list[int]:
    """Return the segments after which a checkpoint is kept."""
    return sorted(int(file.name.split("-")[1]) for file in store.glob("updates/*/files/checkpoint-*"))


@pytest.mark.usefixtures("few")
def test_a_thinned_archive_is_the_training(tmp_path: Path) -> None:
    training = Training()
    training.recorded(tmp_path / "store", STEPS, EVERY, kind="replay")
    assert checkpoints(tmp_path / "store") == [3, 7, 11, 15, 17, 18]
    check_replay(tmp_path / "store", training)
    source = open_updates(str(tmp_path / "store"), program=training.program)
    assert [(s.start, s.stop) for s in source.segments()] == [(0, 8), (8, 16), (16, 24), (24, 32), (32, 38)]
    assert source.ledger["step"].tolist() == list(range(STEPS))
    opened = open_store(str(tmp_path / "store"))
    (path,) = archives.find_archives(opened)
    assert [list(lines) for lines in verify_stages(opened, [path])] == [[]]
    stage = find_finished(opened, path)
    assert stage is not None
    assert sum(name.startswith("checkpoint-") for name in stage.note["files"]) == 6


@pytest.mark.usefixtures("few")
def test_other_kinds_keep_every_checkpoint(tmp_path: Path) -> None:
    for kind in ("dense", "hybrid"):
        Training().recorded(tmp_path / kind, STEPS, EVERY, kind=kind)
        assert checkpoints(tmp_path / kind) == list(range(19))


def record(store: Path, last: int) -> None:
    """Record until the end or the event of a number, with few checkpoints; write the files' digests."""
    torch.set_num_threads(1)
    archives.MOST_CHECKPOINTS = MOST
    events, remove, unlink = watch(last), Path.unlink, Path.unlink

    def removed(file: Path, missing_ok: bool = False) -> None:
        remove(file, missing_ok=missing_ok)
        if next(events) == last:  # a kill between two removals too
            os.kill(os.getpid(), signal.SIGKILL)

    Path.unlink = removed  # type: ignore[method-assign,assignment]  # of this process alone
    Training().recorded(store, STEPS, EVERY, kind="replay", preflight=False)
    Path.unlink = unlink  # type: ignore[method-assign]
    Path(f"{store}.json").write_text(json.dumps(file_digests(store)))
    Path(f"{store}.events").write_text(str(next(events) - 1))


def attempt(store: Path, last: int = 0) -> int:
    """Record in another process; return its exit code."""
    with forked(record, store, last) as process:
        return ended(process)


@pytest.mark.timeout(300)
def test_kills_change_neither_files_nor_steps(tmp_path: Path) -> None:
    rng = random.Random(1)
    assert attempt(tmp_path / "whole") == 0
    segment = int((tmp_path / "whole.events").read_text()) * EVERY // STEPS
    killed = 0
    for _ in range(8):
        killed += attempt(tmp_path / "killed", rng.randint(1, 3 * segment)) == -signal.SIGKILL
    assert killed >= 5
    assert attempt(tmp_path / "killed") == 0
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert json.loads((tmp_path / "killed.json").read_text()) == whole
    assert checkpoints(tmp_path / "killed") == [3, 7, 11, 15, 17, 18]


@pytest.mark.usefixtures("few")
def test_a_lost_record_goes_back_to_a_checkpoint_that_is_there(tmp_path: Path) -> None:
    """Without its last records an archive goes on from the last checkpoint that was not removed."""
    store, training = tmp_path / "store", Training()
    training.recorded(store, STEPS, EVERY, kind="replay", preflight=False)
    whole = file_digests(store)
    (stage,) = store.glob("updates/*")
    for name in ("complete", "000018", "000017"):
        (stage / "markers" / f"{name}.json").unlink()
    shutil.copytree(store, tmp_path / "other")
    for copy in (store, tmp_path / "other"):
        Training().recorded(copy, STEPS, EVERY, kind="replay", preflight=False)
        assert file_digests(copy) == whole
        assert checkpoints(copy) == [3, 7, 11, 15, 17, 18]


@pytest.mark.parametrize("size", [1e-6, 1e-3])
def test_a_mismatch_says_how_far_the_weights_are(tmp_path: Path, size: float) -> None:
    """A planted drift of a known size, in a step after a checkpoint, is measured within a factor of four."""
    training = Training()
    training.recorded(tmp_path / "store", 12, kind="replay")
    planted: list[float] = []

    class Drifting(Training):
        def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
            loss = super().update(model, optimizer, step)
            if step == 9:
                weight = model.get_parameter("6.weight")
                push = torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)) * size
                with torch.no_grad():
                    before = weight.clone()
                    weight.add_(push)
                    planted.append(float((weight.double() - before.double()).norm()))
            return loss

    drifting = Drifting()
    source = open_updates(str(tmp_path / "store"), program=drifting.program)
    with pytest.raises(ReplayMismatch, match=r"^step 9, layer '6': .* away by about \S+ of the update;") as caught:
        list(source.blocks(source.segments()[1], LAYERS))
    update = training.states[10]["6.weight"].double() - training.states[9]["6.weight"].double()
    bias = training.states[10]["6.bias"].double() - training.states[9]["6.bias"].double()
    truth = planted[0] / float(torch.cat([update.flatten(), bias]).norm())
    assert truth / 4 < caught.value.drift < 4 * truth


@pytest.mark.parametrize(
    ("steps", "samples"), [(1, 2**24), (16, 2**24), (17, 2**24), (40, 2**24), (40, 1), (40, 10_000)]
)
def test_norms_and_probes_are_those_of_each_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, samples: int
) -> None:
    """They are computed for some rows together, as many as have so many bytes of samples, at most 16."""
    monkeypatch.setattr(digests, "SAMPLES", samples)
    Training().recorded(tmp_path / "store", steps, 25, kind="replay")
    ledger = open_updates(str(tmp_path / "store")).ledger
    training = Training()
    training.plain(steps)
    for layer in LAYERS:
        expected = np.zeros((steps, 4))
        parts = [part for part in ("weight", "bias") if f"{layer}.{part}" in training.states[0]]
        for number, part in enumerate(parts):
            states = np.stack([state[f"{layer}.{part}"].double().flatten().numpy() for state in training.states])
            moved = np.diff(states, axis=0)
            signs = np.random.default_rng([20220222, number]).integers(0, 2, (4, moved.shape[1])) * 2 - 1
            expected += (moved[:, None] * signs).sum(axis=2)
            if part == "weight":
                np.testing.assert_allclose(ledger[f"norm/{layer}"], np.sqrt((moved**2).sum(axis=1)), rtol=1e-12)
        found = np.stack(ledger[f"probes/{layer}"].to_list())
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_probes_are_projections_on_signs(tmp_path: Path) -> None:
    """Their mean square estimates the squared norm of an update; equal steps have equal probes."""
    for name in ("one", "two"):
        Training().recorded(tmp_path / name, 9, kind="replay")
    one, two = (open_updates(str(tmp_path / name)).ledger for name in ("one", "two"))
    for layer in ("3", "6"):
        probes = np.stack(one[f"probes/{layer}"].to_list())
        np.testing.assert_array_equal(probes, np.stack(two[f"probes/{layer}"].to_list()))
    ratio = np.sqrt(np.mean(np.square(np.stack(one["probes/3"].to_list())), axis=1)) / one["norm/3"]
    assert ratio.min() > 0.1
    assert ratio.max() < 2.5
