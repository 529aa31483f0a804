"""A trainer's steps as a function: the same values bit for bit, and derivatives equal to central differences."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.tracing.adjoint import go_back, rows_of_jacobian, run_forward
from tasks.tracing.derivatives import CreditSums
from tasks.tracing.measures import MEASURES
from tasks.tracing.optimizer_rules import State
from tasks.training.adversary import Adversary
from tasks.training.augmentation import crop_and_flip
from tasks.training.companions import Companion
from tasks.training.course import TrainerCourse
from tasks.training.diversity import prepare_diversity
from tasks.training.gates import ClassGates, Gating
from tasks.training.ghost_norm import with_ghost_norm
from tasks.training.kept import gradient_bytes
from tasks.training.loop import Samples, Trainer
from tasks.training.lottery import prepare_masks
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers.shuffled import ShuffledBatches
from tasks.training.samplers.single_class import SingleClassBatches
from tasks.training.schedules import Span, decay_by_cosine

N, CLASSES, H = 10, 3, 1e-4
RNG = np.random.default_rng(0)
SCALE = 0.1  # standard deviation of the pixels, for an adversary
IMAGES = torch.from_numpy(RNG.normal(size=(N, 1, 4, 4))).clamp(-0.5 / SCALE, 0.5 / SCALE)
LABELS = torch.from_numpy(np.sort(RNG.integers(0, CLASSES, N)))
QUERIES = torch.from_numpy(RNG.normal(size=(3, 1, 4, 4)))
ANSWERS = torch.tensor([0, 2, 1])
IDS = np.arange(N) * 3 + 1  # ids are not positions
STEPS = 7
Doubles = NDArray[np.float64]


def network(*, norm: bool, dropout: float) -> nn.Sequential:
    """A small smooth convolutional network, float64; with batch norm its running statistics are part of the answer."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 3, 3, padding=1), *([nn.BatchNorm2d(3)] if norm else []), nn.Tanh(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, CLASSES)).double()


def trainer(optimizer: dict[str, Any], *, weights: Tensor | None = None, **parts: Any) -> Trainer:  # Any: settings
    """A training from the same start, with everything that a step may have."""
    settings = {"norm": True, "dropout": 0.0, "ghosts": 0, "gates": False, "clip": None, "schedule": False, **parts}
    model: nn.Module = network(norm=settings["norm"], dropout=settings["dropout"])
    batches: Any = ShuffledBatches(LABELS.numpy(), 5, size=4)  # Any: either kind
    if settings["ghosts"]:
        batches = SingleClassBatches(LABELS.numpy(), 5, size=3, ghosts=settings["ghosts"])
        model = with_ghost_norm(model, detach_ghosts=settings.get("detach", False))
    companions: tuple[Companion, ...] = ()
    if settings["gates"]:
        gates = ClassGates(3, CLASSES).double()
        with torch.no_grad():
            gates.weight.copy_(torch.linspace(0.2, 0.9, 9).view(3, 3))  # without ties, where it has derivatives
        companions = (Gating(gates, model.get_submodule("2"), plain_epochs=0, period=2, lr=0.05, share=0.1),)
    if settings.get("adversary"):
        scale = torch.full((1, 1, 1, 1), SCALE)
        companions += (Adversary(model, 0.5 + 0 * scale, scale, epsilon=0.02, step=0.01, steps=3),)
    if settings.get("masks"):
        companions += (masks(model),)
    if settings.get("diversity"):
        companions += (diversity(model),)
    kind = optimizer["kind"]
    groups = [{"params": list(model.parameters())}, *(group for one in companions for group in one.groups())]
    rest = {name: value for name, value in optimizer.items() if name != "kind"}
    span = Span(batches.per_epoch, math.ceil(STEPS / batches.per_epoch))
    return Trainer(
        model,
        OPTIMIZERS[kind](groups, **rest),
        Samples(lambda picked: (IMAGES[torch.from_numpy(picked)], LABELS[torch.from_numpy(picked)]), batches, IDS),
        partial(decay_by_cosine, span=span, warmup=0.5, final=0.1) if settings["schedule"] else None,
        settings["clip"],
        augmented if settings.get("augment") else None,
        companions,
        weights,
    )


def masks(model: nn.Module) -> Companion:
    """Masks that prune a third of the weights, which are 0 from the start."""
    kept = {name: torch.arange(p.numel()).view(p.shape) % 3 > 0 for name, p in model.named_parameters() if p.ndim > 1}
    with torch.no_grad():
        for name, mask in kept.items():
            model.get_parameter(name).mul_(mask)
    return prepare_masks({"masks": kept}, model, QUERIES, QUERIES)(model)


def diversity(model: nn.Module) -> Companion:
    """A regulariser on the channels after the activation, with random unit vectors in place of images and words."""
    vectors = nn.functional.normalize(torch.from_numpy(np.random.default_rng(7).normal(size=(N + 4, 5))), dim=1)
    settings = {"layer": "2", "layout": None, "beta": 0.5, "temperature": 0.5}
    rest = {"words": vectors[N:], "images": vectors[:N], "ids": IDS}
    return prepare_diversity({**settings, **rest}, model, QUERIES, QUERIES)(model)


def augmented(images: Tensor, ids: NDArray[np.int64], epoch: int) -> Tensor:
    """Random crops, a function of epoch and id."""
    return crop_and_flip(images, ids, seed=5, epoch=epoch, pad=1, flip=True)


def answers(model: nn.Module) -> Tensor:
    """The margins of the queries in evaluation mode."""
    model.eval()
    return MEASURES["margin"](model(QUERIES), ANSWERS)


def differences(make: Callable[..., Trainer]) -> Doubles:
    """Central differences of the trained answers by each example's weight, (Q, n)."""
    columns = []
    for position in range(N):
        ends = []
        for sign in (1, -1):
            weights = torch.ones(N, dtype=torch.float64)
            weights[position] += sign * H
            made = make(weights=weights)
            made.run(0, STEPS)
            with torch.no_grad():
                ends.append(answers(made.model))
        columns.append(((ends[0] - ends[1]) / (2 * H)).numpy())
    return np.stack(columns, 1)


def derivatives(made: Trainer) -> Doubles:
    """The same by going back through the steps, three states at a time."""
    course = TrainerCourse(made, dtype=torch.float64)
    passed = run_forward(course, course.state(), 0, STEPS, 3)
    leaves = {part: tensor.clone().requires_grad_() for part, tensor in passed.last.tensors.items()}
    last = State(leaves, passed.last.counts)
    adjoint = rows_of_jacobian(lambda: MEASURES["margin"](course.logits(last, QUERIES), ANSWERS), leaves)
    zeros = np.zeros((len(QUERIES), N))
    sums = CreditSums(lambda step: IDS[course.batch(step).examples], IDS, zeros, np.ones(len(QUERIES)))
    go_back(course, passed, adjoint, sums)
    return sums.sums


SGD = {"kind": "sgd", "lr": 0.2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # Any: settings
    "batch norm": (SGD, {}),
    "batch norm with momentum": ({**SGD, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, {}),
    "dropout": (SGD, {"norm": False, "dropout": 0.3}),
    "clipping and schedule": (SGD, {"clip": 0.3, "schedule": True}),
    "augmentation": (SGD, {"augment": True}),
    "ghosts": (SGD, {"ghosts": 4}),
    "detached ghosts": (SGD, {"ghosts": 4, "detach": True}),
    "gates": ({**SGD, "momentum": 0.5}, {"gates": True}),
    "adam": ({"kind": "adam", "lr": 0.02, "eps": 1e-2}, {"schedule": True}),
    "adamw": ({"kind": "adamw", "lr": 0.02, "eps": 1e-2}, {"ghosts": 4, "gates": False}),
    "sam": ({"kind": "sam", "lr": 0.1, "rho": 0.1, "momentum": 0.5}, {"clip": 0.5}),
    "masks": ({**SGD, "momentum": 0.5, "weight_decay": 0.1}, {"masks": True, "clip": 0.3}),
    "masks with ghosts": (SGD, {"masks": True, "ghosts": 4}),
    "masks with adam": ({"kind": "adam", "lr": 0.02, "eps": 1e-2, "weight_decay": 0.1}, {"masks": True}),
    "masks with adam without eps": ({"kind": "adam", "lr": 0.01, "eps": 0.0}, {"masks": True, "norm": False}),
    "masks with sam": ({"kind": "sam", "lr": 0.1, "rho": 0.1}, {"masks": True}),
    "diversity": ({**SGD, "momentum": 0.5}, {"diversity": True}),
    "diversity with ghosts and gates": (SGD, {"diversity": True, "ghosts": 4, "gates": True}),
    "adversary": ({**SGD, "momentum": 0.5}, {"adversary": True}),
    "adversary with ghosts": (SGD, {"adversary": True, "ghosts": 4}),
    "adversary with dropout": (SGD, {"adversary": True, "norm": False, "dropout": 0.3}),
    "adversary with sam": ({"kind": "sam", "lr": 0.1, "rho": 0.1}, {"adversary": True}),
    "all companions": (SGD, {"adversary": True, "masks": True, "diversity": True, "gates": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_derivatives_equal_central_differences_of_the_trainer(case: str) -> None:
    optimizer, parts = CASES[case]
    make = partial(trainer, optimizer, **parts)
    np.testing.assert_allclose(derivatives(make()), differences(make), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_states_are_those_of_the_trainer_bit_for_bit(case: str) -> None:
    optimizer, parts = CASES[case]
    made, plain = trainer(optimizer, **parts), trainer(optimizer, **parts)
    course = TrainerCourse(made, dtype=torch.float64)
    states = [course.state(), *course.states(course.state(), 0, 5)]
    again = list(course.states(states[2], 2, 5))  # from the middle, after the trainer went on
    plain.run(0, 5)
    expected = TrainerCourse(plain, dtype=torch.float64).state()
    for found in (states[5], again[-1]):
        assert dict(found.counts) == dict(expected.counts)
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[part], expected.tensors[part]) for part in expected.tensors)


def test_a_step_of_the_function_is_the_step_of_the_trainer() -> None:
    """The differentiated function has the same values up to rounding: its derivative is that of this training."""
    for optimizer, parts in CASES.values():
        made = trainer(optimizer, **parts)
        course = TrainerCourse(made, dtype=torch.float64)
        states = [course.state(), *course.states(course.state(), 0, 4)]
        for step in range(4):
            weights = torch.ones(course.examples(step), dtype=torch.float64, requires_grad=True)
            leaves = {part: tensor.clone().requires_grad_() for part, tensor in states[step].tensors.items()}
            after = course.step(step, State(leaves, states[step].counts), weights)
            assert after.tensors.keys() == states[step + 1].tensors.keys()
            for part, tensor in after.tensors.items():
                expected = states[step + 1].tensors[part].numpy()
                np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=1e-8, atol=1e-9, err_msg=str(part))


def test_a_float64_twin_differentiates_a_float32_training() -> None:
    """States are the float32 training's own, exactly; derivatives about them are computed in float64."""

    def narrow(weights: Tensor | None = None) -> Trainer:
        made = trainer(SGD, weights=weights)
        made.model.float()
        return made

    inputs = IMAGES.float()
    made, twin = narrow(), narrow()
    for one in (made, twin):
        object.__setattr__(one.samples, "fetch", lambda p: (inputs[torch.from_numpy(p)], LABELS[torch.from_numpy(p)]))
    twin.model.double()
    course = TrainerCourse(made, twin, torch.float64)
    states = list(course.states(course.state(), 0, 3))
    assert all(torch.equal(t.float().double(), t) for t in states[-1].tensors.values())
    assert all(p.dtype == torch.float32 for p in made.model.parameters())


def test_a_changed_tensor_outside_the_state_is_named() -> None:
    made = trainer(SGD, norm=False)
    made.model.register_buffer("steps_seen", torch.zeros(2, dtype=torch.float64))
    course = TrainerCourse(made, dtype=torch.float64)
    before = course.rest()
    made.model.get_buffer("steps_seen").add_(1)
    with pytest.raises(ValueError, match=r"found a change of 'model.steps_seen'; its influence cannot"):
        course.check_rest(before)


def test_an_unknown_optimiser_is_named() -> None:
    made = trainer(SGD)
    object.__setattr__(made, "optimizer", torch.optim.RMSprop(made.model.parameters()))
    with pytest.raises(ValueError, match=r"^optimizer: expected one of sgd, adam, adamw, sam, found RMSprop, which"):
        TrainerCourse(made)


def test_bytes_of_a_gradient_are_the_weights_and_what_grows_with_the_image() -> None:
    course = TrainerCourse(trainer({"kind": "sgd", "lr": 0.1}), dtype=torch.float64)
    state = course.state()
    weights = 8 * sum(tensor.numel() for tensor in course.state().part("weight").values())
    small, large = (
        gradient_bytes(course, state, torch.zeros(1, 1, side, side, dtype=torch.float64)) - weights for side in (16, 32)
    )
    assert small >= 2 * 8 * 3 * 16**2  # the convolution's output and that of tanh, at least
    assert small <= 10 * 8 * 3 * 16**2
    assert 3.5 * small < large < 4.1 * small


def test_gradients_of_queries_through_a_recurrent_layer() -> None:
    made = trainer(SGD, norm=False)

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.reader, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, CLASSES)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.head(self.reader(images[:, 0])[0][:, -1])
            return found

    model = Reader().double()
    made = replace(made, model=model, optimizer=OPTIMIZERS["sgd"](model.parameters(), lr=0.1))
    course = TrainerCourse(made, dtype=torch.float64)

    def losses(state: State, inputs: Tensor, classes: Tensor) -> Tensor:
        return nn.functional.cross_entropy(course.logits(state, inputs), classes, reduction="none")

    found = course.query_gradients(course.state(), QUERIES, ANSWERS, losses)
    for row, (query, answer) in enumerate(zip(QUERIES, ANSWERS, strict=True)):
        model.zero_grad()
        nn.functional.cross_entropy(model(query[None]), answer[None]).backward()  # type: ignore[no-untyped-call]  # stub
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found["weight", f"model.{name}"][row], parameter.grad)
