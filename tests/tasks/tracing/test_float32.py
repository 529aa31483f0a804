"""float32 in, float32 out, within 2e-5 of preactivation norm times norm, also where sums cancel."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from tasks.tracing import contributions, unit_contributions
from tasks.tracing import projector as projector_file

Data = Literal["normal", "offset", "cancelling", "tiny", "dead"]
MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(300, 20), (300,)),
    "tokens": (nn.Linear(64, 32), (50, 64)),
    "conv, many positions": (nn.Conv2d(8, 16, 3, padding=1), (8, 16, 16)),
    "conv, few positions": (nn.Conv2d(64, 32, 3, padding=1), (64, 2, 2)),
    "grouped": (nn.Conv2d(32, 32, 3, padding=1, groups=4), (32, 7, 7)),
    "transposed": (nn.ConvTranspose2d(12, 6, 3, stride=2), (12, 5, 5)),
}


def drawn(module: nn.Module, shape: tuple[int, ...], data: Data) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, inputs (5, ...) and updates (7, ...) in float32."""
    generator = torch.Generator().manual_seed(0)
    size = tuple(module.get_parameter("weight").shape)
    weight, inputs, updates = (torch.randn(*s, generator=generator) for s in (size, (5, *shape), (7, *size)))
    if data != "normal":
        inputs = inputs.relu()
    if data in ("offset", "cancelling"):
        inputs += 30
    if data == "cancelling":  # each output's weights sum to 0: the offset goes, and digits with it
        axes = (0, *range(2, len(size))) if isinstance(module, nn.ConvTranspose2d) else tuple(range(1, len(size)))
        weight -= weight.mean(dim=axes, keepdim=True)
        updates -= updates.mean(dim=tuple(axis + 1 for axis in axes), keepdim=True)
    if data == "tiny":
        updates *= 1e-25
    if data == "dead":  # the updates touch only inputs that are 0
        half = size[0 if isinstance(module, nn.ConvTranspose2d) else 1] // 2
        touched = updates[:, :half] if isinstance(module, nn.ConvTranspose2d) else updates[:, :, :half]
        touched[:3] = 0
        channel = inputs[..., half:] if isinstance(module, nn.Linear) else inputs[:, half:]
        channel[:2] = 0
    return weight, inputs, updates


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("data", ["normal", "offset", "cancelling", "tiny", "dead"])
@pytest.mark.parametrize("strategy", ["chosen", "matrices", "convolution", "gram"])
def test_within_the_promised_error(name: str, data: Data, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, shape = MODULES[name]
    if strategy == "convolution" and isinstance(module, nn.Linear):
        strategy = "chosen"
    weight, inputs, updates = drawn(module, shape, data)
    exact = contributions(module, weight.double(), inputs.double(), updates.double())
    if strategy != "chosen":
        monkeypatch.setattr(projector_file, "choose_strategy", lambda *_: strategy)
    found = contributions(module, weight, inputs, updates)
    assert found.gamma.dtype == found.norm.dtype == found.cosine.dtype == torch.float32
    scale = exact.preactivation_norm[:, None] * exact.norm
    assert ((found.gamma.double() - exact.gamma).abs() <= 2e-5 * scale).all()
    assert ((found.norm.double() - exact.norm).abs() <= 2e-5 * exact.norm).all()
    assert ((found.cosine.double() - exact.cosine).abs() <= 4e-5).all()
    torch.testing.assert_close(found.preactivation_norm.double(), exact.preactivation_norm, rtol=1e-6, atol=0)


def test_a_nearly_annihilated_input_keeps_its_digits_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector_file, "choose_strategy", lambda *_: "gram")
    inputs = torch.ones(1, 1, 8, dtype=torch.float64)
    inputs[0, 0, 1::2] += 1e-7
    updates = torch.tensor([[[[1.0, -1.0]]]], dtype=torch.float64)
    found = contributions(nn.Conv1d(1, 1, 2), updates[0], inputs, updates)
    difference = float(inputs[0, 0, 1] - inputs[0, 0, 0])
    assert float(found.norm[0, 0]) == pytest.approx(7**0.5 * difference, rel=1e-12)
    assert float(found.cosine[0, 0]) == pytest.approx(1, rel=1e-12)


def test_half_precision_is_taken_and_widened() -> None:
    module, shape = MODULES["conv, few positions"]
    narrow = [tensor.half() for tensor in drawn(module, shape, "normal")]
    found = contributions(module, *narrow)
    expected = contributions(module, *[tensor.float() for tensor in narrow])
    assert found.gamma.dtype == torch.float32
    torch.testing.assert_close(found.gamma, expected.gamma, rtol=1e-5, atol=1e-3)


def test_reduced_precision_flags_do_not_reach_the_results() -> None:
    module, shape = MODULES["linear"]
    tensors = drawn(module, shape, "normal")
    exact = contributions(module, *[tensor.double() for tensor in tensors])
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        found = contributions(module, *tensors)
    finally:
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(found.gamma.double(), exact.gamma, rtol=1e-5, atol=1e-3)


def test_units_add_up_to_the_layer() -> None:
    module, shape = MODULES["grouped"]
    weight, inputs, updates = (tensor.double() for tensor in drawn(module, shape, "offset"))
    whole = contributions(module, weight, inputs, updates)
    units = [unit_contributions(module, weight, inputs, updates, unit) for unit in range(32)]
    torch.testing.assert_close(sum(unit.gamma for unit in units), whole.gamma)
    torch.testing.assert_close(sum(unit.norm.square() for unit in units), whole.norm.square())
