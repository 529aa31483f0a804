"""The weights of one unit, in every kind of layer that is traced."""

import pytest
import torch
from torch import nn

from tasks.steps.tracing.layers import unit_of
from tasks.steps.tracing.targets import Target, only_unit

LAYERS = [
    (nn.Linear(5, 4), (3, 5)),
    (nn.Conv2d(4, 6, 3, padding=1, groups=2), (3, 4, 5, 5)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (3, 4, 3, 3)),
    (nn.Conv1d(2, 3, 2), (3, 2, 7)),
]


@pytest.mark.parametrize(("module", "shape"), LAYERS, ids=lambda given: type(given).__name__)
def test_only_one_output_is_left(module: nn.Linear, shape: tuple[int, ...]) -> None:
    """A layer with the weights of one unit has its output alone, and contributions are those of it alone."""
    torch.manual_seed(0)
    module = module.double()
    inputs, updates = torch.randn(shape).double(), torch.randn(7, *module.weight.shape).double()
    weight = module.weight.detach()

    def run(values: torch.Tensor) -> torch.Tensor:
        parameters = {"weight": values, "bias": torch.zeros_like(module.bias)}
        found: torch.Tensor = torch.func.functional_call(module, parameters, (inputs,)).detach()
        return found

    whole = run(weight)
    for unit in range(whole.shape[1]):
        expected = torch.zeros_like(whole)
        expected[:, unit] = whole[:, unit]
        kept = only_unit(module, weight, unit)
        torch.testing.assert_close(run(kept), expected)
        target = Target("m:0", "m", unit, module, weight, None, kept, False)
        found = target.contributions(inputs, updates, None)
        for step, update in enumerate(updates):
            moved = run(update)[:, unit].reshape(len(inputs), -1)
            gamma = (whole[:, unit].reshape(len(inputs), -1) * moved).sum(1)
            torch.testing.assert_close(found.gamma[:, step], gamma)
            torch.testing.assert_close(found.norm[:, step], moved.norm(dim=1))
    outputs = whole.shape[1]
    assert Target("m:0", "m", 0, module, weight, None, None, False).n_weights == weight.numel() // outputs


def test_names_of_units() -> None:
    assert unit_of("features.3:12") == ("features.3", 12)
    assert unit_of("features.3") == ("features.3", None)
    assert unit_of("a:b") == ("a:b", None)
