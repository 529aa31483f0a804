"""A weight that gets another shape or type while it is recorded is named, with its layer and the step."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from tasks.recording import UpdateRecorder
from tests.tasks.recording.conftest import Training


def reshape(model: nn.Module) -> None:
    last = model.get_submodule("8")
    last.weight = nn.Parameter(torch.ones(3, 7))


CHANGES: dict[str, tuple[Callable[[nn.Module], object], str, str]] = {
    "shape": (reshape, "8", "'8.weight' as float32 of shape (3, 6), found float32 of shape (3, 7)"),
    "type": (nn.Module.half, "0", "'0.weight' as float32 of shape (4, 1, 3, 3), found float16 of shape (4, 1, 3, 3)"),
}


@pytest.mark.parametrize("kind", ["dense", "hybrid", "replay"])
@pytest.mark.parametrize("updated", [True, False])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_in_a_block_is_named(tmp_path: Path, name: str, updated: bool, kind: str) -> None:
    change, layer, what = CHANGES[name]
    training = Training()
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", kind=kind)
    with recorder.step([0]):
        training.update(model, optimizer, 0)
    text = f"step 1: layer '{layer}': expected {what}; keep shapes and types, or record the changed network into "
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}another store$"), recorder.step([1]):  # noqa: PT012
        if updated:
            training.update(model, optimizer, 1)
        change(model)


def test_a_change_between_two_blocks_is_one_of_the_weights(tmp_path: Path) -> None:
    training = Training()
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    with recorder.step([0]):
        training.update(model, optimizer, 0)
    reshape(model)
    text = "^step 1: layer '8': expected its weights after step 0, found others in '8.weight'; "
    with pytest.raises(RuntimeError, match=text), recorder.step([1]):
        pytest.fail("nothing of the step may run")
