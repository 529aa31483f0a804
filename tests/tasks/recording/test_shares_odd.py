"""Parts of an update where calls, updates or dtypes are unusual: right against a loop in float64, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.programs import step_row
from tests.tasks.recording.conftest import Repeated

X = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
Y = torch.arange(8) % 3
QUERIES = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4))

Loss = Callable[[nn.Module], Tensor]
Step = Callable[[nn.Module, torch.optim.Optimizer, int], None]


def usual(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Loss) -> None:
    optimizer.zero_grad()
    loss(model).backward()  # type: ignore[no-untyped-call]  # torch's stub
    optimizer.step()


def whole(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def columns_of(
    store: Path, step: Step, steps: int = 1, dtype: torch.dtype = torch.float64, **settings: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Record `steps` steps of a linear layer; return the columns of each and the weights before each."""

    def program() -> Repeated:
        torch.manual_seed(0)
        model = nn.Linear(4, 3).to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.1, **settings})
        return model, optimizer, lambda row: step(model, optimizer, row.step)

    model, optimizer, make = program()
    weights = []
    with UpdateRecorder(model, optimizer, store, kind="replay", program=program) as recorder:
        for number in range(steps):
            weights.append(model.weight.detach().clone())  # type: ignore[operator]  # torch's stub
            with recorder.step(list(range(8))):
                make(step_row(number))
    source = open_updates(str(store), program=program)
    found = []
    for segment in source.segments():
        for block in source.blocks(segment):
            found += block.per_example(nn.Linear(4, 3), source.final("").double(), QUERIES)
    return found, [*weights, source.final("")]


def expected_columns(before: Tensor, bias: Tensor, final: Tensor, effect: float) -> Tensor:
    """Return effect <z, G f> (Q, 8) for the gradient G of each example, one at a time."""
    columns = []
    for x, y in zip(X, Y, strict=True):
        leaf = before.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(F.linear(x[None], leaf, bias), y[None]) / 8, leaf)
        columns.append(effect * ((QUERIES @ final.T) * (QUERIES @ gradient.T)).sum(1))
    return torch.stack(columns, 1)


def first_bias() -> Tensor:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double().bias.detach()


HALVES: dict[str, Loss] = {
    "two calls, one backward": lambda m: (F.cross_entropy(m(X[:4]), Y[:4]) + F.cross_entropy(m(X[4:]), Y[4:])) / 2,
    "by keyword": lambda m: F.cross_entropy(m(input=X), Y),
}


@pytest.mark.parametrize("case", HALVES)
def test_columns_are_in_the_batchs_order(tmp_path: Path, case: str) -> None:
    (found,), (before, final) = columns_of(tmp_path / "store", lambda m, o, _: usual(m, o, HALVES[case]))
    np.testing.assert_allclose(found, expected_columns(before, first_bias(), final, -0.1), rtol=1e-9, atol=1e-12)


def test_a_layer_that_begins_late_begins_with_its_whole_gradient(tmp_path: Path) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        optimizer.zero_grad()
        if number >= 2:
            whole(model).backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()

    found, weights = columns_of(tmp_path / "store", step, 4, momentum=0.5, dampening=0.4)
    assert not torch.cat(found[:2], 1).any()
    effect = -0.1 * (1 + 0.5)  # the first velocity is the whole gradient, whatever the dampening
    expected = expected_columns(weights[2], first_bias(), weights[-1], effect)
    np.testing.assert_allclose(found[2], expected, rtol=1e-9, atol=1e-12)


def test_without_momentum_a_step_without_an_update_has_no_part(tmp_path: Path) -> None:
    found, weights = columns_of(tmp_path / "store", skips, 3)
    assert not found[1].any()
    expected = expected_columns(weights[0], first_bias(), weights[-1], -0.1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("to_none", [True, False])
def test_a_closures_gradient_is_found_where_foreach_adds_momentum_to_it(tmp_path: Path, to_none: bool) -> None:
    def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        def closure() -> float:
            optimizer.zero_grad(set_to_none=to_none)
            loss = whole(model)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            return float(loss.detach())

        optimizer.step(closure)

    found, weights = columns_of(tmp_path / "store", step, 3, momentum=0.5, nesterov=True, foreach=True)
    effect = -0.1 * (1 + 0.5 * (1 + 0.5 + 0.25))  # of the first gradient: its own step, and the velocity in three
    expected = expected_columns(weights[0], first_bias(), weights[-1], effect)
    np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-12)


def skips(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.zero_grad()
    whole(model).backward()  # type: ignore[no-untyped-call]  # torch's stub
    if number == 1:
        optimizer.zero_grad()
    else:
        optimizer.step()


def changes(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.param_groups[0]["momentum"] = 0.5 + 0.1 * number
    usual(model, optimizer, whole)


def by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    optimizer.zero_grad()
    whole(model).backward()  # type: ignore[no-untyped-call]  # torch's stub
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.1 * parameter.grad)


def autocast(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    def loss(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(X.float()), Y)

    usual(model, optimizer, loss)


def narrow(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    usual(model, optimizer, lambda m: F.cross_entropy(m(X.bfloat16()).float(), Y))


def up(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    usual(model, optimizer, whole)


REFUSED: dict[str, tuple[Step, dict[str, Any], str]] = {
    "a skipped update": (skips, {"momentum": 0.9}, "an update in each step under momentum"),
    "momentum that changes": (changes, {"momentum": 0.5}, "one momentum in all steps, found 0.5 and 0.7"),
    "an update by hand": (by_hand, {}, "an update by the optimiser"),
    "autocast": (autocast, {"dtype": torch.float32}, "float32 or float64 .*, found bfloat16, float32"),
    "bfloat16": (narrow, {"dtype": torch.bfloat16}, "float32 or float64 .*, found bfloat16"),
    "maximize": (up, {"maximize": True}, "found SGD with maximize=True"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_known_is_refused(tmp_path: Path, case: str) -> None:
    step, settings, text = REFUSED[case]
    with pytest.raises(NotImplementedError, match=f"^layer '.*expected .*{text}"):
        columns_of(tmp_path / "store", step, 3, **settings)


@pytest.mark.parametrize("case", ["frozen", "left out"])
@pytest.mark.parametrize("layer", ["0", "1"])
def test_a_layer_that_the_optimiser_leaves_alone_has_parts_of_0(tmp_path: Path, case: str, layer: str) -> None:
    def program() -> Repeated:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double()
        if case == "frozen":
            model.get_submodule(layer).requires_grad_(False)
        other = model.get_submodule({"0": "1", "1": "0"}[layer])
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
        return model, optimizer, lambda row: usual(model, optimizer, whole)

    model, optimizer, make = program()
    recording = UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", program=program)
    with recording as recorder:
        for step in range(2):
            with recorder.step(list(range(8))):
                make(step_row(step))
    source = open_updates(str(tmp_path / "store"), program=program)
    for block in source.blocks(source.segments()[0], [layer], members=True):
        module, weight = model.get_submodule(layer), source.final(layer)
        queries = QUERIES[:, : module.in_features]
        for found in block.per_example(module, weight, queries):
            assert torch.equal(found, torch.zeros(len(queries), 8, dtype=found.dtype))


def test_an_embedding_with_sparse_gradients_is_split(tmp_path: Path) -> None:
    tokens = torch.randint(20, (8, 5), generator=torch.Generator().manual_seed(5))

    def program() -> Repeated:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(20, 4, sparse=True), nn.Flatten(), nn.Linear(20, 3)).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, optimizer, lambda row: usual(model, optimizer, lambda m: F.cross_entropy(m(tokens), Y))

    model, optimizer, make = program()
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", program=program)
    with recorder, recorder.step(list(range(8))):
        make(step_row(0))
    source = open_updates(str(tmp_path / "store"), program=program)
    table = source.final("0")
    (block,) = source.blocks(source.segments()[0], ["0"], members=True)
    (columns,) = block.per_example(model.get_submodule("0"), table, tokens[:2])
    for row in range(8):
        leaf = before["0.weight"].clone().requires_grad_()
        logits = F.linear(leaf[tokens[row]].flatten(), before["2.weight"], before["2.bias"])
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, Y[row]) / 8, leaf)
        expected = -0.1 * (table[tokens[:2]] * gradient[tokens[:2]]).sum((1, 2))
        np.testing.assert_allclose(columns[:, row], expected, rtol=1e-9, atol=1e-12)
