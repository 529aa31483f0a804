"""What contributions refuse, and the words they use."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.tracing import COVERED, Projector, check_covered, contributions, covered, gammas, unit_contributions

WEIGHT, INPUTS, UPDATES = torch.ones(4, 3), torch.ones(2, 3), torch.ones(5, 4, 3)
NAN = torch.full((2, 3), torch.nan)


class Doubled(nn.Linear):
    """A linear layer that does something else."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).square()


class Named(nn.Conv2d):
    """A convolution that does the same as its parent."""


@pytest.mark.parametrize(
    "module",
    [
        nn.BatchNorm2d(2),
        nn.Embedding(3, 2, max_norm=1.0),
        nn.LSTM(2, 2),
        nn.MultiheadAttention(4, 2),
        nn.Bilinear(2, 2, 2),
    ],
)
def test_an_uncovered_module_is_named(module: nn.Module) -> None:
    name = type(module).__name__
    assert not covered(module)
    known = "Linear, Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, Embedding"
    for call in (contributions, gammas):
        with pytest.raises(
            TypeError, match=rf"module: expected a module that tracing covers \({known}\), found {name}$"
        ):
            call(module, WEIGHT, INPUTS, UPDATES)
    with pytest.raises(TypeError, match=f"^blocks.1.norm: expected a module that tracing covers .*, found {name}"):
        check_covered("blocks.1.norm", module)


def test_subclasses_count_when_they_compute_the_same() -> None:
    assert covered(Named(2, 2, 1))
    assert not covered(Doubled(2, 2))
    assert not covered(nn.MultiheadAttention(4, 2).out_proj)
    assert all(covered(one(2, 2, *([1] if one is not nn.Linear else []))) for one in COVERED)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"inputs": torch.ones(2, 4)}, r"inputs: expected shape \(Q, ..., 3\), found \(2, 4\)"),
        ({"inputs": torch.ones(3)}, r"inputs: expected shape \(Q, ..., 3\), found \(3,\)"),
        ({"weight": torch.ones(4, 3, 1)}, r"weight: expected 2 axes for Linear, none empty, found shape \(4, 3, 1\)"),
        ({"updates": torch.ones(4, 3)}, r"updates: expected shape \(any, 4, 3\), found \(4, 3\)"),
        ({"updates": torch.ones(5, 3, 4)}, r"updates: expected shape \(any, 4, 3\), found \(5, 3, 4\)"),
        ({"anchor": torch.ones(3, 4)}, r"anchor: expected shape \(4, 3\), found \(3, 4\)"),
        ({"inputs": NAN}, "inputs: expected finite values, found NaN or inf in 2 of 2 rows, the first is row 0"),
        ({"anchor": torch.full((4, 3), torch.inf)}, "anchor: expected finite values, found NaN or inf in 4 of 4 rows"),
        (
            {"updates": torch.full((5, 4, 3), torch.nan)},
            "updates: expected finite values, found NaN or inf in 5 of 5 rows",
        ),
        ({"updates": UPDATES.double()}, "updates: expected torch.float32 on cpu, as inputs is, found torch.float64"),
        ({"weight": WEIGHT.double()}, "weight: expected torch.float32 on cpu, as inputs is, found torch.float64"),
        ({"inputs": INPUTS.long()}, "inputs: expected floating-point numbers, found torch.int64"),
        ({"bias": torch.ones(4)}, "bias, bias_updates: expected both or neither"),
        ({"bias_updates": torch.ones(5, 4)}, "bias, bias_updates: expected both or neither"),
        ({"bias": torch.ones(3), "bias_updates": torch.ones(5, 3)}, r"bias: expected shape \(4\), found \(3,\)"),
        (
            {"bias": torch.ones(4), "bias_updates": torch.ones(4, 4)},
            r"bias_updates: expected shape \(5, 4\), found \(4, 4\)",
        ),
        (
            {"bias": torch.ones(4), "bias_updates": torch.full((5, 4), torch.nan)},
            "bias_updates: expected finite values, found NaN or inf in 5 of 5 rows",
        ),
    ],
)
def test_wrong_tensors_are_refused(changed: dict[str, Tensor], message: str) -> None:
    given: dict[str, Any] = {"weight": WEIGHT, "inputs": INPUTS, "updates": UPDATES} | changed  # Any: of many types
    with pytest.raises(ValueError, match=message):
        contributions(nn.Linear(3, 4), **given)


@pytest.mark.parametrize("name", ["weight", "inputs", "updates", "anchor", "bias"])
def test_arrays_are_refused(name: str) -> None:
    given: dict[str, Any] = {"weight": WEIGHT, "inputs": INPUTS, "updates": UPDATES}  # Any: of many types
    if name == "bias":
        given |= {"bias": torch.ones(4), "bias_updates": torch.ones(5, 4)}
    given[name] = np.ones((2, 2))
    with pytest.raises(TypeError, match=f"{name}: expected a torch tensor, found ndarray"):
        contributions(nn.Linear(3, 4), **given)


def test_convolutions_check_their_channels() -> None:
    conv = nn.Conv2d(4, 6, 3, groups=2)
    weight = torch.ones(6, 2, 3, 3)
    with pytest.raises(ValueError, match=r"inputs: expected shape \(any, 4, any, any\), found \(1, 3, 5, 5\)"):
        contributions(conv, weight, torch.ones(1, 3, 5, 5), weight[None])
    with pytest.raises(ValueError, match="weight: expected a multiple of 2 groups as rows, found 5"):
        contributions(conv, weight[:5], torch.ones(1, 4, 5, 5), weight[None, :5])
    with pytest.raises(ValueError, match=r"expected at least the kernel's \(3, 3\) positions, found \(2, 5\)"):
        contributions(conv, weight, torch.ones(1, 4, 2, 5), weight[None])


def test_units_and_projectors_say_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"unit: expected 0\.\.3, found 4"):
        unit_contributions(nn.Linear(3, 4), WEIGHT, INPUTS, UPDATES, 4)
    projector = Projector(nn.Linear(3, 4), WEIGHT, INPUTS, norms=False)
    with pytest.raises(ValueError, match="norms: expected a projector with norms=True, found False; call gammas"):
        projector.contributions(UPDATES)
    with pytest.raises(ValueError, match="bias, bias_updates: expected both or neither"):
        projector.gammas(UPDATES, torch.ones(5, 4))
