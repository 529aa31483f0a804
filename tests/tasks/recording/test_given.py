"""What a loop gives about a step: ids, label, epoch and loss are taken exactly, or refused."""

import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.recording import UpdateRecorder, open_updates
from tests.tasks.recording.conftest import Training

MOST = 2**63 - 1
INTEGERS = f"expected an integer from %d to {MOST}, found "
ONE = "row.loss: expected a number or a tensor of one number, found "


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"label": 1.5}, "label: " + INTEGERS % -1 + "1.5"),
        ({"label": -2}, "label: " + INTEGERS % -1 + "-2"),
        ({"label": 2**70}, "label: " + INTEGERS % -1 + str(2**70)),
        ({"label": "a"}, "label: " + INTEGERS % -1 + "'a'"),
        ({"label": None}, "label: " + INTEGERS % -1 + "None"),
        ({"label": math.nan}, "label: " + INTEGERS % -1 + "nan"),
        ({"label": True}, "label: " + INTEGERS % -1 + "True"),
        ({"label": torch.tensor(True)}, "label: " + INTEGERS % -1 + "True"),
        ({"label": torch.tensor(1.5)}, "label: " + INTEGERS % -1 + "1.5"),
        ({"label": torch.tensor([1, 2])}, "label: " + INTEGERS % -1 + "shape (2,)"),
        ({"label": np.float64(2)}, "label: " + INTEGERS % -1 + "2.0"),
        ({"epoch": 1.5}, "epoch: " + INTEGERS % 0 + "1.5"),
        ({"epoch": -1}, "epoch: " + INTEGERS % 0 + "-1"),
        ({"epoch": np.uint64(2**63)}, "epoch: " + INTEGERS % 0 + str(2**63)),
        ({"examples": []}, "examples: expected at least one id, found none"),
        ({"examples": torch.empty(0, dtype=torch.int64)}, "examples: expected at least one id, found none"),
        ({"examples": [[1, 2], [3, 4]]}, "examples: expected ids in one dimension, found shape (2, 2)"),
        ({"examples": torch.tensor(5)}, "examples: expected ids in one dimension, found shape ()"),
        ({"ghosts": torch.zeros(2, 1, dtype=torch.int32)}, "ghosts: expected ids in one dimension, found shape (2, 1)"),
    ],
)
def test_what_the_ledger_cannot_have_is_refused(tmp_path: Path, given: dict[str, Any], text: str) -> None:
    recorder = UpdateRecorder(*Training().start(), tmp_path / "store")
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"), recorder.step(**{"examples": [0], **given}):
        pytest.fail("the block may not run")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ([True], "examples: expected integer ids, found bool"),
        ({1, 2}, "examples: expected integer ids, found object"),
        ([[1], [2, 3]], "examples: expected integer ids in one dimension, found others: setting an array element"),
        (torch.ones(2, dtype=torch.bfloat16), "examples: expected integer ids in one dimension, found others: "),
    ],
)
def test_ids_of_another_type_are_refused(tmp_path: Path, given: Any, text: str) -> None:
    recorder = UpdateRecorder(*Training().start(), tmp_path / "store")
    with pytest.raises(TypeError, match=f"^{re.escape(text)}"), recorder.step(given):
        pytest.fail("the block may not run")


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        ("abc", "'abc'"),
        ("1.5", "'1.5'"),
        (None, "None"),
        (torch.ones(2), "shape (2,)"),
        (np.ones((3, 1)), "shape (3, 1)"),
        (1j, "1j"),
    ],
)
def test_a_loss_is_one_number(tmp_path: Path, loss: object, shown: str) -> None:
    recorder = UpdateRecorder(*Training().start(), tmp_path / "store")
    with pytest.raises(ValueError, match=f"^{re.escape(ONE + shown)}$"), recorder.step([0]) as row:
        row.loss = loss


def test_a_row_keeps_an_example(tmp_path: Path) -> None:
    recorder = UpdateRecorder(*Training().start(), tmp_path / "store")
    text = "^examples: expected at least one id, found none$"
    with pytest.raises(ValueError, match=text), recorder.step([0], ghosts=[1]) as row:
        row.examples = row.examples[:0]


def test_integers_and_losses_of_all_libraries_are_taken(tmp_path: Path) -> None:
    integers = [-1, np.array([2], np.int8), torch.tensor([3], dtype=torch.uint8), np.array(MOST)]
    epochs = [0, np.uint16(1), torch.tensor(2), MOST]
    examples = [[0, MOST], np.array([1], np.uint64), torch.tensor([2, 0], dtype=torch.int32), range(3)]
    losses = [Decimal(2), np.float32(0.5), torch.tensor([0.25], requires_grad=True), math.inf]
    with UpdateRecorder(*Training().start(), tmp_path / "store") as recorder:
        for label, epoch, ids, loss in zip(integers, epochs, examples, losses, strict=True):
            with recorder.step(ids, label=label, epoch=epoch, ghosts=()) as row:  # type: ignore[arg-type]  # on purpose
                row.loss = loss
    ledger = open_updates(str(tmp_path / "store")).ledger
    assert ledger["label"].tolist() == [-1, 2, 3, MOST]
    assert ledger["epoch"].tolist() == [0, 1, 2, MOST]
    assert [ids.tolist() for ids in ledger["examples"]] == [[0, MOST], [1], [2, 0], [0, 1, 2]]
    assert ledger["loss"].tolist() == [2.0, 0.5, 0.25, math.inf]
