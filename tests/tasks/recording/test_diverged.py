"""A training whose weights become NaN is recorded on; step and layer are named at the recording and by readers."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.conversion import materialise
from tasks.recording.hybrid_blocks import FactorBlock
from tests.tasks.recording.conftest import Training

AT, STEPS, EVERY = 3, 9, 4
SAID = (
    f"layerlore: step {AT}, layer '6': its update is not finite; the recording goes on, but updates from this step on "
    "cannot be projected\n"
)


class Diverging(Training):
    """A training in which one weight becomes NaN or infinite in a step."""

    value = math.nan

    def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        loss = super().update(model, optimizer, step)
        if step == AT:
            with torch.no_grad():
                model.get_parameter("6.weight")[2, 5] = self.value
        return loss


class Growing(Diverging):
    value = math.inf


@pytest.mark.parametrize("training", [Diverging(), Growing()])
@pytest.mark.parametrize("kind", ["dense", "hybrid", "replay"])
def test_step_and_layer_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, training: Training
) -> None:
    training.recorded(tmp_path / "store", STEPS, EVERY, kind=kind, preflight=False)
    assert [line for line in capsys.readouterr().err.splitlines(keepends=True) if "finite" in line] == [SAID]
    source = open_updates(str(tmp_path / "store"), program=training.program if kind == "replay" else None)
    assert source.steps == STEPS
    finite = torch.tensor(source.ledger["norm/6"].to_numpy()).isfinite().tolist()
    assert finite[: AT + 1] == [True] * AT + [False]
    module, inputs = nn.Linear(75, 6), torch.ones(2, 75)
    text = f"step {AT}, layer '6': expected a finite update, found NaN or inf; the training diverged there, read the "
    with pytest.raises(ValueError, match=f"^{re.escape(text)}steps before$"):  # noqa: PT012  # of one of the blocks
        for segment in source.segments():
            for block in source.blocks(segment, ["6"]):
                block.project(module, source.initial("6"), inputs)


def test_an_update_of_factors_is_named(tmp_path: Path) -> None:
    model = nn.Linear(300, 200)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with UpdateRecorder(model, optimizer, tmp_path / "store", kind="hybrid") as recorder:
        for step in range(5):
            with recorder.step([step]):
                optimizer.zero_grad()
                inputs = torch.full((2, 300), math.inf if step == AT else 0.1)
                model(inputs).square().mean().backward()
                optimizer.step()
    source = open_updates(str(tmp_path / "store"))
    blocks = source.blocks(source.segments()[0])
    text = f"^step {AT}, layer '\\(the model itself\\)': expected a finite update, found NaN or inf; the training "
    with pytest.raises(ValueError, match=text):  # noqa: PT012  # of one of the blocks
        for block in blocks:
            assert isinstance(block, FactorBlock)
            block.project(model, source.initial(""), torch.ones(2, 300))


@pytest.mark.parametrize(("kind", "to"), [("dense", "hybrid"), ("replay", "dense")])
def test_a_conversion_names_the_step(tmp_path: Path, kind: str, to: str) -> None:
    training = Diverging()
    training.recorded(tmp_path / "store", STEPS, EVERY, kind=kind, preflight=False)
    program = training.program if kind == "replay" else None
    text = f"step {AT}, layer '6': expected finite weights, found NaN or inf; the training diverged there, and its "
    with pytest.raises(ValueError, match=f"^{re.escape(text)}archive cannot be converted$"):
        materialise(str(tmp_path / "store"), to, program=program, say=lambda _: None)


def test_a_finite_training_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Training().recorded(tmp_path / "store", STEPS, EVERY, kind="dense")
    assert capsys.readouterr().err == ""
