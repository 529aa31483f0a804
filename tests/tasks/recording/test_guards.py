"""A replay is begun only where the program repeats the loop; what it would not repeat is named at once."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.io.graph_models import graph_network
from tasks.recording import ReplayMismatch, UpdateRecorder, open_updates
from tasks.recording.archives import ARCHIVES
from tasks.recording.guards import order_changes
from tests.tasks.recording.conftest import Repeated, Training, same

NOISE = torch.Generator().manual_seed(1)  # no checkpoint holds its state


class Noisy(Training):
    """A training that draws from a generator of its own from a step on."""

    first = 0

    def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        loss = super().update(model, optimizer, step)
        if step >= self.first:
            with torch.no_grad():
                model.get_parameter("6.weight").add_(torch.rand(6, 75, generator=NOISE), alpha=1e-3)
        return loss


class Later(Noisy):
    first = 3


@pytest.mark.parametrize(("training", "step"), [(Noisy(), 0), (Later(), 3)])
def test_a_program_that_is_not_deterministic_is_no_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], training: Noisy, step: int
) -> None:
    text = f"preflight: step {step}, layer '6': two runs from one state differ"
    if "hybrid" in ARCHIVES:
        training.recorded(tmp_path / "store", 9, kind="replay")
        assert text in capsys.readouterr().err
        assert open_updates(str(tmp_path / "store")).kind == "hybrid"
    else:
        with pytest.raises(ValueError, match=text):
            training.recorded(tmp_path / "store", 9, kind="replay")


def test_the_preflight_leaves_the_loop_alone(tmp_path: Path) -> None:
    training = Training()
    model, optimizer = training.start()

    def program() -> Repeated:
        random.seed(5)
        np.random.seed(5)
        return training.program()

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tobytes()  # type: ignore[index]
    with UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", program=program) as recorder:
        with recorder.step([0]):
            assert torch.equal(torch.get_rng_state(), states[0])
            assert (random.getstate(), np.random.get_state()[1].tobytes()) == states[1:]  # type: ignore[index]
            assert same(dict(model.state_dict()), training.states[0])
            assert not optimizer.state
            assert all(parameter.grad is None for parameter in model.parameters())
            training.update(model, optimizer, 0)
        after = training.states[-1]
    assert same(dict(model.state_dict()), after)
    assert (random.getstate(), np.random.get_state()[1].tobytes()) == states[1:]  # type: ignore[index]


def test_a_program_of_another_loop_is_found_after_the_first_step(tmp_path: Path) -> None:
    training, model_and_optimizer = Training(), Training().start()
    other = Training(lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3))

    def program() -> Repeated:
        model, optimizer, _ = other.program()
        return model, optimizer, lambda row: other.update(model, optimizer, row.step + 1)

    training.states = []
    with UpdateRecorder(*model_and_optimizer, tmp_path / "store", kind="replay", program=program) as recorder:
        text = r"^step 0, layer '0': expected the loop's weights"
        with pytest.raises(ReplayMismatch, match=text) as caught, recorder.step([0]):
            training.update(*model_and_optimizer, 0)
        assert (caught.value.step, caught.value.layer) == (0, "0")
        recorder._abandon()


def test_random_numbers_between_blocks_are_refused_where_blocks_draw_some(tmp_path: Path) -> None:
    training = Training()
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", checkpoint_every=2)
    torch.randn(3)  # before the first step, whose state the first checkpoint holds
    for step in range(2):
        with recorder.step([step]):
            training.update(model, optimizer, step)
    torch.randperm(3)  # as a loader does in each epoch; here between two segments
    text = "^step 2: expected no random number of torch between two blocks that draw some, found some; a replay"
    with pytest.raises(RuntimeError, match=text), recorder.step([2]):
        training.update(model, optimizer, 2)


def test_random_numbers_between_blocks_that_draw_none_are_fine(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(72, 3))

    training = Training(build=build)
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", checkpoint_every=2) as recorder:
        for step in range(5):
            torch.randperm(3)
            with recorder.step([step]):
                training.update(model, optimizer, step)
    source = open_updates(str(tmp_path / "store"), program=training.program)
    for segment in source.segments():
        for block in source.blocks(segment):
            assert torch.equal(block.weights[-1], training.states[block.stop]["1.weight"])


def test_auto_without_a_program_keeps_every_update_of_a_small_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training()
    training.recorded(tmp_path / "store", 3)
    assert open_updates(str(tmp_path / "store")).kind == "dense"
    values = sum(p.numel() for n, p in training.start()[0].named_parameters() if n.split(".")[0] in "0368")
    assert f"archive of kind 'dense', {4 * values / 1e6:.3g} MB a step" in capsys.readouterr().err


def test_scattered_sums_keep_their_order_on_a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs, plain = graph_network(3, 2, width=4, layers=1), nn.Linear(2, 2)
    assert order_changes(graphs, torch.device("cuda"))
    assert order_changes(nn.Sequential(graphs), torch.device("cuda"))
    assert not order_changes(graphs, torch.device("cpu"))
    assert not order_changes(plain, torch.device("cuda"))
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not order_changes(graphs, torch.device("cuda"))
