"""Gamma, norm, cosine and completeness of every covered module, against loops over single outputs in float64."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tasks.tracing import COVERED, Contributions, Projector, contributions, gammas, unit_contributions
from tasks.tracing import projector as projector_file
from tasks.tracing import strategies as strategies_file
from tasks.tracing.patches import Operation

# torch's own forward pass says that it copies for an even kernel under "same"
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
Make = Callable[[], nn.Module]
QUERIES, STEPS = 3, 4

CASES: dict[str, tuple[Make, tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "tokens": (lambda: nn.Linear(5, 4), (3, 5)),
    "two token axes": (lambda: nn.Linear(4, 2), (2, 3, 4)),
    "conv1": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 7)),
    "conv1 same, even kernel": (lambda: nn.Conv1d(2, 3, 4, padding="same", dilation=3), (2, 9)),
    "conv1 reflect": (lambda: nn.Conv1d(2, 2, 3, padding=2, padding_mode="reflect"), (2, 6)),
    "conv1 circular": (lambda: nn.Conv1d(2, 2, 3, padding=2, padding_mode="circular"), (2, 6)),
    "conv1 replicate same": (lambda: nn.Conv1d(2, 2, 4, padding="same", padding_mode="replicate"), (2, 6)),
    "conv2": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 6, 5)),
    "conv2 valid": (lambda: nn.Conv2d(3, 2, (2, 3), padding="valid"), (3, 4, 5)),
    "conv2 same": (lambda: nn.Conv2d(2, 2, (2, 3), padding="same", dilation=(1, 2)), (2, 5, 6)),
    "conv2 groups": (lambda: nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (4, 7, 8)),
    "conv2 depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3), (3, 5, 5)),
    "conv2 reflect": (lambda: nn.Conv2d(2, 3, 3, padding=(2, 1), padding_mode="reflect"), (2, 5, 4)),
    "conv2 circular": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular", stride=2), (2, 5, 4)),
    "conv2 replicate": (lambda: nn.Conv2d(2, 3, 3, padding=(0, 2), padding_mode="replicate"), (2, 5, 4)),
    "conv2 one position": (lambda: nn.Conv2d(2, 3, 3), (2, 3, 3)),
    "conv2 many positions": (lambda: nn.Conv2d(1, 4, 2, padding=1), (1, 9, 9)),
    "conv3": (lambda: nn.Conv3d(2, 3, (1, 2, 3), stride=(1, 2, 1), padding=(0, 1, 1)), (2, 3, 4, 5)),
    "conv3 circular": (lambda: nn.Conv3d(2, 2, 2, padding=1, padding_mode="circular", groups=2), (2, 3, 3, 3)),
    "transposed1": (lambda: nn.ConvTranspose1d(3, 4, 3, stride=2, padding=1, output_padding=1), (3, 5)),
    "transposed1 cropped": (lambda: nn.ConvTranspose1d(2, 2, 2, stride=3, padding=3, dilation=2), (2, 6)),
    "transposed2": (lambda: nn.ConvTranspose2d(2, 3, (2, 3), stride=(2, 3), dilation=(2, 1)), (2, 3, 4)),
    "transposed2 groups": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=(1, 0), groups=2),
        (4, 3, 4),
    ),
    "transposed3": (lambda: nn.ConvTranspose3d(2, 2, 2, stride=(1, 2, 1), padding=(0, 1, 0), groups=2), (2, 2, 3, 2)),
}


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def parts(case: str) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The module, weight, inputs and updates of a case, float64."""
    make, shape = CASES[case]
    module = make()
    weight = module.get_parameter("weight")
    return (
        module,
        seeded(*weight.shape, seed=1),
        seeded(QUERIES, *shape, seed=2),
        seeded(STEPS, *weight.shape, seed=3),
    )


def forward(module: nn.Module, weight: Tensor, bias: Tensor | None, one: Tensor) -> Tensor:
    """What the module itself puts out for one input under a weight and bias, flat."""
    n_outputs = module.get_parameter("bias").shape
    given = weight.new_zeros(n_outputs) if bias is None else bias
    found: Tensor = functional_call(module, {"weight": weight, "bias": given}, (one[None],))
    return found.flatten()


def by_loops(
    module: nn.Module,
    anchor: Tensor,
    inputs: Tensor,
    updates: Tensor,
    biases: tuple[Tensor | None, Tensor | None] = (None, None),
    outputs: Tensor | None = None,
) -> Contributions:
    """Eqs. 6 and 7 output by output; `outputs` names those of the flat outputs that count."""
    gamma, norm, cosine = torch.zeros(3, len(inputs), len(updates), dtype=torch.float64)
    sizes = torch.zeros(len(inputs), dtype=torch.float64)
    for q, one in enumerate(inputs):
        z = forward(module, anchor, biases[0], one).tolist()
        counted = range(len(z)) if outputs is None else outputs.tolist()
        sizes[q] = sum(z[i] ** 2 for i in counted) ** 0.5
        for t, update in enumerate(updates):
            moved = forward(module, update, None if biases[1] is None else biases[1][t], one).tolist()
            gamma[q, t] = sum(z[i] * moved[i] for i in counted)
            norm[q, t] = sum(moved[i] ** 2 for i in counted) ** 0.5
            if norm[q, t] > 0 and sizes[q] > 0:
                cosine[q, t] = gamma[q, t] / norm[q, t] / sizes[q]
    return Contributions(gamma, norm, cosine, sizes)


def check_equal(found: Contributions, expected: Contributions, rtol: float = 1e-11) -> None:
    scale = (expected.preactivation_norm[:, None] * expected.norm).numpy()
    np.testing.assert_allclose(found.preactivation_norm, expected.preactivation_norm, rtol=rtol)
    np.testing.assert_allclose(found.norm, expected.norm, rtol=rtol)
    np.testing.assert_allclose(found.cosine, expected.cosine, atol=rtol, rtol=0)
    assert (np.abs((found.gamma - expected.gamma).numpy()) <= rtol * scale).all()


@pytest.fixture(params=["chosen", "matrices", "convolution", "gram"])
def strategy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each strategy for norms in turn, whatever the layer would choose; a linear layer has no convolution."""
    name = str(request.param)

    def choose(operation: Operation, *_: object) -> str:
        return "matrices" if name == "convolution" and isinstance(operation.module, nn.Linear) else name

    if name != "chosen":
        monkeypatch.setattr(projector_file, "choose_strategy", choose)
    return name


@pytest.mark.parametrize("case", CASES)
def test_every_module_against_loops(case: str, strategy: str) -> None:
    module, weight, inputs, updates = parts(case)
    found = contributions(module, weight, inputs, updates)
    check_equal(found, by_loops(module, weight, inputs, updates))
    assert found.gamma.dtype == found.norm.dtype == torch.float64
    np.testing.assert_allclose(gammas(module, weight, inputs, updates), found.gamma, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_bias_is_one_more_input_of_ones(case: str, strategy: str) -> None:
    module, weight, inputs, updates = parts(case)
    n_outputs = module.get_parameter("bias").shape[0]
    biases = seeded(n_outputs, seed=4), seeded(STEPS, n_outputs, seed=5)
    found = contributions(module, weight, inputs, updates, bias=biases[0], bias_updates=biases[1])
    check_equal(found, by_loops(module, weight, inputs, updates, biases))


@pytest.mark.parametrize("case", CASES)
def test_a_unit_is_its_row_alone(case: str, strategy: str) -> None:
    module, weight, inputs, updates = parts(case)
    n_outputs = module.get_parameter("bias").shape[0]
    biases = seeded(n_outputs, seed=4), seeded(STEPS, n_outputs, seed=5)
    shape = functional_call(module, {"weight": weight, "bias": biases[0]}, (inputs[:1],)).shape[1:]
    channel = torch.arange(n_outputs)
    channel = channel.expand(shape) if isinstance(module, nn.Linear) else channel.view(-1, *[1] * (len(shape) - 1))
    channel = channel.expand(shape).flatten()
    for unit in {0, n_outputs // 2, n_outputs - 1}:
        found = unit_contributions(module, weight, inputs, updates, unit, bias=biases[0], bias_updates=biases[1])
        outputs = torch.nonzero(channel == unit).flatten()
        check_equal(found, by_loops(module, weight, inputs, updates, biases, outputs))


@pytest.mark.parametrize("case", CASES)
def test_contributions_are_complete_under_both_anchors(case: str) -> None:
    module, initial, inputs, updates = parts(case)
    final = initial + updates.sum(dim=0)
    found, init = (contributions(module, final, inputs, given) for given in (updates, initial[None]))
    square = found.preactivation_norm.square()
    np.testing.assert_allclose(found.gamma.sum(dim=1) + init.gamma[:, 0], square, rtol=1e-12)
    moved = contributions(module, final, inputs, updates, anchor=final - initial)
    np.testing.assert_allclose(moved.gamma.sum(dim=1), moved.preactivation_norm.square(), rtol=1e-12)
    check_equal(moved, by_loops(module, final - initial, inputs, updates))


def test_every_covered_module_has_a_case() -> None:
    # An embedding takes tokens, so it has tests of its own.
    assert {type(make()) for make, _ in CASES.values()} == set(COVERED) - {nn.Embedding}


def test_strided_grouped_convolution_by_index() -> None:
    module, weight, inputs, updates = parts("conv2 groups")
    moved = torch.zeros(6, 4, 4, dtype=torch.float64)
    padded = torch.zeros(4, 9, 8, dtype=torch.float64)
    padded[:, 1:8] = inputs[0]
    for o, y, x, c, i, j in product(range(6), range(4), range(4), range(2), range(3), range(3)):
        moved[o, y, x] += updates[0, o, c, i, j] * padded[o // 3 * 2 + c, 2 * y + i, x + 2 * j]
    found = contributions(module, weight, inputs[:1], updates[:1])
    np.testing.assert_allclose(found.norm[0, 0], moved.norm(), rtol=1e-12)


def test_linear_by_hand() -> None:
    weight, inputs = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 2.0]])  # z = (3, 4)
    updates = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [-1.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    found = contributions(nn.Linear(2, 2), weight, inputs, updates)  # D f = (3, 0), (4, -3), (0, 0)
    np.testing.assert_allclose(found.gamma, [[9, 0, 0]])
    np.testing.assert_allclose(found.norm, [[3, 5, 0]])
    np.testing.assert_allclose(found.cosine, [[0.6, 0, 0]], rtol=1e-6)
    np.testing.assert_allclose(found.preactivation_norm, [5])


@pytest.mark.parametrize("case", ["linear", "conv2", "conv2 many positions"])
def test_where_a_norm_is_zero_the_cosine_is(case: str, strategy: str) -> None:
    module, weight, inputs, updates = parts(case)
    inputs[1], updates[2] = 0, 0
    found = contributions(module, weight, inputs, updates)
    for values in (found.gamma, found.norm, found.cosine):
        assert (values[1] == 0).all()
        assert (values[:, 2] == 0).all()
    assert (found.norm[0, :2] > 0).all()
    check_equal(contributions(module, weight, inputs, updates), by_loops(module, weight, inputs, updates))


@pytest.mark.parametrize("case", ["linear", "conv2", "transposed2"])
def test_no_queries_and_no_steps(case: str) -> None:
    module, weight, inputs, updates = parts(case)
    for q, t in ((0, STEPS), (QUERIES, 0), (0, 0)):
        found = contributions(module, weight, inputs[:q], updates[:t])
        assert found.gamma.shape == found.norm.shape == found.cosine.shape == (q, t)
        assert found.preactivation_norm.shape == (q,)
        assert gammas(module, weight, inputs[:q], updates[:t]).shape == (q, t)


@pytest.mark.parametrize("case", ["linear", "tokens", "conv2 groups", "conv2 many positions", "transposed2 groups"])
def test_chunks_of_queries_and_steps_change_nothing(case: str, strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, weight, inputs, updates = parts(case)
    whole = contributions(module, weight, inputs, updates)
    monkeypatch.setattr(projector_file, "CHUNK", 1)
    monkeypatch.setattr(strategies_file, "BUDGET", 1)
    monkeypatch.setattr(strategies_file.queries_within, "__defaults__", (1,))
    check_equal(contributions(module, weight, inputs, updates), whole, 1e-13)


def test_a_projector_takes_blocks_one_by_one() -> None:
    module, weight, inputs, updates = parts("conv2 many positions")
    projector = Projector(module, weight, inputs)
    blocks = [projector.contributions(updates[part]) for part in (slice(0, 1), slice(1, STEPS))]
    whole = contributions(module, weight, inputs, updates)
    np.testing.assert_allclose(torch.cat([block.gamma for block in blocks], dim=1), whole.gamma, rtol=1e-12)
    np.testing.assert_allclose(torch.cat([block.norm for block in blocks], dim=1), whole.norm, rtol=1e-12)
    np.testing.assert_allclose(projector.preactivation_norm, whole.preactivation_norm, rtol=1e-12)


def test_inputs_stay_and_gradients_do_not_follow() -> None:
    module, weight, inputs, updates = parts("conv2")
    copies = [tensor.clone() for tensor in (weight, inputs, updates)]
    found = contributions(module, nn.Parameter(weight), inputs.requires_grad_(), updates)
    assert not found.gamma.requires_grad
    for tensor, copy in zip((weight, inputs, updates), copies, strict=True):
        assert torch.equal(tensor, copy)


def test_the_module_gives_only_the_operation() -> None:
    _, weight, inputs, updates = parts("conv2 groups")
    other = nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2, bias=False, device="meta")
    found = contributions(other, weight, inputs, updates)
    check_equal(found, by_loops(parts("conv2 groups")[0], weight, inputs, updates))
