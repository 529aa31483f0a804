"""Norms of updates from small Gram matrices: exact in the span of the references, for all kinds of modules."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.modules.composed import PaddedLinear
from tasks.modules.rows import Inputs, Rows, values_of
from tasks.tracing import grams
from tasks.tracing.basis import Directions
from tasks.tracing.grams import InputAxes, fit_axes, gram_shape, norms_of, squares_of
from tasks.tracing.patches import Operation

STEPS, WIDE = 9, torch.float64


def lengths(n: int) -> Tensor:
    """Return numbers of rows or tokens, some queries with none."""
    return torch.tensor([3, 0, 5, 1, 4, 2])[torch.arange(n) % 6]


def ragged(n: int, generator: torch.Generator) -> Inputs:
    counts = lengths(n)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    return Rows(torch.randn(int(counts.sum()), 6, generator=generator, dtype=WIDE), offsets)


def tokens(n: int, generator: torch.Generator) -> Inputs:
    """Return tokens of a vocabulary of 11, padded by -1."""
    found = torch.randint(0, 11, (n, 5), generator=generator).to(WIDE)
    return torch.where(torch.arange(5) < lengths(n)[:, None], found, -1.0)


def marked(n: int, generator: torch.Generator) -> Inputs:
    """Return padded rows of an attention's map: the last column is 1, or 0 at padding."""
    rows = torch.randn(n, 5, 6, generator=generator, dtype=WIDE)
    there = (torch.arange(5) < lengths(n)[:, None]).to(WIDE)[..., None]
    return torch.cat([rows * there, there], dim=2)


MODULES: dict[str, nn.Module] = {
    "linear": nn.Linear(7, 5),
    "tokens": nn.Linear(6, 4),
    "ragged": nn.Linear(6, 4),
    "padded": PaddedLinear(6, 4),
    "conv1d": nn.Conv1d(3, 4, 2),
    "conv2d": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, padding=1, groups=2, padding_mode="reflect"),
    "depthwise": nn.Conv2d(6, 6, 2, groups=6),
    "conv3d": nn.Conv3d(2, 3, 2),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
    "embedding": nn.Embedding(11, 4),
}
SHAPES = {
    "linear": (7,),
    "tokens": (5, 6),
    "conv1d": (3, 6),
    "conv2d": (4, 7, 6),
    "grouped": (4, 5, 5),
    "depthwise": (6, 4, 4),
    "conv3d": (2, 4, 3, 3),
    "transposed": (4, 3, 4),
}
MADE = {"ragged": ragged, "padded": marked, "embedding": tokens}


def queries(name: str, n: int, seed: int = 0) -> Inputs:
    """Return inputs of n queries in float64."""
    generator = torch.Generator().manual_seed(seed)
    return MADE[name](n, generator) if name in MADE else torch.randn(n, *SHAPES[name], generator=generator, dtype=WIDE)


def output(name: str, inputs: Inputs, weight: Tensor, bias: Tensor | None) -> list[Tensor]:
    """Return what torch's own function makes of each query alone, without padding."""
    module, found = MODULES[name], list[Tensor]()
    for i in range(len(inputs)):
        if isinstance(inputs, Rows):
            found.append(F.linear(inputs[i : i + 1].values, weight, bias))
        elif name == "padded":
            found.append(F.linear(inputs[i][inputs[i, :, -1] > 0, :-1], weight, bias))
        elif name == "embedding":
            found.append(weight[inputs[i][inputs[i] >= 0].long()])
        elif isinstance(module, nn.Linear):
            found.append(F.linear(inputs[i], weight, bias))
        else:
            twin = type(module)(**settings(module)).to(WIDE)
            none = torch.zeros_like(twin.get_parameter("bias"))
            parts = {"weight": weight, "bias": none if bias is None else bias}
            found.append(torch.func.functional_call(twin, parts, (inputs[i][None],)))
    return found


def settings(module: nn.Module) -> dict[str, object]:
    """Return the arguments of a convolution."""
    names = ["in_channels", "out_channels", "kernel_size", "stride", "padding", "groups", "padding_mode"]
    names += ["output_padding"] if isinstance(module, nn.ConvTranspose2d) else []
    return {name: getattr(module, name) for name in names}


def updates_of(name: str, *, bias: bool) -> tuple[Tensor, Tensor | None, Tensor]:
    """Return updates of weight and bias, the fourth 0, and their norms."""
    module, generator = MODULES[name], torch.Generator().manual_seed(5)
    weight = module.get_parameter("weight")
    weights = torch.randn(STEPS, *weight.shape, generator=generator, dtype=WIDE)
    biases = None
    if bias:
        biases = torch.randn(STEPS, len(module.get_parameter("bias")), generator=generator, dtype=WIDE)
        biases[3] = 0
    weights[3] = 0
    squares = weights.flatten(1).square().sum(1) + (0 if biases is None else biases.square().sum(1))
    return weights, biases, squares.sqrt()


def operation_of(name: str, *, bias: bool) -> Operation:
    return Operation(MODULES[name], tuple(MODULES[name].get_parameter("weight").shape), bias)


BIASED = [(name, bias) for name in MODULES for bias in (False, True) if not (bias and name == "embedding")]


@pytest.mark.parametrize(("name", "bias"), BIASED)
def test_norms_are_those_of_the_layers_own_output(name: str, bias: bool) -> None:
    """With as many axes as inputs, norms of any query are exact, padding and queries without rows included."""
    operation, (weights, biases, sizes) = operation_of(name, bias=bias), updates_of(name, bias=bias)
    axes, new = fit_axes(operation, queries(name, 30), 60), queries(name, 7, seed=1)
    products, share = axes.of_queries(operation, new)
    found = norms_of(axes.of_updates(operation, weights, biases, sizes), products, sizes)
    expected = torch.zeros(STEPS, 7, dtype=WIDE)
    for t in range(STEPS):
        made = output(name, new, weights[t], None if biases is None else biases[t])
        expected[t] = torch.stack([one.square().sum().sqrt() for one in made])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * float(expected.max()))
    assert not found[3].any()
    np.testing.assert_allclose(share, 1.0, atol=1e-9)


@pytest.mark.parametrize(("name", "bias"), BIASED)
def test_few_axes_are_those_of_an_explicit_pca(name: str, bias: bool) -> None:
    """The norms are those of updates whose rows were projected on the axes of an SVD, group by group."""
    operation, (weights, biases, sizes) = operation_of(name, bias=bias), updates_of(name, bias=bias)
    references, new, rank = queries(name, 30), queries(name, 6, seed=1), 2
    axes = fit_axes(operation, references, rank)
    products, share = axes.of_queries(operation, new)
    gram = axes.of_updates(operation, weights, biases, sizes)
    assert gram.shape == (STEPS, gram_shape(operation, rank).values)
    matrices, rows = operation.matrices(weights, biases), operation.rows(references)  # (t, g, o, n), (q, g, n, L)
    if name == "embedding":  # each token is a group
        matrices, rows = matrices[:, 0].permute(0, 2, 1)[..., None], rows[:, 0, :, None]
    scale = rows.square().sum((1, 2, 3)).sqrt()
    rows = rows[scale > 0] / scale[scale > 0, None, None, None]
    whole = rows.permute(1, 2, 0, 3).flatten(2)
    vectors, values, _ = torch.linalg.svd(whole, full_matrices=False)
    costs, kept = 0, dict[int, int]()
    for value, group, axis in sorted(
        ((-float(v), g, a) for g in range(len(values)) for a, v in enumerate(values[g][:2])), key=lambda x: x[0]
    ):
        if -value > 1e-6 and costs + axis + 1 <= 3:
            kept[group], costs = axis + 1, costs + axis + 1
    seen = operation.rows(new)
    seen = seen[:, 0, :, None] if name == "embedding" else seen
    square, inside = torch.zeros(STEPS, 6, dtype=WIDE), torch.zeros(6, dtype=WIDE)
    for group, count in kept.items():
        v = vectors[group][:, :count]
        projected = v @ (v.T @ seen[:, group])
        inside += projected.square().sum((1, 2))
        square += (matrices[:, None, group] @ projected).square().sum((2, 3))
    np.testing.assert_allclose(norms_of(gram, products, sizes), square.sqrt(), rtol=1e-6, atol=1e-9)
    lengths_of = seen.square().sum((1, 2, 3))
    np.testing.assert_allclose(share * lengths_of, inside, rtol=1e-6, atol=1e-9)


def test_the_error_is_within_the_part_outside() -> None:
    """The norm of an update's change is off by at most its own norm times that of the query's rows outside."""
    operation, (weights, _, sizes) = operation_of("conv2d", bias=False), updates_of("conv2d", bias=False)
    axes, new = fit_axes(operation, queries("conv2d", 8), 6), queries("conv2d", 5, seed=2)
    products, share = axes.of_queries(operation, new)
    assert (share < 0.9).all()
    found = norms_of(axes.of_updates(operation, weights, None, sizes), products, sizes)
    exact = torch.stack([torch.stack([o.norm() for o in output("conv2d", new, w, None)]) for w in weights])
    outside = ((1 - share) * squares_of(operation, new)).sqrt()
    assert ((found - exact).abs() <= sizes[:, None] * outside + 1e-9).all()
    assert (found <= exact + sizes[:, None] * outside + 1e-9).all()


def test_wide_layers_by_iteration_are_as_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted inputs of rank 5 in 60 dimensions: the iteration finds their span."""
    generator = torch.Generator().manual_seed(3)
    span = torch.randn(5, 60, generator=generator, dtype=WIDE)
    module, inputs = nn.Linear(60, 4), torch.randn(40, 5, generator=generator, dtype=WIDE) @ span
    operation = Operation(module, (4, 60))
    whole = fit_axes(operation, inputs, 8)
    monkeypatch.setattr(grams, "EXACT", 0)
    found = fit_axes(operation, inputs, 8)
    new = torch.randn(3, 5, generator=generator, dtype=WIDE) @ span
    for axes in (whole, found):
        assert int((axes.axes.square().sum(2) > 0).sum()) == 5
        np.testing.assert_allclose(axes.of_queries(operation, new)[1], 1.0, atol=1e-9)


def test_float32_updates_of_any_size() -> None:
    """Squares of tiny and of huge updates leave the range of float32; their norms do not."""
    operation, (weights, _, _) = operation_of("linear", bias=False), updates_of("linear", bias=False)
    axes, new = fit_axes(operation, queries("linear", 20), 10), queries("linear", 4, seed=1)
    assert isinstance(new, Tensor)
    for factor in (1e-25, 1e25):
        given = (weights * factor).float()
        sizes = given.double().flatten(1).norm(dim=1)
        found = norms_of(
            axes.of_updates(operation, given, None, sizes).half(), axes.of_queries(operation, new)[0], sizes
        )
        expected = (new @ given.double().mT).norm(dim=2)
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * float(expected.max()))


def test_the_directions_of_padded_tokens() -> None:
    """Gradients of an embedding: rows of tokens sum up their outputs, and padding picks nothing."""
    module, inputs = MODULES["embedding"], queries("embedding", 6)
    weight = torch.randn(11, 4, generator=torch.Generator().manual_seed(8), dtype=WIDE)
    found, values = Directions(module, weight, inputs), values_of(inputs)
    expected = torch.zeros(6, 11, 4, dtype=WIDE)
    for i, row in enumerate(values.long().tolist()):
        for token in row:
            if token >= 0:
                expected[i, token] += weight[token]
    made = torch.cat([found.gradient(i)[0] for i in range(6)])
    np.testing.assert_allclose(made, expected, atol=1e-12)
    flat = expected.flatten(1)
    np.testing.assert_allclose(found.products(found), flat @ flat.T, atol=1e-9)
    np.testing.assert_allclose(found.squares(), flat.square().sum(1), atol=1e-9)


def test_an_axis_of_a_silent_layer_is_empty() -> None:
    operation = operation_of("linear", bias=False)
    axes = fit_axes(operation, torch.zeros(4, 7, dtype=WIDE), 3)
    assert isinstance(axes, InputAxes)
    products, share = axes.of_queries(operation, queries("linear", 2))
    assert not products.any()
    assert not share.any()
    assert (axes.of_queries(operation, torch.zeros(2, 7, dtype=WIDE))[1] == 1).all()
