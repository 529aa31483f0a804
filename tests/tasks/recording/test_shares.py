"""Each member's part of an update, against gradients of one member at a time in float64."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.recording import UpdateRecorder, open_updates
from tasks.recording.programs import Row, step_row
from tasks.tracing import contributions
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tests.tasks.recording.conftest import Repeated, Training

STEPS, BATCH, GHOSTS = 7, 5, 3


def net() -> nn.Module:
    """Every covered kind of layer at least once, batch norm with ghosts between them."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2, padding=1, padding_mode="circular"),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.ConvTranspose2d(4, 3, 2, bias=False),
        nn.Flatten(2),
        nn.Linear(49, 4),  # on tokens
        nn.Flatten(),
        nn.Linear(12, 3),
    )
    return with_ghost_norm(model)


def data(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    inputs = torch.randn(BATCH + GHOSTS, 2, 6, 6, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (BATCH,), generator=generator)


def member_losses(model: nn.Module, step: int) -> Tensor:
    """Return the batch's loss of each example, (BATCH,), divided by their number."""
    inputs, labels = data(step)
    with ghost_rows(model, BATCH, GHOSTS):
        logits = model(inputs)
    return F.cross_entropy(logits[:BATCH], labels, reduction="none") / BATCH


class Small:
    """A training in float64 whose step keeps the brute-force gradient of each row at each layer's output."""

    def __init__(self, settings: dict[str, float | bool], clip: float = np.inf) -> None:
        self.settings, self.clip = settings, clip

    def program(self) -> Repeated:
        torch.manual_seed(0)
        model = net().double()
        optimizer = torch.optim.SGD(model.parameters(), **self.settings)  # type: ignore[arg-type]  # settings

        def step(row: Row) -> None:
            number = row.step
            optimizer.param_groups[0]["lr"] = 0.05 / (1 + number)
            optimizer.zero_grad()
            member_losses(model, number).sum().backward()  # type: ignore[no-untyped-call]  # torch's stub
            nn.utils.clip_grad_norm_(model.parameters(), self.clip)
            optimizer.step()

        return model, optimizer, step

    def record(self, store: Path) -> list[dict[str, Tensor]]:
        """Record STEPS steps; return the weights before each and after the last."""
        model, optimizer, step = self.program()
        states = []
        with UpdateRecorder(
            model, optimizer, store, kind="replay", checkpoint_every=3, program=self.program
        ) as recorder:
            for number in range(STEPS):
                states.append({k: v.detach().clone() for k, v in model.state_dict().items()})
                ids, ghosts = list(range(BATCH)), list(range(90, 90 + GHOSTS))
                with recorder.step(ids, ghosts=ghosts):
                    step(step_row(number))
        return [*states, {k: v.detach().clone() for k, v in model.state_dict().items()}]


def row_gradients(weights: dict[str, Tensor], layer: str, step: int, clip: float) -> Tensor:
    """Return the gradient of the weight through each row alone, (rows, *shape): brute force, one row at a time.

    A row's part is the gradient by a copy of the weight that only this row's output uses.
    """
    model = net().double()
    model.load_state_dict(weights)
    model.train()
    module = model.get_submodule(layer)
    rows = BATCH + GHOSTS
    copies = [weights[f"{layer}.weight"].clone().requires_grad_(True) for _ in range(rows)]

    def split(_: nn.Module, given: tuple[Tensor], made: Tensor) -> Tensor:
        parts = []
        for row, copy in enumerate(copies):
            values = {name: p.detach() for name, p in module.named_parameters(recurse=False)} | {"weight": copy}
            handle.remove()
            parts.append(torch.func.functional_call(module, values, (given[0][row : row + 1],)))
        return torch.cat(parts)

    handle = module.register_forward_hook(split)
    member_losses(model, step).sum().backward()  # type: ignore[no-untyped-call]  # torch's stub
    parts = torch.stack([torch.zeros_like(c) if c.grad is None else c.grad for c in copies])
    whole = net().double()
    whole.load_state_dict(weights)
    whole.train()
    member_losses(whole, step).sum().backward()  # type: ignore[no-untyped-call]  # torch's stub
    norm = float(nn.utils.clip_grad_norm_(whole.parameters(), np.inf))
    return parts * min(1.0, clip / (norm + 1e-6))


def inputs_of(layer: str) -> Tensor:
    """Return three random inputs of a layer."""
    shape = {"0": (2, 6, 6), "3": (4, 6, 6), "5": (3, 49), "7": (12,)}[layer]
    return torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("layer", ["0", "3", "5", "7"])
def test_columns_of_plain_sgd_are_each_rows_part(tmp_path: Path, layer: str) -> None:
    training = Small({"lr": 0.05, "weight_decay": 0.01}, clip=0.3)
    states = training.record(tmp_path / "store")
    source = open_updates(str(tmp_path / "store"), program=training.program)
    module, weight, inputs = net().get_submodule(layer), source.final(layer), inputs_of(layer)
    seen = 0
    for segment in source.segments():
        for block in source.blocks(segment, [layer], members=True):
            columns = block.per_example(module, weight, inputs)
            gammas = block.project(module, weight, inputs).gamma
            for k, step in enumerate(block.steps.tolist()):
                rate = 0.05 / (1 + step)
                gradients = row_gradients(states[step], layer, step, 0.3)
                expected = contributions(module, weight, inputs, -rate * gradients).gamma
                assert columns[k].shape == (3, BATCH + GHOSTS)
                np.testing.assert_allclose(columns[k], expected, rtol=1e-6, atol=1e-9)
                pull = -rate * 0.01 * states[step][f"{layer}.weight"]
                decay = contributions(module, weight, inputs, pull[None]).gamma[:, 0]
                np.testing.assert_allclose(columns[k].sum(1) + decay, gammas[:, k], rtol=1e-6, atol=1e-9)
                seen += 1
    assert seen == STEPS
    ghosts_count = float(columns[-1][:, BATCH:].abs().max()) > 0
    assert ghosts_count == (layer == "0")  # below batch norm; above it only the batch has a loss


@pytest.mark.parametrize(
    "settings", [{"momentum": 0.9}, {"momentum": 0.8, "nesterov": True}, {"momentum": 0.5, "dampening": 0.3}]
)
def test_under_momentum_columns_have_the_whole_effect(tmp_path: Path, settings: dict[str, float | bool]) -> None:
    training = Small({"lr": 0.05, **settings})
    states = training.record(tmp_path / "store")
    source = open_updates(str(tmp_path / "store"), program=training.program)
    layer = "7"
    module, weight, inputs = net().get_submodule(layer), source.final(layer), inputs_of(layer)
    columns, total = [], torch.zeros(3, dtype=torch.float64)
    for segment in source.segments():
        for block in source.blocks(segment, [layer]):
            columns += block.per_example(module, weight, inputs)  # makes the steps again
            total += block.project(module, weight, inputs).gamma.sum(1)
    np.testing.assert_allclose(torch.stack([c.sum(1) for c in columns]).sum(0), total, rtol=1e-6, atol=1e-9)
    # By hand: a gradient of step t moves the weight in each later step s by the velocity that is left of it.
    mu, damp = float(settings["momentum"]), float(settings.get("dampening", 0.0))
    for step in (0, 2, STEPS - 1):
        effect, velocity = 0.0, 0.0
        for later in range(step, STEPS):
            velocity = (1.0 if step == 0 else 1 - damp) if later == step else mu * velocity
            direct = 1.0 if later == step else 0.0
            rate = 0.05 / (1 + later)
            effect += rate * (direct + mu * velocity if settings.get("nesterov") else velocity)
        gradients = row_gradients(states[step], layer, step, np.inf)
        expected = contributions(module, weight, inputs, -effect * gradients).gamma
        np.testing.assert_allclose(columns[step], expected, rtol=1e-6, atol=1e-9)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.two(self.one(x).relu())
        return found


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], torch.optim.Optimizer], str]] = {
    "adam": (lambda: nn.Linear(4, 4), lambda m: torch.optim.Adam(m.parameters()), "linear in the gradient"),
    "tied": (Tied, lambda m: torch.optim.SGD(m.parameters(), 0.1), "the weight is tied"),
    "fewer rows": (lambda: nn.Linear(4, 4), lambda m: torch.optim.SGD(m.parameters(), 0.1), "a row for each of 2"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_split_says_so(tmp_path: Path, case: str) -> None:
    build, optimize, text = CASES[case]

    def program() -> Repeated:
        torch.manual_seed(0)
        model = build()
        optimizer = optimize(model)

        def step(_: object) -> None:
            optimizer.zero_grad()
            rows = 3 if case == "fewer rows" else 2
            model(torch.ones(rows, 4)).square().sum().backward()
            optimizer.step()

        return model, optimizer, step

    model, optimizer, step = program()
    with UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", program=program) as recorder:
        for number in range(2):
            with recorder.step([0, 1]):
                step(step_row(number))
    source = open_updates(str(tmp_path / "store"), program=program)
    block = next(iter(source.blocks(source.segments()[0])))
    with pytest.raises(NotImplementedError, match=f"^layer '.*': expected .*{text}"):
        block.per_example(nn.Linear(4, 4), source.final(block.layer), torch.ones(1, 4))


def test_accumulated_micro_batches_are_one_update(tmp_path: Path) -> None:
    def program() -> Repeated:
        torch.manual_seed(0)
        model = nn.Linear(4, 2).double()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        inputs = torch.randn(6, 4, dtype=torch.float64)

        def step(_: object) -> None:
            optimizer.zero_grad()
            for part in inputs.chunk(3):
                model(part).square().sum().backward()
            optimizer.step()

        return model, optimizer, step

    model, optimizer, step = program()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", program=program)
    with recorder, recorder.step(list(range(6))):
        step(step_row(0))
    source = open_updates(str(tmp_path / "store"), program=program)
    (block,) = source.blocks(source.segments()[0])
    (columns,) = block.per_example(model, source.final(""), torch.ones(1, 4, dtype=torch.float64))
    assert columns.shape == (1, 6)
    gamma = block.project(model, source.final(""), torch.ones(1, 4, dtype=torch.float64)).gamma
    np.testing.assert_allclose(columns.sum(1), gamma[:, 0], rtol=1e-9)


def test_the_trainings_of_the_other_tests_can_be_split(tmp_path: Path) -> None:
    training = Training(lambda model: torch.optim.SGD(model.parameters(), lr=0.1))
    model, optimizer = training.start()
    recorder = UpdateRecorder(model, optimizer, tmp_path / "store", kind="replay", program=training.program)
    with recorder, recorder.step(list(range(8))):
        training.update(model, optimizer, 0)
    source = open_updates(str(tmp_path / "store"), program=training.program)
    for block in source.blocks(source.segments()[0]):
        module = model.get_submodule(block.layer)
        inputs = torch.randn({"0": (2, 2, 6, 6), "3": (2, 4, 4, 4), "6": (2, 75), "8": (2, 6)}[block.layer])
        (columns,) = block.per_example(module, source.final(block.layer), inputs)
        found = block.project(module, source.final(block.layer), inputs)
        scale = (found.preactivation_norm * found.norm[:, 0]).numpy()
        assert (np.abs(columns.sum(1).numpy() - found.gamma[:, 0].numpy()) <= 1e-4 * scale).all()
