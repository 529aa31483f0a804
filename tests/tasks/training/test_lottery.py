"""Pruning against a plain sort in Python, masks under every optimiser, and batch norm's statistics of a start."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.training.lottery import Masking, estimate_statistics, masked, prepare_masks, prunable, prune
from tasks.training.optimizers import OPTIMIZERS
from tasks.training.samplers.shuffled import ShuffledBatches
from tests.tasks.training.steps import train_steps

LABELS = np.arange(24, dtype=np.int64) % 3
INPUTS = torch.randn((24, 2, 4, 4), generator=torch.Generator().manual_seed(1))


def slow_prune(weights: dict[str, Tensor], masks: dict[str, Tensor] | None, fraction: float) -> dict[str, list[bool]]:
    """Sort (magnitude, place of the tensor, index) of all remaining weights; remove the first of them."""
    kept = {
        name: [True] * w.numel() if masks is None else masks[name].flatten().tolist() for name, w in weights.items()
    }
    remaining = sorted(
        (abs(value), place, index)
        for place, (name, weight) in enumerate(weights.items())
        for index, value in enumerate(weight.flatten().tolist())
        if kept[name][index]
    )
    names = list(weights)
    for _, place, index in remaining[: math.ceil(fraction * len(remaining))]:
        kept[names[place]][index] = False
    return kept


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.2, 0.4, 0.5, 0.99, 1.0])
def test_stages_of_pruning_are_a_global_sort(fraction: float) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"b": (7, 3), "a": (4, 2, 3, 3), "c": (5,)}
    # few levels, so that most magnitudes are equal to others
    weights = {name: torch.randint(-6, 7, shape, generator=generator) / 4 for name, shape in shapes.items()}
    masks: dict[str, Tensor] | None = None
    for _ in range(4):
        expected = slow_prune(weights, masks, fraction)
        before = {name: weight.clone() for name, weight in weights.items()}
        given = None if masks is None else {name: mask.clone() for name, mask in masks.items()}
        found = prune(weights, masks, fraction)
        assert list(found) == list(weights)
        for name, mask in found.items():
            assert mask.dtype == torch.bool
            assert mask.shape == weights[name].shape
            assert mask.flatten().tolist() == expected[name]
            assert torch.equal(weights[name], before[name])
            assert given is None or masks is None or torch.equal(given[name], masks[name])
        masks = found


def test_forty_percent_of_what_remains_in_eight_stages() -> None:
    weights, remaining = {"w": torch.randn(10, 100)}, 1000
    masks = None
    for _ in range(8):
        masks = prune(weights, masks, 0.4)
        remaining -= math.ceil(0.4 * remaining)
        assert int(masks["w"].sum()) == remaining
    assert remaining == 16


def test_pruned_weights_do_not_come_back_and_their_size_does_not_count() -> None:
    masks = {"w": torch.tensor([False, True, True, True])}
    found = prune({"w": torch.tensor([9.0, 3.0, -1.0, 2.0])}, masks, 0.3)
    assert found["w"].tolist() == [False, True, False, True]


@pytest.mark.parametrize(
    ("weights", "masks", "fraction", "message"),
    [
        ({"a": torch.ones(2)}, None, -0.1, r"fraction: expected a number in \[0, 1\], found -0.1"),
        ({"a": torch.ones(2)}, None, 1.1, "fraction: expected"),
        ({"a": torch.tensor([1.0, float("nan")])}, None, 0.5, "weights: expected finite numbers, found NaN .* in a"),
        ({"a": torch.ones(2)}, {"b": torch.ones(2, dtype=torch.bool)}, 0.5, "masks: expected the names a, found b"),
        ({"a": torch.ones(2)}, {"a": torch.ones(3, dtype=torch.bool)}, 0.5, r"the shape of a, \(2,\), found \(3,\)"),
    ],
)
def test_bad_input_is_named(weights: Any, masks: Any, fraction: float, message: str) -> None:  # Any: bad input
    with pytest.raises(ValueError, match=message):
        prune(weights, masks, fraction)
    with pytest.raises(TypeError, match=r"masks: expected bool, found torch.float32 for a"):
        prune({"a": torch.ones(2)}, {"a": torch.ones(2)}, 0.5)


def network() -> nn.Sequential:
    """Return a seeded network with batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.Linear(8, 3)
        )


def test_weights_of_convolutions_and_linear_layers_are_prunable_each_once() -> None:
    model = network()
    assert prunable(model) == ["0.weight", "4.weight", "5.weight"]
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Embedding(3, 3))
    tied[1].weight = tied[0].weight
    assert prunable(tied) == ["0.weight"]


def fetch(positions: Any) -> tuple[Tensor, Tensor]:  # Any: positions
    return INPUTS[torch.from_numpy(positions)], torch.from_numpy(LABELS[positions])


SETTINGS: dict[str, dict[str, Any]] = {  # Any: of the optimisers
    "sgd": {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "adam": {"lr": 0.01, "weight_decay": 0.1},
    "adamw": {"lr": 0.01, "weight_decay": 0.1},
    "sam": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "rho": 0.5},
}


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_pruned_weights_stay_zero_and_take_no_part(optimizer: str, clip: float | None) -> None:
    model = network()
    weights = {name: model.get_parameter(name) for name in prunable(model)}
    masks = prune(weights, None, 0.6)
    model.load_state_dict(masked(model.state_dict(), masks))
    companion = prepare_masks({"masks": masks}, model, INPUTS, INPUTS)(model)
    made = OPTIMIZERS[optimizer](model.parameters(), **SETTINGS[optimizer])
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    train_steps(model, made, fetch, ShuffledBatches(LABELS, 0, 8), 0, 12, companions=(companion,), clip=clip)
    for name, weight in weights.items():
        gone = weight.detach()[~masks[name]]
        assert gone.numpy().tobytes() == bytes(4 * gone.numel())  # +0, bit for bit
        moved = weight.detach() != before[name]
        assert float(moved[masks[name]].float().mean()) > 0.9
        for value in made.state[weight].values():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                assert not value[~masks[name]].any()


def test_pruned_weights_stay_zero_where_an_optimiser_divides_zero_by_zero() -> None:
    inputs, model = INPUTS.flatten(1), nn.Linear(32, 3)
    masks = prune({"weight": model.weight}, None, 0.5)
    model.load_state_dict(masked(model.state_dict(), masks))
    companion = prepare_masks({"masks": masks}, model, inputs, inputs)(model)
    made = OPTIMIZERS["adam"](model.parameters(), lr=0.01, eps=0.0)

    def rows(at: Any) -> tuple[Tensor, Tensor]:  # Any: positions
        return inputs[torch.from_numpy(at)], torch.from_numpy(LABELS[at])

    train_steps(model, made, rows, ShuffledBatches(LABELS, 0, 8), 0, 3, companions=(companion,))
    assert torch.equal(model.weight.detach() != 0, masks["weight"])


def test_masked_steps_are_those_of_a_smaller_network() -> None:
    # A linear layer without its pruned inputs is the layer on fewer inputs: the same gradients, norms and ascents.
    inputs = torch.randn((24, 6), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    left = torch.tensor([0, 2, 5])
    large, small = nn.Linear(6, 3).double(), nn.Linear(3, 3).double()
    masks = {"weight": torch.zeros(3, 6, dtype=torch.bool)}
    masks["weight"][:, left] = True
    with torch.no_grad():
        small.weight.copy_(large.weight[:, left])
        small.bias.copy_(large.bias)
        large.weight.masked_fill_(~masks["weight"], 0)
    companion = prepare_masks({"masks": masks}, large, inputs, inputs)(large)
    losses = []
    for model, seen, companions in ((large, inputs, (companion,)), (small, inputs[:, left], ())):
        made = OPTIMIZERS["sam"](model.parameters(), **SETTINGS["sam"])

        def rows(at: Any, seen: Tensor = seen) -> tuple[Tensor, Tensor]:  # Any: positions
            return seen[torch.from_numpy(at)], torch.from_numpy(LABELS[at])

        losses.append(
            train_steps(model, made, rows, ShuffledBatches(LABELS, 0, 8), 0, 9, companions=companions, clip=0.3)
        )
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-10)
    torch.testing.assert_close(large.weight[:, left], small.weight)


def test_estimated_statistics_are_the_means_of_batches() -> None:
    model = network().eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    estimate_statistics(model, [INPUTS[:12], INPUTS[12:]])
    maps = [nn.functional.conv2d(part, state["0.weight"], state["0.bias"]) for part in (INPUTS[:12], INPUTS[12:])]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    var = torch.stack([m.transpose(0, 1).flatten(1).var(1, correction=1) for m in maps]).mean(0)
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)
    assert (norm.momentum, norm.training, model.training) == (0.1, False, False)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items() if not k.startswith("1."))


def test_masking_is_neutral_elsewhere() -> None:
    companion = Masking({})
    assert companion.loss() == 0.0
    assert (companion.groups(), companion.tensors(), companion.measures(fetch, 3)) == ([], {}, {})
