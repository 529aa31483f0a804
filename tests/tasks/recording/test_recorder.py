"""A recorded training is the unrecorded one, and every step of it comes back bit for bit."""

import hashlib
import inspect
import json
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from storage.documents import digest
from storage.stores import open_store
from storage.updates.archives import find_archives
from storage.verify import verify_stage
from tasks.recording import UpdateRecorder, open_updates
from tests.tasks.recording.conftest import LAYERS, Training, ids, same, small_net
from tests.tasks.recording.recordings import OPTIMIZERS, STEPS, check_archive


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
    records = [json.loads(file.read_text()) for file in sorted((tmp_path / "store").glob("updates/*/markers/00*.json"))]
    assert [record["numbers"]["recording"]["stop"] for record in records] == [7, 9]
    for record in records:
        recording, environment = record["numbers"]["recording"], record["numbers"]["environment"]
        assert environment["torch"] == torch.__version__
        assert environment["threads"] == torch.get_num_threads()
        assert environment["device"] == "cpu"
        assert {"python", "deterministic", "matmul_precision", "instructions"} <= set(environment)
        code = record["numbers"]["code"]
        assert code["container.py"] == digest(Path(inspect.getfile(nn.Sequential)).read_bytes())
        assert record["numbers"]["data"] is None
        assert recording["waited_seconds"] >= 0
        inside = [name for name in record["files"] if name.startswith(recording["folder"])]
        (stage,) = (tmp_path / "store").glob("updates/*")
        sizes = sum((stage / "files" / name).stat().st_size for name in inside)
        assert (recording["files"], recording["bytes"]) == (len(inside), sizes)


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
    with pytest.raises(
        ValueError,
        match=r"module '1': expected parameters of modules that can be recorded .* those of a PReLU: weight; .*"
        r"layers: \[0\.0, 0\.3, 0\.6, 0\.8\]$",
    ):
        training.recorded(tmp_path / "store", 2)
    training.recorded(tmp_path / "store", 2, layers=["0.6"])
    assert open_updates(str(tmp_path / "store")).layers == ["0.6"]
    check_archive(tmp_path / "store", training)
