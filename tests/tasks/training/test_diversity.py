"""The diversity regulariser: its value and gradient against a slow float64 form, and its part in a training."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.splitting.channels import ChannelLayout
from tasks.training.diversity import Diversity, batch_distance, prepare_diversity
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers.shuffled import ShuffledBatches
from tests.tasks.training.steps import train_steps

Doubles = NDArray[np.float64]
N, CHANNELS, WORDS, WIDTH = 30, 5, 7, 4
LABELS = np.arange(N, dtype=np.int64) % 3
IDS = np.arange(N, dtype=np.int64) * 7 + 3


def unit_rows(n: int, seed: int) -> Tensor:
    """Return random unit rows (n, WIDTH)."""
    rows = torch.randn((n, WIDTH), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(rows)


INPUTS = torch.randn((N, 2, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
IMAGES, TEXT = unit_rows(N, 2), unit_rows(WORDS, 3)


def slow_distance(activations: Doubles, images: Doubles, words: Doubles, temperature: float) -> float:
    """Measure d_anchor of a batch: standardise, cube, cosine, softmax, nearest neuron of each word, in loops."""
    scores = images @ words.T

    def cubed(column: Doubles) -> Doubles:
        standard = ((column - column.mean()) / column.std()) ** 3
        unit: Doubles = standard / np.sqrt((standard**2).sum())
        return unit

    embeddings = []
    for neuron in activations.T:
        if np.ptp(neuron) == 0:
            continue
        similarity = np.array([cubed(neuron) @ cubed(word) for word in scores.T])
        weights = np.exp((similarity - similarity.max()) / temperature)
        embeddings.append((weights / weights.sum()) @ words)
    nearest = [min(float(np.linalg.norm(u - word)) for u in embeddings) for word in words]
    return float(np.mean(nearest))


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("m", [2, 9, N])
def test_the_distance_is_the_slow_one(m: int, temperature: float) -> None:
    activations = torch.randn((m, CHANNELS), generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    activations[:, 2] = 0.5  # a dead neuron takes no part
    found = float(batch_distance(activations, IMAGES[:m], TEXT, temperature))
    expected = slow_distance(activations.numpy(), IMAGES[:m].numpy(), TEXT.numpy(), temperature)
    assert found == pytest.approx(expected, rel=1e-9)
    scaled = activations * torch.tensor([1e-3, 5.0, 1.0, 1e4, 7.0]) + 3.0
    assert float(batch_distance(scaled, IMAGES[:m], TEXT, temperature)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.05, 1.0])
def test_the_gradient_is_that_of_central_differences(temperature: float) -> None:
    activations = torch.rand((12, CHANNELS), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    leaf = activations.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(batch_distance(leaf, IMAGES[:12], TEXT, temperature), leaf)
    step, values = 1e-6, activations.numpy()
    for index in np.ndindex(12, CHANNELS):
        moved = [values.copy(), values.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        up, down = (slow_distance(each, IMAGES[:12].numpy(), TEXT.numpy(), temperature) for each in moved)
        assert gradient[index].item() == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=1e-7)


def test_batches_without_live_neurons_add_nothing_and_infinity_is_not_a_number() -> None:
    for activations in (torch.ones(4, 3), torch.randn(1, 3)):
        leaf = activations.clone().requires_grad_()
        found = batch_distance(leaf, IMAGES[: len(leaf)], TEXT, 0.01)
        found.backward()  # type: ignore[no-untyped-call]  # torch's stub
        assert float(found.detach()) == 0
        assert leaf.grad is not None
        assert not leaf.grad.any()
    assert bool(batch_distance(torch.full((4, 3), float("inf")), IMAGES[:4], TEXT, 0.01).isnan())


def network() -> nn.Sequential:
    """Return a seeded network in float64; its module 1 has maps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        end = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(CHANNELS, 3)]
        return nn.Sequential(nn.Conv2d(2, CHANNELS, 3), nn.ReLU(), *end).double()


def fetch(positions: Any) -> tuple[Tensor, Tensor]:  # Any: positions
    return INPUTS[torch.from_numpy(positions)], torch.from_numpy(LABELS[positions])


def companion(model: nn.Module, beta: float = 2.0, **settings: Any) -> Diversity:  # Any: of prepare_diversity
    """Return the regulariser of a network's module 1."""
    given = {
        "layer": "1",
        "layout": None,
        "beta": beta,
        "temperature": 0.1,
        "words": TEXT,
        "images": IMAGES,
        "ids": IDS,
    }
    return prepare_diversity({**given, **settings}, model.eval(), INPUTS[:1], INPUTS)(model)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_follows_the_gradient_of_both_terms(optimizer: str) -> None:
    batches, model, twin = ShuffledBatches(LABELS, 0, 8), network(), network()
    settings = {"lr": 0.05}
    made = OPTIMIZERS[optimizer](model.parameters(), **settings)
    losses = train_steps(model, made, fetch, batches, 0, 4, ids=IDS, companions=(companion(model),))
    plain = OPTIMIZERS[optimizer](twin.parameters(), **settings)
    for step in range(4):
        rows = batches.batch(step).examples
        inputs, labels = fetch(rows)

        def closure(inputs: Tensor = inputs, labels: Tensor = labels, rows: Any = rows) -> Tensor:  # Any: positions
            twin.zero_grad()
            pooled = twin[:2](inputs).mean((2, 3))
            distance = batch_distance(pooled, IMAGES[torch.from_numpy(rows)], TEXT, 0.1)
            loss = F.cross_entropy(twin(inputs), labels) + 2.0 * distance
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            return loss

        loss: Any = plain.step(closure)  # type: ignore[arg-type]  # Any: the stub's float is a tensor
        assert losses[step] == pytest.approx(loss.item(), rel=1e-9)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_beta_zero_is_the_plain_training_and_a_large_beta_spreads_the_neurons() -> None:
    batches = ShuffledBatches(LABELS, 0, N)

    def trained(*companions: Diversity, model: nn.Sequential) -> Tensor:
        made = OPTIMIZERS["adam"](model.parameters(), lr=0.01)
        train_steps(model, made, fetch, batches, 0, 60, ids=IDS, companions=companions)
        with torch.no_grad():
            return batch_distance(nn.Sequential(model[0], model[1])(INPUTS).mean((2, 3)), IMAGES, TEXT, 0.1)

    models = [network() for _ in range(3)]
    plain = trained(model=models[0])
    none = trained(companion(models[1], beta=0.0), model=models[1])
    much = trained(companion(models[2], beta=10.0), model=models[2])
    assert float(none) == float(plain)
    assert float(much) < float(plain) - 0.05


@pytest.mark.parametrize("layout", [ChannelLayout("channels-last", (3, 3, 2)), ChannelLayout("tokens", (6, 4))])
def test_pooling_follows_the_layout(layout: ChannelLayout) -> None:
    values = torch.randn((8, *layout.shape), dtype=torch.float64)
    module = nn.Identity()
    made = Diversity(module, layout, beta=1.0, temperature=0.1, words=TEXT, images=IMAGES, ids=IDS)
    made.before_step(IDS[:5])
    with made.during(torch.zeros(5)):  # the last three rows are ghosts
        module(values)
    pooled = values[:5].reshape(5, -1, layout.n_channels).mean(1)
    torch.testing.assert_close(made.loss(), batch_distance(pooled, IMAGES[:5], TEXT, 0.1))


def test_images_without_features_and_absent_layers_are_named() -> None:
    made = companion(network())
    with pytest.raises(
        ValueError, match="diversity: expected features of every training image, found none of sample 4"
    ):
        made.before_step(np.array([3, 4]))
    with pytest.raises(ValueError, match=r"diversity: expected features .* sample 9999"):
        made.before_step(np.array([9999]))
    with pytest.raises(ValueError, match="diversity: layer 'absent': expected a module, found none"):
        companion(network(), layer="absent")
