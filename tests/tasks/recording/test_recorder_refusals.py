"""What a recorder refuses: archives that are finished or of another recording, and what it cannot record."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from storage.claims import StageHeldError
from storage.documents import DamagedError
from storage.stores import StoreError
from tasks.recording import UpdateRecorder, open_updates
from tests.tasks.recording.conftest import Interruption, Training
from tests.tasks.recording.recordings import STEPS


def test_a_finished_archive_refuses(tmp_path: Path) -> None:
    Training().recorded(tmp_path / "store", 3)
    with pytest.raises(
        StoreError,
        match="expected an unfinished archive, found a finished one of 3 steps; read it, or record elsewhere",
    ):
        Training().recorded(tmp_path / "store", 3)
    with pytest.raises(StoreError, match="finished"):
        Training().recorded(tmp_path / "store", 3, layers=["0"])


def test_an_unfinished_archive_of_another_recording_refuses(tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        Training().recorded(tmp_path / "store", 3, fail_at=1)
    with pytest.raises(StoreError, match="found one with checkpoint_every 7, here 5; record elsewhere"):
        Training().recorded(tmp_path / "store", 3, every=5)
    with pytest.raises(StoreError, match="found one with layers 0, 3, 6, 8, here 0, 8"):
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


def test_a_step_that_failed_and_was_caught_ends_the_recording(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    with pytest.raises(Interruption), recorder.step([0]):
        raise Interruption
    with pytest.raises(RuntimeError, match="a step ended with an exception; make a new recorder"), recorder.step([0]):
        pass
    with pytest.raises(RuntimeError, match="a step ended with an exception"):
        recorder.close()
    with pytest.raises(RuntimeError, match="recorder: expected an open one, found it closed"), recorder.step([0]):
        pass
    assert not list((tmp_path / "store").glob("updates/*/markers/*"))


def test_no_step_is_no_archive(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    with pytest.raises(StoreError, match="expected a recorded step, found none"):
        recorder.close()
    recorder.close()


@pytest.mark.parametrize("kind", ["float8", "Dense", ""])
def test_a_kind_that_is_not_there_lists_what_is(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match=rf"^kind: expected one of auto, dense, .*replay, found '{kind}'$"):
        UpdateRecorder(*Training().start(), tmp_path / "store", kind=kind)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("tolerance", [-1e-3, float("nan"), 1.0, "x", None])
def test_a_tolerance_is_a_share(tmp_path: Path, tolerance: Any) -> None:
    with pytest.raises(ValueError, match=rf"^tolerance: expected a number from 0 to below 1, found {tolerance!r}$"):
        UpdateRecorder(*Training().start(), tmp_path / "store", kind="hybrid", tolerance=tolerance)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("every", [0, 2.5, True, "x"])
def test_checkpoints_come_at_least_every_step(tmp_path: Path, every: Any) -> None:
    with pytest.raises(ValueError, match=f"^checkpoint_every: expected an integer of at least 1, found {every!r}$"):
        UpdateRecorder(*Training().start(), tmp_path / "store", checkpoint_every=every)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"model": 5}, "model: expected a torch.nn.Module, found int"),
        ({"optimizer": 5}, "optimizer: expected a torch.optim.Optimizer, found int"),
        ({"program": 5}, "program: expected a function that returns model, optimizer and step, found int"),
        ({"layers": [0]}, "layers: expected names of modules, found 0"),
        ({"layers": 5}, "layers: expected a list of names of modules, found 5"),
        ({"layers": "6"}, "layers: expected a list of names of modules, found '6'; write layers=['6']"),
    ],
)
def test_an_argument_of_another_type_is_named(tmp_path: Path, given: dict[str, Any], text: str) -> None:
    model, optimizer = Training().start()
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        UpdateRecorder(**{"model": model, "optimizer": optimizer, "store": tmp_path / "store", **given})
    assert not (tmp_path / "store").exists()


def sparse(model: nn.Module) -> None:
    last = model.get_submodule("8")
    last.weight = nn.Parameter(model.get_parameter("8.weight").detach().to_sparse())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (sparse, "'8.weight' as a dense tensor with values, found one of layout torch.sparse_coo"),
        (lambda model: model.to("meta"), "'0.weight' as a dense tensor with values, found one on the meta device"),
    ],
)
def test_a_tensor_that_no_checkpoint_can_hold_is_named(
    tmp_path: Path, change: Callable[[nn.Module], object], text: str
) -> None:
    model, _ = Training().start()
    change(model)
    with pytest.raises(ValueError, match=f"^model: expected {text}$"):
        UpdateRecorder(model, torch.optim.SGD(model.parameters(), lr=0.1), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_an_optimiser_of_another_model_is_refused(tmp_path: Path) -> None:
    (model, _), (_, optimizer) = Training().start(), Training().start()
    text = "optimizer: expected an optimizer of the recorded model, found one that holds none of its parameters"
    with pytest.raises(
        ValueError, match=f"^{text}; one of copies, such as float32 master weights, cannot be recorded$"
    ):
        UpdateRecorder(model, optimizer, tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("layers", [None, ["0", "3"]])  # some recorded layers are frozen, or all
def test_frozen_layers_may_be_outside_the_optimiser(tmp_path: Path, layers: list[str] | None) -> None:
    training = Training(lambda model: torch.optim.SGD(model.get_submodule("8").parameters(), lr=0.1))
    training.recorded(tmp_path / "store", 2, layers=layers)
    source = open_updates(str(tmp_path / "store"))
    assert torch.equal(source.initial("0"), source.final("0"))
    assert source.steps == 2


class NoRate(torch.optim.Optimizer):
    """An optimiser that calls its rate something else."""

    def __init__(self, parameters: Any) -> None:  # Any: torch's own
        super().__init__(parameters, {"eta": 0.1})


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NoRate, "optimizer: expected 'lr' in each group, .* in group 0 of NoRate"),
        (torch.optim.LBFGS, "expected steps of the length 'lr', .* found LBFGS"),
    ],
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
    (record,) = (tmp_path / "store").glob("updates/*/markers/000001.json")
    record.unlink()
    with pytest.raises(
        DamagedError, match=r"markers/000001\.json: expected a partition record of a complete stage, found none$"
    ):
        open_updates(str(tmp_path / "store"))


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ([0.5], TypeError, "expected integer ids, found float64"),
        (["a"], TypeError, "<U1"),
        ([2**63], ValueError, "expected ids up to 9223372036854775807, the largest int64, found 9223372036854775808"),
        (np.array([1, 2**64 - 1], np.uint64), ValueError, "found 18446744073709551615"),
    ],
)
def test_ids_are_integers(tmp_path: Path, given: list[object], error: type[Exception], text: str) -> None:
    recorder = UpdateRecorder(*Training().start(), tmp_path / "store")
    with pytest.raises(error, match=f"examples: .*{text}"), recorder.step(given):  # type: ignore[arg-type]  # on purpose
        pass
