"""A block holds one whole update: parts of one, several, and changes between two blocks are noticed and named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.recording import UpdateRecorder, open_updates
from tests.tasks.recording.conftest import Interruption, Training, batch, same, small_net, snapshot
from tests.tasks.recording.recordings import check_archive

Change = Callable[[nn.Module], object]
PARTS = 4


def gradient(model: nn.Module, step: int, part: int) -> Tensor:
    """Add the gradient of a micro-batch of two samples and return its part of the loss."""
    inputs, labels = (values[2 * part : 2 * part + 2] for values in batch(step))
    loss = F.cross_entropy(model(inputs), labels) / PARTS
    loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
    return loss.detach()


class Accumulated(Training):
    """A training whose updates are accumulated over micro-batches."""

    def update(self, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> Tensor:
        optimizer.zero_grad()
        loss = torch.stack([gradient(model, step, part) for part in range(PARTS)]).sum()
        optimizer.step()
        self.states.append(snapshot(model))
        return loss


def test_an_accumulated_update_is_one_block(tmp_path: Path) -> None:
    training = Accumulated()
    assert same(training.recorded(tmp_path / "store", 5, 2), Accumulated().plain(5))
    check_archive(tmp_path / "store", training)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("set_to_none", [True, False])
def test_a_block_around_each_micro_batch_is_refused(tmp_path: Path, first: int, set_to_none: bool) -> None:
    training = Training()
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=2)
    for step in range(first):
        with recorder.step([step]):
            training.update(model, optimizer, step)
    optimizer.zero_grad(set_to_none)
    text = rf"^step {first}: expected a whole update, found gradients and no call of optimizer\.step\(\); put all"
    with pytest.raises(RuntimeError, match=text), recorder.step([0]):
        gradient(model, first, 0)
    with pytest.raises(RuntimeError, match="a step ended with an exception"), recorder.step([1]):
        pytest.fail("the recording has ended")


def test_a_block_around_several_updates_is_refused(tmp_path: Path) -> None:
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    text = r"^step 0: expected one call of optimizer\.step\(\) in the block, found 3; use one block per call$"
    with pytest.raises(RuntimeError, match=text), recorder.step([0]):  # noqa: PT012  # the error comes at its end
        for step in range(3):
            Training().update(model, optimizer, step)
    with pytest.raises(RuntimeError, match="a step ended with an exception"):
        recorder.close()


class Derived(torch.optim.SGD):
    """SGD that calls its parent's step in its own."""

    def step(self, closure: Any = None) -> Any:  # Any: torch's own
        return super().step(closure)


def test_the_steps_of_derived_optimisers_are_calls_of_the_loop_once(tmp_path: Path) -> None:
    torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=1.0)  # from here on torch runs hooks in both steps
    training = Training(lambda model: Derived(model.parameters(), lr=0.05))
    training.recorded(tmp_path / "store", 3)
    check_archive(tmp_path / "store", training)


@torch.no_grad()
def swap_average(model: nn.Module) -> None:
    """Put an average of the weights in, as evaluations do."""
    average = {name: value * 0.999 for name, value in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.data.copy_(average[name])


@torch.no_grad()
def one_weight(model: nn.Module) -> None:
    weight = model.get_parameter("6.weight")
    weight[3, 20] = torch.nextafter(weight[3, 20], torch.tensor(9.0))


@torch.no_grad()
def sign_of_zero(model: nn.Module) -> None:
    model.get_parameter("8.bias").neg_()


def another_object(model: nn.Module) -> None:
    last = model.get_submodule("8")
    last.weight = nn.Parameter(model.get_parameter("8.weight").detach() + 1)


def in_numpy(model: nn.Module) -> None:
    model.get_parameter("3.weight").detach().numpy()[...] *= 2


CHANGES: dict[str, tuple[Change, str, str]] = {
    "average": (swap_average, "0", "0.weight"),
    "clipping": (lambda m: [p.data.clamp_(-0.01, 0.01) for p in m.parameters()], "0", "0.weight"),
    "one weight": (one_weight, "6", "6.weight"),
    "loading": (lambda m: m.load_state_dict(small_net().state_dict()), "0", "0.weight"),
    "another object": (another_object, "8", "8.weight"),
    "numpy": (in_numpy, "3", "3.weight"),
    "a bias": (lambda m: m.get_parameter("8.bias").data.add_(1), "8", "8.bias"),
    "sign of zero": (sign_of_zero, "8", "8.bias"),
    "no number": (lambda m: m.get_parameter("6.bias").data.fill_(float("nan")), "6", "6.bias"),
}


def zero_bias(model: nn.Module) -> torch.optim.Optimizer:
    """SGD that does not train the last bias, which is 0."""
    with torch.no_grad():
        bias = model.get_parameter("8.bias").zero_()
    return torch.optim.SGD([p for p in model.parameters() if p is not bias], lr=0.05)


@pytest.mark.parametrize("at", [1, 4])  # within a segment, and between two
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_between_two_blocks_is_named(tmp_path: Path, name: str, at: int) -> None:
    change, layer, parameter = CHANGES[name]
    training = Training(zero_bias)
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=4)
    for step in range(at):
        with recorder.step([step]):
            training.update(model, optimizer, step)
    change(model)
    text = f"^step {at}: layer '{layer}': expected its weights after step {at - 1}, found others in '{parameter}'; "
    with pytest.raises(RuntimeError, match=text), recorder.step([at]):
        pytest.fail("nothing of the step may run")
    with pytest.raises(RuntimeError, match="a step ended with an exception"):
        recorder.close()


def test_a_change_of_resumed_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(Interruption):
        Training().recorded(tmp_path / "store", 9, 4, fail_at=6)
    model, optimizer = Training().start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=4)
    model.load_state_dict(small_net().state_dict())
    text = "^step 4: layer '0': expected its weights after step 3, found others"
    with pytest.raises(RuntimeError, match=text), recorder.step([4]):
        pass


def test_a_change_before_the_end_is_named(tmp_path: Path) -> None:
    training = Training()
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=7)
    for step in range(3):
        with recorder.step([step]):
            training.update(model, optimizer, step)
    swap_average(model)
    with pytest.raises(RuntimeError, match=r"^close: layer '0': expected its weights after step 2, found others"):
        recorder.close()
    assert same(Training().recorded(tmp_path / "store", 3), Training().plain(3))  # the archive was not finished


def test_what_is_put_back_is_no_change(tmp_path: Path) -> None:
    """An average is swapped in for an evaluation and out again; buffers and normalisation move; weights move."""
    training = Training()
    model, optimizer = training.start()
    with UpdateRecorder(model, optimizer, tmp_path / "store", checkpoint_every=2) as recorder:
        swap_average(model)  # before step 0 the loop may do as it likes
        training.states = [snapshot(model)]
        for step in range(5):
            with recorder.step([step]):
                training.update(model, optimizer, step)
            kept = snapshot(model)
            swap_average(model)
            model.load_state_dict(kept)
            model.get_buffer("1.running_mean").add_(1)
            last = model.get_submodule("8")
            assert isinstance(last, nn.Linear)
            last.weight.data = last.weight.detach().clone()
    assert torch.equal(open_updates(str(tmp_path / "store")).final("8"), training.states[-1]["8.weight"])


@pytest.mark.parametrize(("rate", "value"), [(0.0, 1.0), (0.1, 0.0), (0.1, None)])
def test_an_update_of_nothing_is_an_update(tmp_path: Path, rate: float, value: float | None) -> None:
    """A rate of 0, a gradient of 0, no gradient since all is frozen: `optimizer.step()` is called, that is enough."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with UpdateRecorder(model, optimizer, tmp_path / "store") as recorder:
        for step in range(3):
            with recorder.step([step]):
                model.weight.grad = None if value is None else torch.full((2, 2), value)
                optimizer.step()
    source = open_updates(str(tmp_path / "store"))
    assert source.steps == 3
    assert torch.equal(source.initial(""), source.final(""))


def test_an_update_may_be_skipped_or_made_by_hand(tmp_path: Path) -> None:
    """A scaler skips updates whose gradient is not finite; a loop may skip a batch, or change weights by itself."""
    model = nn.Linear(2, 2, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    states = [model.weight.detach().clone()]
    with UpdateRecorder(model, optimizer, tmp_path / "store") as recorder:
        with recorder.step([0]):
            model.weight.grad = torch.tensor([[1.0, float("inf")], [0.0, 1.0]])
        states.append(model.weight.detach().clone())
        with recorder.step([1]):
            optimizer.zero_grad()
        states.append(model.weight.detach().clone())
        with recorder.step([2]):
            model.weight.grad = torch.ones(2, 2)
            with torch.no_grad():
                model.weight -= 0.5 * model.weight.grad
        states.append(model.weight.detach().clone())
    (block,) = open_updates(str(tmp_path / "store")).blocks(open_updates(str(tmp_path / "store")).segments()[0])
    assert torch.equal(block.weights, torch.stack(states))
    assert block.dense().abs().sum((1, 2)).tolist() == [0.0, 0.0, pytest.approx(2.0, abs=1e-6)]


def test_a_sparse_gradient_that_waits_is_noticed(tmp_path: Path) -> None:
    model = nn.ModuleDict({"words": nn.Embedding(5, 2, sparse=True), "out": nn.Linear(2, 2)})
    optimizer = torch.optim.SGD(model["words"].parameters(), lr=0.1)
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", layers=["out"])
    with pytest.raises(RuntimeError, match="step 0: expected a whole update"), recorder.step([0]):
        model["words"](torch.tensor([1, 3])).sum().backward()


def test_watching_leaves_no_hook(tmp_path: Path) -> None:
    training = Training()
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store")
    with recorder.step([0]):
        training.update(model, optimizer, 0)
    with pytest.raises(RuntimeError, match="whole update"), recorder.step([1]):
        gradient(model, 1, 0)
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
