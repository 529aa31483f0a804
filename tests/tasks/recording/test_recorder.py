import hashlib
import inspect
import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from storage.claims import StageHeldError
from storage.documents import DamagedError, digest
from storage.partitions import Partition
from storage.stores import StoreError, open_store
from storage.updates.archives import find_archives
from storage.verify import verify_stage
from tasks.recording import UpdateRecorder, open_updates
from tests.tasks.recording.conftest import LAYERS, Interruption, Training, file_digests, ids, momentum, same, small_net

STEPS = 17


def restored(store: Path, layer: str) -> list[tuple[int, torch.Tensor, torch.Tensor | None]]:
    """Return (step, weight, bias) after every step, read back."""
    source, found = open_updates(str(store)), []
    for segment in source.segments():
        for block in source.blocks(segment, [layer]):
            biases = block.biases
            for row, step in enumerate(block.steps, 1):
                found.append((int(step), block.weights[row], None if biases is None else biases[row]))
    return found


def check_archive(store: Path, training: Training) -> None:
    """Compare every step's weights with the copies that the loop kept, bit for bit."""
    source = open_updates(str(store))
    for layer in source.layers:
        steps = restored(store, layer)
        assert [step for step, *_ in steps] == list(range(source.steps))
        for step, weight, bias in steps:
            state = training.states[step + 1]
            assert torch.equal(weight, state[f"{layer}.weight"]), (layer, step)
            assert bias is None or torch.equal(bias, state[f"{layer}.bias"]), (layer, step)
        for state, first, second in (
            (training.states[0], source.initial, source.initial_bias),
            (training.states[-1], source.final, source.final_bias),
        ):
            assert torch.equal(first(layer), state[f"{layer}.weight"])
            bias = second(layer)
            assert (bias is None) == (f"{layer}.bias" not in state)
            assert bias is None or torch.equal(bias, state[f"{layer}.bias"])


@pytest.mark.parametrize("every", [1, 7, 17, 40])
def test_weights_come_back_bitwise_and_training_is_unchanged(tmp_path: Path, every: int) -> None:
    plain, training = Training().plain(STEPS), Training()
    assert same(training.recorded(tmp_path / "store", STEPS, every), plain)
    check_archive(tmp_path / "store", training)
    store = open_store(str(tmp_path / "store"))
    assert [list(verify_stage(store, path)) for path in find_archives(store)] == [[]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_widths_come_back_bitwise(tmp_path: Path, dtype: torch.dtype) -> None:
    training = Training(dtype=dtype)
    training.recorded(tmp_path / "store", 5)
    check_archive(tmp_path / "store", training)
    block = next(
        iter(open_updates(str(tmp_path / "store")).blocks(open_updates(str(tmp_path / "store")).segments()[0]))
    )
    before, after = (training.states[step]["0.weight"] for step in (0, 1))
    wide = torch.promote_types(dtype, torch.float32)
    assert torch.equal(block.dense()[0], after.to(wide) - before.to(wide))
    assert torch.equal(block.dense(torch.float64)[0], after.double() - before.double())


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
    "momentum": momentum,
    "nesterov": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda model: torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=1e-3),
    "adamw": lambda model: torch.optim.AdamW(model.parameters(), lr=0.01),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_sum_to_the_change_of_the_weights(tmp_path: Path, name: str) -> None:
    training = Training(OPTIMIZERS[name])
    training.recorded(tmp_path / "store", STEPS)
    source = open_updates(str(tmp_path / "store"))
    for layer in LAYERS:
        blocks = [block for segment in source.segments() for block in source.blocks(segment, [layer])]
        total = torch.cat([block.dense(torch.float64) for block in blocks]).sum(0)
        change = training.states[-1][f"{layer}.weight"].double() - training.states[0][f"{layer}.weight"].double()
        assert change.abs().max() > 0.01
        np.testing.assert_allclose(total.numpy(), change.numpy(), rtol=0, atol=1e-12)
        rounded = torch.cat([block.dense() for block in blocks]).sum(0)
        np.testing.assert_allclose(rounded.numpy(), change.numpy(), rtol=0, atol=2e-6)


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
    with pytest.raises(StoreError, match="it is not finished: go on with the same recorder and close it"):
        open_updates(str(tmp_path / "store"))
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=7)
    assert recorder.first_step == 7
    assert len(list((tmp_path / "store").glob("updates/*/files/segment-*"))) == 1  # the abandoned attempt is swept
    recorder.close()


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
        text = f"the archive was begun with matmul_precision {before}, here it is medium; go on as it was begun, or rec"
        with pytest.raises(StoreError, match=text):
            Training().recorded(tmp_path / "store", STEPS)
    finally:
        torch.set_float32_matmul_precision(before)
    monkeypatch.setattr("platform.python_version", lambda: "3.99")  # no bit depends on it
    assert same(Training().recorded(tmp_path / "store", STEPS), Training().plain(STEPS))


def test_a_finished_archive_refuses(tmp_path: Path) -> None:
    Training().recorded(tmp_path / "store", 3)
    with pytest.raises(StoreError, match="its archive of 3 steps is finished; read it, or record elsewhere"):
        Training().recorded(tmp_path / "store", 3)
    with pytest.raises(StoreError, match="finished"):
        Training().recorded(tmp_path / "store", 3, layers=["0"])


def test_an_unfinished_archive_of_another_recording_refuses(tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        Training().recorded(tmp_path / "store", 3, fail_at=1)
    with pytest.raises(StoreError, match="with other settings: checkpoint_every 7 there, 5 here; record elsewhere"):
        Training().recorded(tmp_path / "store", 3, every=5)
    with pytest.raises(StoreError, match="with other settings: layers 0, 3, 6, 8 there, 0, 8 here"):
        Training().recorded(tmp_path / "store", 3, layers=["0", "8"])


def test_two_recorders_cannot_write_one_archive(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    with UpdateRecorder(model, optimizer, tmp_path / "store") as recorder:
        with pytest.raises(StageHeldError, match="is held by a recorder"):
            UpdateRecorder(model, optimizer, tmp_path / "store")
        with recorder.step([0]):
            pass
    with pytest.raises(StoreError, match="finished"):
        UpdateRecorder(model, optimizer, tmp_path / "store")


def test_a_forgotten_recorder_frees_the_archive(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    with recorder.step([0]):
        pass
    del recorder
    assert UpdateRecorder(model, optimizer, tmp_path / "store").first_step == 0


def test_recording_draws_no_random_number_and_leaves_no_hook(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    np.random.seed(0)  # the legacy generator is what must not be touched
    states = torch.get_rng_state(), random.getstate(), hashlib.sha256(np.random.get_state()[1].tobytes()).digest()  # type: ignore[index]
    hooks = [len(vars(module)[name]) for module in model.modules() for name in vars(module) if "hooks" in name]
    with UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=1) as recorder:
        for _ in range(2):
            with recorder.step([0]):
                pass
    after = torch.get_rng_state(), random.getstate(), hashlib.sha256(np.random.get_state()[1].tobytes()).digest()  # type: ignore[index]
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]
    assert hooks == [len(vars(module)[name]) for module in model.modules() for name in vars(module) if "hooks" in name]
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_the_ledger_tells_every_step(tmp_path: Path) -> None:
    training = Training()
    training.recorded(tmp_path / "store", STEPS)
    source = open_updates(str(tmp_path / "store"))
    ledger = source.ledger
    assert source.steps == STEPS
    assert ledger["step"].tolist() == list(range(STEPS))
    assert ledger["label"].tolist() == [step % 3 for step in range(STEPS)]
    assert ledger["epoch"].tolist() == [step // 5 for step in range(STEPS)]
    assert ledger["lr"].tolist() == [0.05] * STEPS
    assert [found.tolist() for found in source.examples] == [ids(step) for step in range(STEPS)]
    assert [found.tolist() for found in source.ghosts] == [[step] for step in range(STEPS)]
    assert source.recorded.tolist() == [True] * STEPS
    model, optimizer = Training().start()
    again = [float(Training().update(model, optimizer, step).detach()) for step in range(STEPS)]
    assert ledger["loss"].tolist() == again
    for step, norm in enumerate(ledger["norm/6"]):
        before, after = (training.states[step + k]["6.weight"].double() for k in (0, 1))
        assert norm == pytest.approx(float((after - before).norm()), rel=1e-12)


def test_the_rate_is_the_one_that_the_step_used(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    groups: list[dict[str, Any]] = [{"params": [model.weight]}, {"params": [model.bias], "lr": 0.3}]  # Any: torch's own
    optimizer = torch.optim.SGD(groups, lr=0.8)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with UpdateRecorder(model, optimizer, tmp_path / "store") as recorder:
        for step in range(3):
            with recorder.step([step]) as row:
                model(torch.ones(1, 2)).sum().backward()
                optimizer.step()
                scheduler.step()
                row.clip, row.augmentation = 0.25, 12
    ledger = open_updates(str(tmp_path / "store")).ledger
    assert ledger["lr"].tolist() == [0.8, 0.4, 0.2]
    assert ledger["lrs"][1].tolist() == [0.4, 0.15]
    assert ledger["clip"].tolist() == [0.25] * 3
    assert ledger["augmentation"].tolist() == [12] * 3
    assert ledger["loss"].isna().all()
    assert open_updates(str(tmp_path / "store")).layers == [""]


def test_markers_state_the_environment_and_the_waiting(tmp_path: Path) -> None:
    Training().recorded(tmp_path / "store", 9)
    markers = [json.loads(file.read_text()) for file in sorted((tmp_path / "store").glob("updates/*/markers/00*.json"))]
    assert [marker["numbers"]["recording"]["stop"] for marker in markers] == [7, 9]
    for marker in markers:
        recording, environment = marker["numbers"]["recording"], marker["numbers"]["environment"]
        assert environment["torch"] == torch.__version__
        assert environment["threads"] == torch.get_num_threads()
        assert environment["device"] == "cpu"
        assert {"python", "deterministic", "matmul_precision", "instructions"} <= set(environment)
        code = marker["numbers"]["code"]
        assert code["container.py"] == digest(Path(inspect.getfile(nn.Sequential)).read_bytes())
        assert marker["numbers"]["data"] is None
        assert recording["waited_seconds"] >= 0
        inside = [name for name in marker["files"] if name.startswith(recording["folder"])]
        (stage,) = (tmp_path / "store").glob("updates/*")
        sizes = sum((stage / "files" / name).stat().st_size for name in inside)
        assert (recording["files"], recording["bytes"]) == (len(inside), sizes)


def test_a_step_that_failed_and_was_caught_ends_the_recording(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    with pytest.raises(Interruption), recorder.step([0]):
        raise Interruption
    with pytest.raises(RuntimeError, match="a step ended with an exception: make a new recorder"), recorder.step([0]):
        pass
    with pytest.raises(RuntimeError, match="a step ended with an exception"):
        recorder.close()
    with pytest.raises(RuntimeError, match="the recorder is closed"), recorder.step([0]):
        pass
    assert not list((tmp_path / "store").glob("updates/*/markers/*"))


def test_an_error_of_the_writing_thread_reaches_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Partition.write_file

    def fail(self: Partition, name: str, data: bytes | memoryview) -> None:
        if "/c/" in name:
            raise OSError("disk full")
        write(self, name, data)

    monkeypatch.setattr(Partition, "write_file", fail)
    with pytest.raises(OSError, match="disk full"):
        Training().recorded(tmp_path / "store", 7)
    monkeypatch.undo()
    assert same(Training().recorded(tmp_path / "store", 7), Training().plain(7))


def test_no_step_is_no_archive(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    with pytest.raises(StoreError, match="no step was recorded"):
        recorder.close()
    recorder.close()


@pytest.mark.parametrize("kind", ["replay", "hybrid", "Dense", ""])
def test_a_kind_that_is_not_there_lists_what_is(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"^kind '{kind}' of archive is not there; there are auto, dense$"):
        UpdateRecorder(*Training().start(), tmp_path / "store", kind=kind)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("every", [0, 2.5, True])
def test_checkpoints_come_at_least_every_step(tmp_path: Path, every: int) -> None:
    with pytest.raises(ValueError, match=f"checkpoint_every: {every} steps, a whole number of at least 1 expected"):
        UpdateRecorder(*Training().start(), tmp_path / "store", checkpoint_every=every)
    assert not (tmp_path / "store").exists()


class NoRate(torch.optim.Optimizer):
    """An optimiser that calls its rate something else."""

    def __init__(self, parameters: Any) -> None:  # Any: torch's own
        super().__init__(parameters, {"eta": 0.1})


@pytest.mark.parametrize(
    ("kind", "text"),
    [(NoRate, "optimizer: group 0 of NoRate has no 'lr'"), (torch.optim.LBFGS, "LBFGS keeps lists of tensors")],
)
def test_an_optimiser_that_cannot_be_recorded_is_refused_at_once(
    tmp_path: Path, kind: type[torch.optim.Optimizer], text: str
) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=text):
        UpdateRecorder(model, kind(model.parameters()), tmp_path / "store")  # type: ignore[call-arg]  # both take them
    assert not (tmp_path / "store").exists()


def test_a_lost_marker_of_a_finished_archive_is_damage(tmp_path: Path) -> None:
    Training().recorded(tmp_path / "store", STEPS)
    (marker,) = (tmp_path / "store").glob("updates/*/markers/000001.json")
    marker.unlink()
    with pytest.raises(DamagedError, match=r"markers/000001\.json: missing, though its stage is complete$"):
        open_updates(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ([0.5], TypeError, "integer ids expected, got float64"),
        (["a"], TypeError, "<U1"),
        ([2**63], ValueError, "id 9223372036854775808 is beyond 9223372036854775807, the largest that an int64 holds"),
        (np.array([1, 2**64 - 1], np.uint64), ValueError, "id 18446744073709551615 is beyond"),
    ],
)
def test_ids_are_integers(tmp_path: Path, given: list[object], error: type[Exception], text: str) -> None:
    recorder = UpdateRecorder(*Training().start(), tmp_path / "store")
    with pytest.raises(error, match=f"examples: .*{text}"), recorder.step(given):  # type: ignore[arg-type]  # on purpose
        pass


def test_a_store_that_is_no_local_folder(tmp_path: Path) -> None:
    url, training = f"memory://bucket/{tmp_path.name}", Training()
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, url, checkpoint_every=2) as recorder:
        for step in range(3):
            with recorder.step(np.array([step])):
                training.update(model, optimizer, step)
    source = open_updates(url)
    assert torch.equal(source.final("6"), training.states[-1]["6.weight"])
    block = list(source.blocks(source.segments()[1], ["6"]))[-1]
    assert torch.equal(block.dense()[0], training.states[3]["6.weight"] - training.states[2]["6.weight"])


def test_only_named_layers_are_kept(tmp_path: Path) -> None:
    training = Training(build=partial(nn.Sequential, small_net(), nn.PReLU(1)))
    with pytest.raises(ValueError, match=r"module '1' \(PReLU\) has parameters that cannot be recorded"):
        training.recorded(tmp_path / "store", 2)
    training.recorded(tmp_path / "store", 2, layers=["0.6"])
    assert open_updates(str(tmp_path / "store")).layers == ["0.6"]
    check_archive(tmp_path / "store", training)
