"""A training of any optimiser with any settings goes on from a checkpoint as if it had never stopped."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.recording.checkpoints import load_checkpoint, pack_checkpoint
from tests.tasks.recording.conftest import Interruption, Training, same, snapshot
from tests.tasks.recording.test_settings import identical

Optimizer = torch.optim.Optimizer
Groups = list[dict[str, Any]]  # Any: torch's own
Change = Callable[[Optimizer], None]


def halves(model: nn.Module, **more: Any) -> Groups:  # Any: settings of every kind
    """Two groups of parameters, the second with settings of its own."""
    parameters = list(model.parameters())
    return [{"params": parameters[:3]}, {"params": parameters[3:], **more}]


def shared_rate(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(halves(model, momentum=0.5), lr=torch.tensor(0.05))  # one tensor in both groups


KINDS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "sgd, numpy": lambda m: torch.optim.SGD(m.parameters(), lr=np.float64(0.05), momentum=float(np.float32(0.9))),
    "sgd, shared tensor": shared_rate,
    "adam": lambda m: torch.optim.Adam(halves(m, betas=(0.5, 0.6), lr=0.02), lr=0.01, amsgrad=True),
    "adam, tensor": lambda m: torch.optim.Adam(m.parameters(), lr=torch.tensor(0.01), foreach=False),
    "adamw, float64 tensor": lambda m: torch.optim.AdamW(m.parameters(), lr=torch.tensor(0.01, dtype=torch.float64)),
    "adamw, names": lambda m: torch.optim.AdamW(m.named_parameters(), lr=0.01),
    "adamw, fused": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01, fused=True),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr=0.01, lr_decay=0.1),
    "adadelta": lambda m: torch.optim.Adadelta(m.parameters()),
    "adamax": lambda m: torch.optim.Adamax(m.parameters()),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.5, centered=True),
    "nadam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.01),
    "radam": lambda m: torch.optim.RAdam(m.parameters(), lr=0.01),
    "asgd": lambda m: torch.optim.ASGD(m.parameters(), lr=0.01, t0=2),
    "rprop": lambda m: torch.optim.Rprop(m.parameters(), etas=(0.4, 1.3), step_sizes=(1e-5, 10)),
    "adafactor": lambda m: torch.optim.Adafactor(m.parameters(), lr=0.01),
}

# What a loop or a scheduler may put into a group while it trains.
CHANGES: dict[str, Any] = {  # Any: settings of every kind
    "tensor": torch.tensor(0.013),
    "double tensor": torch.tensor(0.013, dtype=torch.float64),
    "numpy": np.float32(0.013),
    "float": 0.013,
    "whole": 1,
    "infinite": float("inf"),
    "text": "warm",
    "none": None,
    "flag": True,
    "tuple": (0.7, None),
    "list": [0.7, 0.8],
    "nested": {"warm": (torch.tensor([1, 2]), [np.int64(3), {"x": "y"}])},
    "dtype": torch.bfloat16,
}


def settings(optimizer: Optimizer) -> Groups:
    """Return the settings of each group in order of their names, without the parameters."""
    return [{key: group[key] for key in sorted(group) if key != "params"} for group in optimizer.param_groups]


def states(optimizer: Optimizer) -> dict[Any, Any]:  # Any: an optimiser's own
    """Return the state, by index of the parameter or by its own key, with keys in order."""
    members = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = {id(p): index for index, p in enumerate(members)}
    held: dict[Any, Any] = dict(optimizer.state)
    return {
        numbers[id(owner)] if isinstance(owner, Tensor) else owner: dict(sorted(state.items()))
        if isinstance(state, dict)
        else state
        for owner, state in held.items()
    }


def check_goes_on(training: Training, change: Change = lambda _: None) -> Optimizer:
    """Stop after 3 steps, load the checkpoint into a fresh training, compare, and train both on; return the second."""
    model, optimizer = training.start()
    for step in range(3):
        training.update(model, optimizer, step)
    change(optimizer)
    data = pack_checkpoint(model, optimizer)
    other, again = training.start()
    load_checkpoint(data, other, again, "it")
    for one, two in zip(settings(optimizer), settings(again), strict=True):
        assert one.keys() == two.keys()
        assert all(identical(one[key], two[key]) for key in one), (one, two)
    before, after = states(optimizer), states(again)
    assert before.keys() == after.keys()
    assert all(identical(before[owner], after[owner]) for owner in before)
    assert pack_checkpoint(other, again) == data
    dice = torch.get_rng_state()
    for made in ((model, optimizer), (other, again)):
        torch.set_rng_state(dice)
        for step in range(3, 6):
            training.update(*made, step)
    assert same(snapshot(model), snapshot(other))
    return again


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimiser_goes_on_bitwise(kind: str) -> None:
    check_goes_on(Training(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_scheduler_adds_comes_back(kind: str) -> None:
    def schedule(optimizer: Optimizer) -> None:
        torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    again = check_goes_on(Training(KINDS[kind]), schedule)
    assert all("initial_lr" in group for group in again.param_groups)


@pytest.mark.parametrize("kind", CHANGES)
def test_a_setting_that_the_loop_added_comes_back(kind: str) -> None:
    def change(optimizer: Optimizer) -> None:
        optimizer.param_groups[1]["added"] = CHANGES[kind]

    check_goes_on(Training(KINDS["adam"]), change)


@pytest.mark.parametrize("optimizer", ["sgd", "sgd, shared tensor", "adam", "adamw, float64 tensor"])
@pytest.mark.parametrize("kind", ["tensor", "double tensor", "numpy", "float"])
def test_a_rate_of_another_type_comes_back(optimizer: str, kind: str) -> None:
    def change(made: Optimizer) -> None:
        made.param_groups[0].update(lr=CHANGES[kind], foreach=False)

    check_goes_on(Training(KINDS[optimizer]), change)


def test_a_setting_that_the_loop_removed_stays_away() -> None:
    def change(optimizer: Optimizer) -> None:
        del optimizer.param_groups[0]["added"]

    def optimize(model: nn.Module) -> Optimizer:
        return torch.optim.SGD([{"params": list(model.parameters()), "added": np.float32(1)}], lr=0.1)

    check_goes_on(Training(optimize), change)


@pytest.mark.parametrize("kind", CHANGES)
def test_state_that_is_no_tensor_comes_back(kind: str) -> None:
    def change(optimizer: Optimizer) -> None:
        first = optimizer.param_groups[0]["params"][0]
        optimizer.state[first]["kept"] = CHANGES[kind]
        optimizer.state["all"] = {"kept": CHANGES[kind]}  # type: ignore[index]  # the stub knows parameters only

    check_goes_on(Training(KINDS["sgd"]), change)


def test_a_rate_that_the_loop_holds_stays_the_same_object() -> None:
    rate = torch.tensor(0.1)
    training = Training(lambda model: torch.optim.SGD(halves(model), lr=rate))
    again = check_goes_on(training, lambda optimizer: optimizer.param_groups[0]["lr"].fill_(0.025))
    assert all(group["lr"] is rate for group in again.param_groups)
    assert rate == torch.tensor(0.025)


def test_rates_that_were_parted_stay_parted() -> None:
    def part(optimizer: Optimizer) -> None:
        optimizer.param_groups[1]["lr"] = torch.tensor(0.5)

    first, second = check_goes_on(Training(shared_rate), part).param_groups
    assert first["lr"] is not second["lr"]


class Counting(torch.optim.SGD):
    """SGD with an entry of its own in its state dict."""

    def __init__(self, parameters: Any) -> None:  # Any: torch's own
        super().__init__(parameters, lr=0.05)
        self.history: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:  # Any: torch's own
        return {**super().state_dict(), "history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.history = state_dict["history"]
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "history"})


def test_further_entries_of_the_state_dict_come_back() -> None:
    def change(optimizer: Optimizer) -> None:
        assert isinstance(optimizer, Counting)
        optimizer.history.append(torch.tensor([1.0, 2.0]))

    again = check_goes_on(Training(lambda model: Counting(model.parameters())), change)
    assert isinstance(again, Counting)
    assert identical(again.history, [torch.tensor([1.0, 2.0])])


def test_sparse_gradients_go_on_bitwise() -> None:
    def build() -> tuple[nn.Module, Optimizer]:
        torch.manual_seed(0)
        model = nn.Embedding(5, 3, sparse=True)
        return model, torch.optim.SparseAdam(list(model.parameters()), lr=torch.tensor(0.1))

    def update(model: nn.Module, optimizer: Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.tensor([1, 3])).square().sum().backward()
        optimizer.step()

    model, optimizer = build()
    update(model, optimizer)
    data = pack_checkpoint(model, optimizer)
    other, again = build()
    load_checkpoint(data, other, again, "it")
    assert identical(settings(again), settings(optimizer))
    for made in ((model, optimizer), (other, again)):
        update(*made)
    assert same(snapshot(model), snapshot(other))


@pytest.mark.parametrize("kind", ["tensor", "numpy", "float", "tuple", "nested"])
def test_a_recorder_that_resumes_keeps_every_setting(tmp_path: Path, kind: str) -> None:
    """The rate is of each kind that is a number; any other value is a setting in addition."""
    rate = kind in ("tensor", "numpy", "float")
    key, value = ("lr" if rate else "added"), CHANGES[kind]
    seen: Groups = []

    class Changed(Training):
        def update(self, model: nn.Module, optimizer: Optimizer, step: int) -> Tensor:
            if step == 2:
                optimizer.param_groups[0].update({key: value, "foreach": False})
            seen.append({"step": step, **copy.deepcopy(settings(optimizer)[0])})
            return super().update(model, optimizer, step)

    def make() -> Changed:
        return Changed(lambda model: torch.optim.Adam(model.parameters(), lr=0.01))

    expected = make().recorded(tmp_path / "whole", 12, 4)
    whole = {entry["step"]: entry for entry in seen}
    with pytest.raises(Interruption):
        make().recorded(tmp_path / "store", 12, 4, fail_at=6)
    seen.clear()
    assert same(make().recorded(tmp_path / "store", 12, 4), expected)
    assert [entry["step"] for entry in seen] == list(range(4, 12))
    assert all(identical(entry, whole[entry["step"]]) for entry in seen)
    assert key in seen[0]


@pytest.mark.parametrize("later", [False, True])
def test_the_first_checkpoint_refuses_a_setting_that_would_change(tmp_path: Path, later: bool) -> None:
    class Changed(Training):
        def update(self, model: nn.Module, optimizer: Optimizer, step: int) -> Tensor:
            if later and step == 1:
                optimizer.param_groups[0]["hook"] = {"after": print}
            return super().update(model, optimizer, step)

    def optimize(model: nn.Module) -> Optimizer:
        more = {} if later else {"hook": {"after": print}}
        return torch.optim.SGD([{"params": list(model.parameters()), **more}], lr=0.1)

    text = r"^optimizer: group 0, setting 'hook'\['after'\]: expected .*, found a builtin_function_or_method; keep it"
    training = Changed(optimize)
    with pytest.raises(ValueError, match=text):
        training.recorded(tmp_path / "store", 8, 4)
    assert len(training.states) == (5 if later else 1)  # before the first step, or at the checkpoint after four


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda o: o.param_groups[0].update({3: 1}), "group 0: expected names, found the key 3"),
        (lambda o: o.state.update({3: 1}), "state: expected names, found the key 3"),
        (lambda o: o.state[o.param_groups[0]["params"][0]].update({3: 1}), "state 3 of parameter 0: expected names"),
        (lambda o: o.state.update({torch.ones(1): {}}), "expected state of its parameters, found that of another"),
        (
            lambda o: setattr(o, "base", torch.optim.SGD([torch.ones(1)])),
            "expected all state in SGD, .* another state in 'base'",
        ),
    ],
)
def test_state_that_no_name_leads_to_is_refused(change: Change, text: str) -> None:
    model, optimizer = Training().start()
    change(optimizer)
    with pytest.raises(ValueError, match=f"^optimizer: {text}"):
        pack_checkpoint(model, optimizer)
