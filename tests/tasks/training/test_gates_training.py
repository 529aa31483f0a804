"""Trainings with class-specific gates against loops written out, and what gates find where channels are known."""

import copy
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.training.batches import Positions
from tasks.training.clipping import clip_gradients
from tasks.training.gates import ClassGates, Gating, largest_gates
from tasks.training.ghost_norm import ghost_rows, with_ghost_norm
from tasks.training.loop import set_rates
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers.shuffled import ShuffledBatches
from tasks.training.samplers.single_class import SingleClassBatches
from tasks.training.schedules import Span, decay_by_step
from tests.tasks.training.gated import CHANNELS, CLASSES, GATES, LABELS, SGD, fetch, grouped, network
from tests.tasks.training.steps import train_steps


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
        model, grouped(model, gates), fetch, batches, 0, 20, schedule=schedule, clip=0.5, companions=(gating,)
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
                with gating.during(labels):
                    loss = F.cross_entropy(net(inputs), labels) + gating.loss()
            else:
                loss = F.cross_entropy(net(inputs), labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            for stepper in steppers:
                stepper.step()
            if gated:
                gating.after_update()
    assert torch.equal(gates.weight, others.weight)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_plain_epochs_leave_gates_and_their_velocity_alone() -> None:
    model, gates = network(), ClassGates(CHANNELS, CLASSES).double()
    optimizer, batches = grouped(model, gates), ShuffledBatches(LABELS, 3, 8)
    gating = Gating(gates, model[1], plain_epochs=1, period=2)
    train_steps(model, optimizer, fetch, batches, 0, 4, companions=(gating,))
    assert torch.equal(gates.weight, torch.full_like(gates.weight, 0.5))
    assert gates.weight not in optimizer.state
    train_steps(model, optimizer, fetch, batches, 4, 8, companions=(gating,))
    values, velocity = gates.weight.detach().clone(), optimizer.state[gates.weight]["momentum_buffer"].clone()
    assert values.amax(1).tolist() == [1.0] * CHANNELS
    train_steps(model, optimizer, fetch, batches, 8, 12, companions=(gating,))
    assert torch.equal(gates.weight, values)
    assert torch.equal(optimizer.state[gates.weight]["momentum_buffer"], velocity)


def test_a_training_whose_gates_never_close_is_a_plain_one() -> None:
    results = []
    for gated in (False, True):
        model, gates = network(), ClassGates(CHANNELS, CLASSES).double()
        companions = (Gating(gates, model[1], plain_epochs=9),) if gated else ()
        batches = ShuffledBatches(LABELS, 3, 8)
        losses = train_steps(model, grouped(model, gates), fetch, batches, 0, 12, companions=companions)
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
    (loss,) = train_steps(twin, grouped(twin, gates), fetch, batches, 0, 1, companions=(gating,))
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
    train_steps(model, optimizer, planted, ShuffledBatches(labels, 0, 9), 0, 300, companions=(gating,))
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
