"""The training loop against one written out by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.training.batches import Positions
from tasks.training.loop import accuracy
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers.shuffled import ShuffledBatches
from tests.tasks.training.steps import train_steps

INPUTS = torch.randn((23, 5), generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(23) % 3


def fetch(positions: Positions) -> tuple[Tensor, Tensor]:
    """Return the samples at `positions`."""
    return INPUTS[torch.from_numpy(positions)], LABELS[torch.from_numpy(positions)]


def linear() -> nn.Linear:
    """Return a seeded linear model, 5 -> 3."""
    model = nn.Linear(5, 3)
    with torch.no_grad():
        model.weight.copy_(torch.arange(15.0).reshape(3, 5) / 30)
        model.bias.zero_()
    return model


def test_steps_are_those_of_the_gradient_by_hand() -> None:
    model, batches = linear(), ShuffledBatches(LABELS.numpy(), 4, 7)
    weight, bias = model.weight.detach().double().numpy().copy(), np.zeros(3)
    losses = train_steps(model, OPTIMIZERS["sgd"](model.parameters(), lr=0.3), fetch, batches, 0, 8)
    expected = []
    for batch in batches.epoch(0) + batches.epoch(1):
        x, y = INPUTS.double().numpy()[batch.examples], LABELS.numpy()[batch.examples]
        logits = x @ weight.T + bias
        share = np.exp(logits - logits.max(1, keepdims=True))
        share /= share.sum(1, keepdims=True)
        expected.append(-np.log(share[np.arange(len(y)), y]).mean())
        share[np.arange(len(y)), y] -= 1
        weight -= 0.3 * share.T @ x / len(y)
        bias -= 0.3 * share.mean(0)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    np.testing.assert_allclose(model.weight.detach(), weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cut", [1, 3, 4, 5, 7])
def test_a_cut_anywhere_gives_the_same_bits(cut: int) -> None:
    batches, results = ShuffledBatches(LABELS.numpy(), 0, 7), []
    for stops in ([8], [cut, 8]):
        model, losses, start = linear(), [], 0
        optimizer = OPTIMIZERS["sgd"](model.parameters(), lr=0.1)
        for stop in stops:
            losses += train_steps(model, optimizer, fetch, batches, start, stop)
            start = stop
        results.append((losses, model.weight.detach().clone()))
    assert results[0][0] == results[1][0]
    assert torch.equal(results[0][1], results[1][1])


def test_a_loss_that_is_not_finite_stops_with_its_step() -> None:
    model = linear()
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"step 2: expected a finite loss, found nan; lower the learning rate"):
        train_steps(
            model, OPTIMIZERS["sgd"](model.parameters(), lr=0.1), fetch, ShuffledBatches(LABELS.numpy(), 0, 7), 2, 3
        )


def test_accuracy_counts_right_answers_whatever_the_batch() -> None:
    model = linear()
    right = (model(INPUTS).argmax(1) == LABELS).sum().item()
    assert [accuracy(model, fetch, 23, size) for size in (1, 7, 256)] == [right / 23] * 3


def test_accuracy_is_taken_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(5), linear())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    accuracy(model, fetch, 23)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training


class Centred(nn.Module):
    """Subtracts 1 from its input, in place or not, before a linear layer."""

    def __init__(self, *, in_place: bool) -> None:
        super().__init__()
        self.in_place, self.fc = in_place, linear()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.fc(x.sub_(1) if self.in_place else x - 1)
        return logits


@pytest.mark.parametrize("kind", ["sgd", "sam"])  # SAM runs the network twice on a batch
def test_a_network_that_changes_its_input_is_trained_on_what_was_fetched(kind: str) -> None:
    kept, weights, accuracies = INPUTS.clone(), [], []
    for in_place in (True, False):
        model, batches = Centred(in_place=in_place), ShuffledBatches(LABELS.numpy(), 4, 7)
        optimizer = OPTIMIZERS[kind](model.parameters(), lr=0.3)
        train_steps(model, optimizer, lambda at: (kept[int(at[0]) :][:4], LABELS[int(at[0]) :][:4]), batches, 0, 8)
        weights.append(model.fc.weight.detach().clone())
        accuracies.append(accuracy(model, lambda at: (kept[: len(at)], LABELS[: len(at)]), 23))
    assert torch.equal(*weights)
    assert accuracies[0] == accuracies[1]
    torch.testing.assert_close(kept, INPUTS, rtol=0, atol=0)
