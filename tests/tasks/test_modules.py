"""Kinds of modules: each computes what torch's module computes, and what is not of a kind is found out."""

import pytest
import torch
from torch import Tensor, nn

from tasks.modules import MODULES, ModuleKind, Use, kind_of

KINDS: dict[type[nn.Module], tuple[nn.Module, tuple[int, ...]]] = {
    nn.Linear: (nn.Linear(6, 4), (6,)),
    nn.Conv1d: (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (4, 9)),
    nn.Conv2d: (nn.Conv2d(4, 6, (3, 2), dilation=2, groups=2, padding_mode="circular", padding=1), (4, 7, 6)),
    nn.Conv3d: (nn.Conv3d(2, 3, 2, padding="same"), (2, 4, 3, 5)),
    nn.ConvTranspose1d: (nn.ConvTranspose1d(4, 6, 3, stride=2, groups=2, output_padding=1), (4, 5)),
    nn.ConvTranspose2d: (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 3)),
    nn.ConvTranspose3d: (nn.ConvTranspose3d(2, 3, 2, dilation=2), (2, 3, 4, 2)),
}


@pytest.mark.parametrize("known", [kind for kind in MODULES if kind is not nn.Embedding], ids=lambda one: one.__name__)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_matrices_times_rows_are_what_torch_computes(known: type[nn.Module]) -> None:
    module, shape = KINDS[known]
    module = module.double()
    kind = kind_of(module)
    assert kind is MODULES[known]
    weight, bias = (getattr(module, name).detach() for name in kind.parameters)
    x = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    use = Use(module, tuple(weight.shape))
    inputs = kind.inputs(module, (x,))
    n_inputs, n_outputs = kind.sizes(use)
    assert (n_inputs, n_outputs) == (shape[0], len(bias))
    rows, matrices = kind.rows(use, inputs), kind.matrices(use, weight[None])[0]
    found = (matrices.reshape(*matrices.shape[:2], -1) @ rows).reshape(3, n_outputs, -1) + bias[:, None]
    expected = module(x).detach().reshape(3, n_outputs, -1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    if kind.own is not None:
        moved = kind.own.apply(use, kind.own.prepare(use, inputs), weight, bias)
        torch.testing.assert_close(moved, expected.flatten(1), rtol=1e-12, atol=1e-12)
        for unit in range(n_outputs):
            one = Use(module, tuple(weight.shape), unit)
            moved = kind.own.apply(one, kind.own.prepare(one, inputs), weight, bias)
            torch.testing.assert_close(moved, expected[:, unit], rtol=1e-12, atol=1e-12)
    assert kind.copies == (matrices.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr())


class OwnForward(nn.Linear):
    """Computes something else."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class OwnConvolution(nn.Conv2d):
    """Computes something else where its forward looks the same."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        moved: Tensor = super()._conv_forward(input, weight.relu(), bias)
        return moved


class Named(nn.Conv2d):
    """Computes what its parent does."""


def test_a_subclass_is_of_a_kind_only_if_it_computes_the_same() -> None:
    assert kind_of(Named(2, 2, 1)) is MODULES[nn.Conv2d]
    assert kind_of(OwnForward(2, 2)) is None
    assert kind_of(OwnConvolution(2, 2, 1)) is None
    assert kind_of(nn.MultiheadAttention(4, 2).out_proj) is None
    assert kind_of(nn.BatchNorm2d(2)) is None


@pytest.mark.parametrize("kind", MODULES.values(), ids=[one.__name__ for one in MODULES])
def test_a_call_with_something_else_than_one_tensor_is_refused(kind: ModuleKind) -> None:
    for given in ((), (torch.zeros(1), torch.zeros(1)), ([1.0],)):
        with pytest.raises(ValueError, match=f"expected one tensor as input, found {len(given)} inputs"):
            kind.inputs(torch.nn.Identity(), given)
