"""Class-specific gates against loops written out, and what they find where each class's channels are known."""

import copy
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from configs.training import Gates
from tasks.io.networks import build_model
from tasks.training.batches import Positions
from tasks.training.clipping import clip_gradients
from tasks.training.gates import ClassGates, GatedMap, Gating, find_gated_map, largest_gates
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tasks.training.loop import set_rates, train_steps
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers.shuffled import ShuffledBatches
from tasks.training.samplers.single_class import SingleClassBatches
from tasks.training.schedules import Span, decay_by_step

N, CHANNELS, CLASSES = 30, 4, 3
LABELS = np.arange(N, dtype=np.int64) % CLASSES
INPUTS = torch.randn((N, 2, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SGD = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
GATES = {"lr": 0.5, "momentum": 0.5}


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    """Return samples by position."""
    return INPUTS[torch.from_numpy(positions)], torch.from_numpy(LABELS[positions])


def network(*, norm: bool = False) -> nn.Sequential:
    """Return a seeded network in float64; its module 1 or 2 puts out the last map."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        start = [nn.Conv2d(2, CHANNELS, 3), *([nn.BatchNorm2d(CHANNELS)] if norm else []), nn.ReLU()]
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, CLASSES)]
        return nn.Sequential(*start, *end).double()


def random_gates(seed: int = 0) -> ClassGates:
    """Return gates between -0.2 and 1.2, in float64."""
    values = torch.rand((CHANNELS, CLASSES), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gates = ClassGates(CHANNELS, CLASSES).double()
    with torch.no_grad():
        gates.weight.copy_(1.4 * values - 0.2)
    return gates


def grouped(model: nn.Module, gates: ClassGates, **settings: Any) -> torch.optim.Optimizer:  # Any: of SGD
    """Return one optimiser with the gates as a group of their own, as a training makes it."""
    own = {**GATES, "weight_decay": 0.0, "nesterov": False}
    groups = [{"params": list(model.parameters())}, {"params": [gates.weight], **own}]
    return OPTIMIZERS["sgd"](groups, **{**SGD, **settings})


def test_gates_start_half_open() -> None:
    assert torch.equal(ClassGates(2, 3).weight, torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]))


@pytest.mark.parametrize("m", [7, 5])
def test_each_channel_is_multiplied_by_the_gate_of_the_label(m: int) -> None:
    maps = torch.randn((7, CHANNELS, 3, 2), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels, gates = torch.tensor([2, 0, 1, 1, 0, 2, 2][:m]), random_gates()
    before, found = maps.clone(), gates(maps, labels)
    expected = maps.clone()
    for i, label in enumerate(labels.tolist()):
        for k in range(CHANNELS):
            expected[i, k] = maps[i, k] * float(gates.weight[k, label].detach())
    assert torch.equal(found, expected)  # rows beyond the labels as they are
    assert torch.equal(maps, before)


def test_the_gradient_of_a_gate_sums_over_the_images_of_its_class() -> None:
    maps = torch.randn((6, CHANNELS, 3, 2), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    labels, gates = torch.tensor([2, 0, 1, 1, 0, 2]), random_gates()
    factor = torch.randn(maps.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (gates(maps, labels) * factor).sum().backward()
    expected = torch.zeros((CHANNELS, CLASSES), dtype=torch.float64)
    for i, label in enumerate(labels.tolist()):
        expected[:, label] += (maps[i] * factor[i]).sum((1, 2))
    assert gates.weight.grad is not None
    torch.testing.assert_close(gates.weight.grad, expected, rtol=1e-12, atol=1e-12)


def test_the_penalty_is_the_l1_norm_beyond_its_share() -> None:
    gates = random_gates()
    norm = sum(abs(value) for row in gates.weight.tolist() for value in row)
    assert float(gates.penalty(0.2).detach()) == pytest.approx(norm - 0.2 * CHANNELS * CLASSES, rel=1e-12)
    for share, slope in ((0.2, gates.weight.detach().sign()), (1.0, torch.zeros_like(gates.weight))):
        (gradient,) = torch.autograd.grad(gates.penalty(share), [gates.weight])
        assert torch.equal(gradient, slope)
    assert float(gates.penalty(1.0).detach()) == 0.0


def test_rows_are_divided_by_their_maximum_and_clamped() -> None:
    rows = [[0.5, 1.0, -0.25], [2.0, 4.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -4.0], [0.0, 0.2, -9.0]]
    gates = ClassGates.of(torch.tensor(rows))
    gates.normalise()
    assert gates.weight.tolist() == [[0.5, 1.0, 0.0], [0.5, 1.0, 0.25], [0.0] * 3, [0.0] * 3, [0.0, 1.0, 0.0]]
    before = gates.weight.detach().clone()
    gates.normalise()
    assert torch.equal(gates.weight, before)


def test_the_penalty_alone_closes_no_channel() -> None:
    gates = ClassGates(2, 3)
    gating, optimizer = Gating(gates, nn.Identity(), weight=0.1), torch.optim.SGD(gates.parameters(), lr=1.0)
    for _ in range(5):
        gating.loss().backward()  # type: ignore[no-untyped-call]  # torch's stub
        optimizer.step()
        gating.settle()
    assert gates.weight.tolist() == [[1.0] * 3] * 2
    assert gates.weight.grad is None


def test_which_epochs_have_gates() -> None:
    gating = Gating(ClassGates(1, 1), nn.Identity())
    assert [epoch for epoch in range(25) if gating.takes_part(epoch)] == [11, 14, 17, 20, 23]
    always = Gating(ClassGates(1, 1), nn.Identity(), plain_epochs=0, period=1)
    assert all(always.takes_part(epoch) for epoch in range(5))


def test_the_config_knows_the_first_epoch_with_gates() -> None:
    for plain in range(12):
        for period in range(1, 6):
            gating = Gating(ClassGates(1, 1), nn.Identity(), plain_epochs=plain, period=period)
            first = next(epoch for epoch in range(99) if gating.takes_part(epoch))
            assert Gates(lr=1, plain_epochs=plain, period=period).first_epoch == first, (plain, period)


def loop_by_hand(model: nn.Sequential, gates: ClassGates, gated: set[int], clip: float) -> list[float]:
    """Train five epochs with two optimisers of torch's and every image by itself; change both in place."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9, nesterov=True, weight_decay=0.01, foreach=False)
    other = torch.optim.SGD([gates.weight], 0.5, 0.5, foreach=False)
    batches, losses = ShuffledBatches(LABELS, 3, 8), []
    for epoch in range(5):
        for index, batch in enumerate(batches.epoch(epoch)):
            rate = 0.5 ** ((epoch * batches.per_epoch + index) // batches.per_epoch // 2)
            set_rates(optimizer, rate)
            set_rates(other, rate)
            inputs, labels = fetch(batch.examples)
            optimizer.zero_grad()
            loss = torch.zeros((), dtype=torch.float64)
            for image, label in zip(inputs, labels.tolist(), strict=True):
                maps = model[:2](image[None])
                if epoch in gated:
                    maps = torch.stack([gates.weight[k, label] * maps[0, k] for k in range(CHANNELS)])[None]
                loss = loss + F.cross_entropy(model[2:](maps), torch.tensor([label])) / len(labels)
            if epoch in gated:
                excess = gates.weight.abs().sum() - 0.3 * CHANNELS * CLASSES
                loss = loss + 0.01 * torch.maximum(excess, torch.zeros_like(excess))
                other.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            clip_gradients(model.parameters(), clip)
            optimizer.step()
            if epoch in gated:
                other.step()
                with torch.no_grad():
                    for row in gates.weight:
                        top = float(row.max())
                        row.copy_((row / top).clamp(0, 1) if top > 0 else torch.zeros_like(row))
            losses.append(float(loss.detach()))
    return losses


def test_a_training_with_gates_is_that_of_a_loop_with_two_optimisers() -> None:
    model, gates = network(), ClassGates(CHANNELS, CLASSES).double()
    by_hand, gates_by_hand = copy.deepcopy(model), copy.deepcopy(gates)
    gating = Gating(gates, model[1], weight=0.01, share=0.3, plain_epochs=1, period=2)
    schedule = partial(decay_by_step, span=Span(4, 5), every=2, factor=0.5)
    batches = ShuffledBatches(LABELS, 3, 8)
    losses = train_steps(
        model, grouped(model, gates), fetch, batches, 0, 20, schedule=schedule, clip=0.5, gating=gating
    )
    np.testing.assert_allclose(losses, loop_by_hand(by_hand, gates_by_hand, {1, 3}, 0.5), rtol=1e-10)
    torch.testing.assert_close(gates.weight, gates_by_hand.weight, rtol=1e-9, atol=1e-12)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, by_hand.state_dict()[name], rtol=1e-9, atol=1e-12)
    assert not torch.equal(gates.weight, torch.full_like(gates.weight, 0.5))


def test_two_optimisers_are_one_with_two_groups_bit_for_bit() -> None:
    model, batches = network(), ShuffledBatches(LABELS, 3, 8)
    twin = copy.deepcopy(model)
    gates, others = ClassGates(CHANNELS, CLASSES).double(), ClassGates(CHANNELS, CLASSES).double()
    one = grouped(model, gates)
    two = OPTIMIZERS["sgd"](twin.parameters(), **SGD), OPTIMIZERS["sgd"]([others.weight], **GATES)
    for step in range(12):
        inputs, labels = fetch(batches.batch(step).examples)
        for net, own, steppers in ((model, gates, (one,)), (twin, others, two)):
            gating = Gating(own, net[1], weight=0.01)
            gated = step % 3 == 2
            for stepper in steppers:
                stepper.zero_grad(set_to_none=True)
            if gated:
                with gating.closing(labels):
                    loss = F.cross_entropy(net(inputs), labels) + gating.loss()
            else:
                loss = F.cross_entropy(net(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            for stepper in steppers:
                stepper.step()
            if gated:
                gating.settle()
    assert torch.equal(gates.weight, others.weight)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_plain_epochs_leave_gates_and_their_velocity_alone() -> None:
    model, gates = network(), ClassGates(CHANNELS, CLASSES).double()
    optimizer, batches = grouped(model, gates), ShuffledBatches(LABELS, 3, 8)
    gating = Gating(gates, model[1], plain_epochs=1, period=2)
    train_steps(model, optimizer, fetch, batches, 0, 4, gating=gating)
    assert torch.equal(gates.weight, torch.full_like(gates.weight, 0.5))
    assert gates.weight not in optimizer.state
    train_steps(model, optimizer, fetch, batches, 4, 8, gating=gating)
    values, velocity = gates.weight.detach().clone(), optimizer.state[gates.weight]["momentum_buffer"].clone()
    assert values.amax(1).tolist() == [1.0] * CHANNELS
    train_steps(model, optimizer, fetch, batches, 8, 12, gating=gating)
    assert torch.equal(gates.weight, values)
    assert torch.equal(optimizer.state[gates.weight]["momentum_buffer"], velocity)


def test_a_training_whose_gates_never_close_is_a_plain_one() -> None:
    results = []
    for gated in (False, True):
        model, gates = network(), ClassGates(CHANNELS, CLASSES).double()
        gating = Gating(gates, model[1], plain_epochs=9) if gated else None
        losses = train_steps(model, grouped(model, gates), fetch, ShuffledBatches(LABELS, 3, 8), 0, 12, gating=gating)
        results.append((losses, [p.detach().clone() for p in model.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(p, q) for p, q in zip(results[0][1], results[1][1], strict=True))


def test_ghosts_pass_beside_the_gates() -> None:
    model = network(norm=True)
    twin = with_ghost_norm(copy.deepcopy(model))
    assert isinstance(twin, nn.Sequential)
    gates = ClassGates(CHANNELS, CLASSES).double()
    gating = Gating(gates, twin[2], weight=0.01, plain_epochs=0, period=1)
    batches = SingleClassBatches(LABELS, 0, size=4, ghosts=6)
    (loss,) = train_steps(twin, grouped(twin, gates), fetch, batches, 0, 1, gating=gating)
    batch, fresh = batches.batch(0), with_ghost_norm(model).train()
    assert isinstance(fresh, nn.Sequential)
    inputs, _ = fetch(np.concatenate([batch.examples, batch.ghosts]))
    with ghost_rows(fresh, 4, 6):
        maps = fresh[:3](inputs)[:4]
    expected = F.cross_entropy(fresh[3:](0.5 * maps), torch.full((4,), batch.label)) + 0.01 * 0.3 * CHANNELS * CLASSES
    assert loss == pytest.approx(float(expected.detach()), rel=1e-12)


def trained_on_planted(own: NDArray[np.int64], n_channels: int) -> tuple[ClassGates, list[float]]:
    """Train gates where class c lights the channels `own[c]`; return them, and the accuracies without and with them."""
    labels = np.arange(90, dtype=np.int64) % len(own)
    images = np.random.default_rng(1).random((90, n_channels, 4, 4)) * 0.3
    for i, label in enumerate(labels):
        images[i, own[label]] += 1.0
    shown = torch.from_numpy(images).float()
    head = nn.Linear(n_channels, len(own))
    model = nn.Sequential(nn.Conv2d(n_channels, n_channels, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.eye(n_channels)[:, :, None, None] if name == "0.weight" else 0 * parameter)
    gates = ClassGates(n_channels, len(own))
    gating = Gating(gates, model[1], weight=0.05, share=1 / len(own), plain_epochs=3)

    def planted(at: Positions) -> tuple[Tensor, Tensor]:
        return shown[torch.from_numpy(at)], torch.from_numpy(labels[at])

    optimizer = grouped(model, gates, lr=0.1, weight_decay=0.0)
    train_steps(model, optimizer, planted, ShuffledBatches(labels, 0, 9), 0, 300, gating=gating)
    truth = torch.from_numpy(labels)
    with torch.inference_mode():
        maps = model[:2](shown)
        both = [model[2:](maps), model[2:](gates(maps, truth))]
    return gates, [float((logits.argmax(1) == truth).float().mean()) for logits in both]


def test_the_gates_find_the_channels_that_show_a_class() -> None:
    own = np.sort(np.random.default_rng(0).permutation(6).reshape(3, 2), axis=1)
    gates, accuracies = trained_on_planted(own, 6)
    indices, ties = largest_gates(gates.weight.detach().numpy(), 2)
    np.testing.assert_array_equal(np.sort(indices, axis=1), own)
    assert not ties.any()
    others = gates.weight.detach().clone()
    for label, channels in enumerate(own):
        assert others[channels, label].tolist() == [1.0, 1.0]
        others[channels, label] = 0
    assert float(others.max()) < 0.1
    assert accuracies == [1.0, 1.0]


def test_the_largest_gates_by_hand() -> None:
    gates = np.array([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0], [0.2, 1.0]], np.float32)
    indices, ties = largest_gates(gates, 2)
    np.testing.assert_array_equal(indices, [[0, 2], [1, 2]])
    assert indices.dtype == np.int64
    np.testing.assert_array_equal(ties, [False, True])
    np.testing.assert_array_equal(largest_gates(gates, 4)[0], [[0, 2, 1, 3], [1, 2, 3, 0]])
    assert not largest_gates(gates, 4)[1].any()
    for k in (0, 5):
        with pytest.raises(ValueError, match=rf"k: expected 1\.\.4, found {k}"):
            largest_gates(gates, k)


PLACES: list[tuple[str, dict[str, Any], tuple[int, ...], GatedMap]] = [
    ("small-cnn", {"width": 4}, (1, 8, 8), GatedMap("8", 8, 10)),
    ("cifar-resnet20", {}, (3, 32, 32), GatedMap("layer3", 64, 10)),
    ("resnet18", {"num_classes": 7}, (3, 64, 64), GatedMap("layer4", 512, 7)),  # its last ReLU is called twice
    ("cifar-vgg16", {"width": 0.05}, (3, 32, 32), GatedMap("features.42", 26, 10)),
]


@pytest.mark.parametrize(("name", "arguments", "shape", "expected"), PLACES)
def test_where_gates_go(name: str, arguments: dict[str, Any], shape: tuple[int, ...], expected: GatedMap) -> None:
    model = build_model(name, arguments, 0).eval()
    example = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    found = find_gated_map(model, example)
    assert found == expected
    gates = ClassGates(found.n_channels, found.n_classes)
    with torch.inference_mode():
        plain = model(example)
        outputs = []
        for value in (1.0, 0.0):
            gates.weight.fill_(value)
            with Gating(gates, model.get_submodule(found.name)).closing(torch.tensor([3])):
                outputs.append(model(example))
        again = model(example)
    assert torch.equal(outputs[0], plain)
    assert torch.equal(again, plain)  # no hook stays
    assert not torch.equal(outputs[1], plain)
    with torch.inference_mode(), Gating(gates, model.get_submodule(found.name)).closing(torch.tensor([3])):
        assert torch.equal(model(-example), outputs[1])  # all closed: the image does not matter


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "message"),
    [
        ("densenet121", {}, (3, 64, 64), r"last map before pooling, relu in .* is the output of no module"),
        ("mlp", {"sizes": [64, 8, 3]}, (1, 8, 8), r"no place for class-specific gates: layer 'last-map'"),
    ],
)
def test_networks_without_a_place_are_refused(
    name: str, arguments: dict[str, Any], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        find_gated_map(build_model(name, arguments, 0).eval(), torch.zeros((1, *shape)) + 0.5)
