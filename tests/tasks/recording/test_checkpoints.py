from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import nn

from storage.documents import DamagedError, digest
from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint, write_checkpoint, write_initial
from tests.tasks.recording.conftest import Training, momentum, same, snapshot

Groups = list[dict[str, Any]]  # Any: torch's own


def moved(training: Training, steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = training.start()
    for step in range(steps):
        training.update(model, optimizer, step)
    return model, optimizer


@pytest.mark.parametrize("optimize", [momentum, lambda model: torch.optim.Adam(model.parameters(), amsgrad=True)])
def test_a_training_goes_on_from_a_checkpoint_bitwise(optimize: type) -> None:
    model, optimizer = moved(Training(optimize), 4)
    data = pack_checkpoint(model, optimizer)
    assert data == pack_checkpoint(model, optimizer)
    other, again = Training(optimize).start()
    torch.manual_seed(5)
    load_checkpoint(data, other, again, "it")
    assert pack_checkpoint(other, again) == data
    state = torch.get_rng_state()
    Training(optimize).update(other, again, 4)
    torch.set_rng_state(state)
    Training(optimize).update(model, optimizer, 4)
    assert same(snapshot(other), snapshot(model))


def test_the_library_reads_it() -> None:
    model, optimizer = moved(Training(), 1)
    found = load(pack_checkpoint(model, optimizer))
    assert torch.equal(found["model.6.weight"], model.state_dict()["6.weight"])
    assert torch.equal(found["optimizer.0.momentum_buffer"], optimizer.state_dict()["state"][0]["momentum_buffer"])
    assert torch.equal(found["random.cpu"], torch.get_rng_state())
    plain = load(pack_checkpoint(model, optimizer, generators=False))
    assert sorted(plain) == sorted(name for name in found if not name.startswith("random."))


def test_settings_of_groups_are_restored_in_their_own_form() -> None:
    model = nn.Linear(2, 2)
    one: Groups = [{"params": [model.weight]}, {"params": [model.bias], "betas": (0.5, 0.6)}]
    first = torch.optim.Adam(one, lr=0.1)
    first.param_groups[0]["lr"] = 0.025
    two: Groups = [{"params": [model.weight], "lr": torch.tensor(0.1)}, {"params": [model.bias]}]
    second = torch.optim.Adam(two, lr=0.1, foreach=False)
    load_checkpoint(pack_checkpoint(model, first), model, second, "it")
    assert second.param_groups[0]["lr"] == torch.tensor(0.025)
    assert second.param_groups[1]["betas"] == (0.5, 0.6)


def test_state_that_is_no_tensor_is_kept() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight] = {"count": 3, "kept": None, "sum": torch.ones(2, 2)}
    other = torch.optim.SGD(model.parameters(), lr=0.1)
    load_checkpoint(pack_checkpoint(model, optimizer), model, other, "it")
    found = other.state[model.weight]
    assert (found["count"], found["kept"]) == (3, None)
    assert torch.equal(found["sum"], torch.ones(2, 2))


def test_what_cannot_be_kept_is_named() -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight] = {"history": {1, 2}}
    text = (
        "optimizer: state 'history' of parameter 0: expected None, numbers, .* of these, found a set; keep it outside"
    )
    with pytest.raises(ValueError, match=text):
        pack_checkpoint(model, optimizer)
    optimizer.state[model.weight] = {"history": torch.zeros(1, dtype=torch.complex64)}
    with pytest.raises(
        ValueError, match=r"state 'history' of parameter 0: expected a dense tensor of F64, .* of torch\.complex64"
    ):
        pack_checkpoint(model, optimizer)


def test_an_optimiser_with_other_groups_is_refused() -> None:
    model = nn.Linear(2, 2)
    data = pack_checkpoint(model, torch.optim.SGD(model.parameters(), lr=0.1))
    two: Groups = [{"params": [model.weight]}, {"params": [model.bias]}]
    groups = torch.optim.SGD(two, lr=0.1)
    with pytest.raises(ValueError, match="it: optimizer: expected 1 groups of parameters, found 2"):
        load_checkpoint(data, model, groups, "it")


def test_a_damaged_checkpoint_is_named() -> None:
    model, optimizer = Training().start()
    with pytest.raises(DamagedError, match=r"^it: expected a safetensors file"):
        load_checkpoint(pack_checkpoint(model, optimizer)[:-1], model, optimizer, "it")


def test_names_are_those_of_the_content() -> None:
    written: dict[str, bytes] = {}

    def write(form: str, data: bytes) -> str:
        name = form.format(digest=digest(data)[:12])
        written[name] = data
        return name

    assert write_checkpoint(write, 7, b"x") == f"checkpoint-000007-{digest(b'x')[:12]}.safetensors"
    assert write_initial(write, b"y") == f"initial-{digest(b'y')[:12]}.safetensors"
    assert list(written.values()) == [b"x", b"y"]


def test_tied_weights_are_no_obstacle() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data, expected = pack_checkpoint(model, optimizer), snapshot(model)
    with torch.no_grad():
        first.weight.zero_()
    load_checkpoint(data, model, optimizer, "it")
    assert same(snapshot(model), expected)
    assert first.weight is second.weight
