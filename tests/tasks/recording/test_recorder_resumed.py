"""A recorded training that failed goes on bit for bit, with the random numbers and settings that it had."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from storage.documents import DamagedError
from storage.partitions import Partition
from storage.stores import StoreError
from tasks.recording import UpdateRecorder, open_updates
from tests.tasks.recording.conftest import Interruption, Training, file_digests, same
from tests.tasks.recording.recordings import OPTIMIZERS, STEPS


def emptied(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "fail_at"), [*((name, 9) for name in OPTIMIZERS), *(("adam", step) for step in (0, 6, 7, 16))]
)
def test_a_training_that_failed_goes_on_bitwise(tmp_path: Path, name: str, fail_at: int) -> None:
    whole, halting = tmp_path / "whole", tmp_path / "halting"
    expected = Training(OPTIMIZERS[name]).recorded(whole, STEPS)
    with pytest.raises(Interruption):
        Training(OPTIMIZERS[name]).recorded(halting, STEPS, fail_at=fail_at)
    assert same(Training(OPTIMIZERS[name]).recorded(halting, STEPS), expected)
    assert file_digests(halting) == file_digests(whole)


def test_an_exception_leaves_the_archive_open(tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        Training().recorded(tmp_path / "store", STEPS, fail_at=9)
    with pytest.raises(
        StoreError, match=r"found one of .* steps that is not; go on with its training and close the recorder"
    ):
        open_updates(str(tmp_path / "store"))
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=7)
    assert recorder.first_step == 7
    assert len(list((tmp_path / "store").glob("updates/*/files/segment-*"))) == 1  # the abandoned attempt is swept
    recorder.close()


@pytest.mark.parametrize(
    ("change", "found"), [(Path.unlink, "last checkpoint, found none"), (emptied, "found another")]
)
def test_a_lost_or_damaged_checkpoint_is_named(tmp_path: Path, change: Callable[[Path], object], found: str) -> None:
    with pytest.raises(Interruption):
        Training().recorded(tmp_path / "store", STEPS, fail_at=9)
    (last,) = (tmp_path / "store").glob("updates/*/files/checkpoint-000000-*")
    change(last)
    model, optimizer = Training().start()
    with pytest.raises(DamagedError, match=rf"^updates/.*/files/{last.name}: expected .*{found}$"):
        UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=7)


def test_random_numbers_and_group_settings_are_restored(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "s", checkpoint_every=2)
    for step in range(3):
        with recorder.step([step]):
            Training().update(model, optimizer, step)
            optimizer.param_groups[0]["lr"] *= 0.5
            if step == 1:
                expected = torch.get_rng_state()
    del recorder
    model, optimizer = Training().start()
    torch.manual_seed(99)
    with UpdateRecorder(model, optimizer, tmp_path / "s", checkpoint_every=2) as recorder:
        assert recorder.first_step == 2
        assert torch.equal(torch.get_rng_state(), expected)
        assert optimizer.param_groups[0]["lr"] == 0.05 / 4


def master_weights(model: nn.Module) -> torch.optim.Optimizer:
    """SGD that keeps float32 copies of narrower weights."""

    class Master(torch.optim.Optimizer):
        @torch.no_grad()
        def step(self, closure: object = None) -> None:  # type: ignore[override]  # torch's stub
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    state.setdefault("master", p.detach().float().clone()).sub_(p.grad.float(), alpha=group["lr"])
                    p.copy_(state["master"])

    return Master(model.parameters(), {"lr": 0.01})


@pytest.mark.parametrize(
    ("optimize", "dtype"),
    [(master_weights, torch.bfloat16), (lambda m: torch.optim.NAdam(m.parameters(), lr=0.01), torch.float64)],
)
def test_state_wider_or_narrower_than_the_weights_goes_on_bitwise(
    tmp_path: Path, optimize: Callable[[nn.Module], torch.optim.Optimizer], dtype: torch.dtype
) -> None:
    expected = Training(optimize, dtype=dtype).plain(40)
    with pytest.raises(Interruption):
        Training(optimize, dtype=dtype).recorded(tmp_path / "store", 40, 10, fail_at=25)
    assert same(Training(optimize, dtype=dtype).recorded(tmp_path / "store", 40, 10), expected)


def scheduled(store: Path, *, by_step: bool, fail_at: int = -1) -> list[float]:
    """Train with a rate that halves every 6 steps, set from the step's number or by a scheduler; return all rates."""
    training = Training()
    model, optimizer = training.start()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 6, 0.5)
    with UpdateRecorder(model, optimizer, store, checkpoint_every=7) as recorder:
        for step in range(recorder.first_step, STEPS):
            with recorder.step([step]):
                if step == fail_at:
                    raise Interruption
                if by_step:
                    optimizer.param_groups[0]["lr"] = 0.05 * 0.5 ** (step // 6)
                training.update(model, optimizer, step)
                if not by_step:
                    scheduler.step()
    return open_updates(str(store)).ledger["lr"].tolist()


def test_a_rate_set_from_the_step_goes_on_and_a_scheduler_begins_again(tmp_path: Path) -> None:
    rates = [0.05 * 0.5 ** (step // 6) for step in range(STEPS)]
    for by_step in (True, False):
        store = tmp_path / str(by_step)
        with pytest.raises(Interruption):
            scheduled(store, by_step=by_step, fail_at=9)
        assert (scheduled(store, by_step=by_step) == rates) == by_step


def test_another_environment_is_not_gone_on_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interruption):
        Training().recorded(tmp_path / "store", STEPS, fail_at=9)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        text = f"expected matmul_precision {before}, as in the archive's first run, found medium; go on in that"
        with pytest.raises(StoreError, match=text):
            Training().recorded(tmp_path / "store", STEPS)
    finally:
        torch.set_float32_matmul_precision(before)
    monkeypatch.setattr("platform.python_version", lambda: "3.99")  # no bit depends on it
    assert same(Training().recorded(tmp_path / "store", STEPS), Training().plain(STEPS))


@pytest.mark.parametrize("kind", ["dense", "hybrid", "replay"])
def test_a_forgotten_recorder_frees_the_archive_at_once(tmp_path: Path, kind: str) -> None:
    model, optimizer = Training().start()
    gc.collect()
    gc.disable()
    try:
        recorder = UpdateRecorder(model, optimizer, tmp_path / "store", kind=kind, checkpoint_every=2)
        for step in range(3):
            with recorder.step([step]):
                Training().update(model, optimizer, step)
        del recorder
        assert UpdateRecorder(model, optimizer, tmp_path / "store", kind=kind, checkpoint_every=2).first_step == 2
    finally:
        gc.enable()


def test_an_error_of_the_writing_thread_reaches_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Partition, name: str, data: bytes | memoryview, *, checked: bool = False) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Partition, "write_large", fail)
    with pytest.raises(OSError, match="disk full"):
        Training().recorded(tmp_path / "store", 7)
    monkeypatch.undo()
    assert same(Training().recorded(tmp_path / "store", 7), Training().plain(7))
