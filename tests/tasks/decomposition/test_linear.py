"""The decomposed final layer."""

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.decomposition import DecomposedLinear

BATCHES = [(1, 20), (2, 20), (9, 20), (20,), (0, 20), (1, 1, 20), (2, 3, 20)]


def dense(bias: bool = True, dtype: torch.dtype = torch.float32) -> nn.Linear:
    """A layer of 20 features and 7 classes."""
    torch.manual_seed(0)
    return nn.Linear(20, 7, bias=bias, dtype=dtype)


def sets(k: int = 4) -> Tensor:
    """Random sets (7, k)."""
    return torch.stack([torch.randperm(20, generator=torch.Generator().manual_seed(y))[:k] for y in range(7)])


def masked(linear: nn.Linear, indices: Tensor, x: Tensor) -> Tensor:
    """Logits by the dense layer with all other weights 0."""
    weight = torch.zeros_like(linear.weight)
    for y, row in enumerate(indices):
        weight[y, row] = linear.weight[y, row]
    return F.linear(x, weight, linear.bias)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("k", [1, 4, 20])
def test_it_is_the_masked_dense_layer(k: int, dtype: torch.dtype, atol: float, bias: bool, training: bool) -> None:
    linear, indices = dense(bias, dtype).train(training), sets(k)
    layer = DecomposedLinear.from_linear(linear, indices)
    assert layer.training == training
    for shape in BATCHES:
        x = torch.randn(shape, dtype=dtype)
        for inference in (False, True):
            with torch.inference_mode(inference):
                logits = layer(x)
                torch.testing.assert_close(logits, masked(linear, indices, x), rtol=0, atol=atol)
                torch.testing.assert_close(layer.masked_dense()(x), masked(linear, indices, x), rtol=0, atol=atol)


def test_worked_by_hand() -> None:
    linear = nn.Linear(3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        linear.bias.copy_(torch.tensor([0.5, -0.5]))
    layer = DecomposedLinear.from_linear(linear, np.array([[2, 0], [1, 2]]))
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[3.0, 1.0], [5.0, 6.0]]), rtol=0, atol=0)
    expected = torch.tensor([[3 * 100 + 1 * 1 + 0.5, 5 * 10 + 6 * 100 - 0.5]])
    torch.testing.assert_close(layer(torch.tensor([[1.0, 10.0, 100.0]])), expected)
    torch.testing.assert_close(layer(torch.tensor([[1.0, 10.0, 100.0]] * 3)), expected.repeat(3, 1))


def test_weights_and_indices_are_copies_in_the_layers_dtype() -> None:
    linear, indices = dense(dtype=torch.float16), sets().to(torch.int32)
    before = copy.deepcopy(linear.state_dict())
    layer = DecomposedLinear.from_linear(linear, indices)
    assert (layer.weight.dtype, layer.indices.dtype) == (torch.float16, torch.int64)
    assert layer.bias is not None
    assert layer.bias.dtype == torch.float16
    assert {name for name, _ in layer.named_parameters()} == {"weight", "bias"}
    assert {name for name, _ in layer.named_buffers()} == {"indices"}
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.indices.zero_()
    assert int(indices.max()) > 0
    for name, value in before.items():
        torch.testing.assert_close(linear.state_dict()[name], value, rtol=0, atol=0)
    given = sets().numpy()
    DecomposedLinear.from_linear(dense(), given).indices.zero_()
    np.testing.assert_array_equal(given, sets().numpy())


def test_a_frozen_layers_copy_can_be_trained() -> None:
    linear = dense().requires_grad_(False)
    assert all(p.requires_grad for p in DecomposedLinear.from_linear(linear, sets()).parameters())


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_right(n: int, bias: bool) -> None:
    layer = DecomposedLinear.from_linear(dense(bias, torch.float64), sets())
    x = torch.randn(n, 20, dtype=torch.float64, requires_grad=True)
    values = {name: value.detach().clone().requires_grad_() for name, value in layer.named_parameters()}

    def run(x: Tensor, *given: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(layer, dict(zip(values, given, strict=True)), (x,))
        return logits

    assert torch.autograd.gradcheck(run, (x, *values.values()))


@pytest.mark.parametrize("n", [1, 2, 40])
def test_gradients_are_those_of_the_masked_layer(n: int) -> None:
    linear, indices = dense(), sets()
    layer = DecomposedLinear.from_linear(linear, indices)
    x, again = (torch.randn(n, 20, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    layer(x).square().sum().backward()
    masked(linear, indices, again).square().sum().backward()  # type: ignore[no-untyped-call]  # torch's stub
    assert layer.weight.grad is not None
    assert linear.weight.grad is not None
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer.weight.grad, linear.weight.grad.gather(1, indices), rtol=1e-5, atol=1e-5)
    assert layer.bias is not None
    torch.testing.assert_close(layer.bias.grad, linear.bias.grad)


@pytest.mark.parametrize("d", [2**15, 2**15 + 1])
def test_gradients_of_many_features_some_of_which_no_class_reads(d: int) -> None:
    generator = torch.Generator().manual_seed(2)
    linear, indices = nn.Linear(d, 3, dtype=torch.float64), torch.tensor([[0, d - 1], [d - 1, 5], [d - 2, 0]])
    layer = DecomposedLinear.from_linear(linear, indices)
    x, outputs = (torch.randn(4, size, generator=generator, dtype=torch.float64) for size in (d, 3))
    x.requires_grad_()
    (layer(x) * outputs).sum().backward()
    weight = torch.zeros(3, d, dtype=torch.float64).scatter_(1, indices, linear.weight.detach().gather(1, indices))
    expected = outputs @ weight
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch loops where it has no rule for a batch
def test_derivatives_of_functions_and_of_derivatives() -> None:
    layer = DecomposedLinear.from_linear(dense(dtype=torch.float64), sets())
    dense_layer, x = layer.masked_dense(), torch.randn(5, 20, dtype=torch.float64)

    def loss(given: nn.Module, x: Tensor) -> Tensor:
        found: Tensor = given(x).square().sum()
        return found

    def twice(given: nn.Module) -> Tensor:
        (first,) = torch.autograd.grad(loss(given, rows), rows, create_graph=True)
        return torch.autograd.grad(first.square().sum(), rows)[0]

    rows = x.clone().requires_grad_()
    torch.testing.assert_close(twice(layer), twice(dense_layer))
    for transform in (torch.func.grad, torch.func.jacrev):
        made, wanted = (transform(lambda x, given=given: loss(given, x))(x) for given in (layer, dense_layer))
        torch.testing.assert_close(made, wanted)
        each = torch.func.vmap(transform(lambda x: loss(layer, x.expand(2, -1))))(x)
        torch.testing.assert_close(each, 2 * wanted)


def test_shapes_are_known_without_values() -> None:
    with torch.device("meta"):
        layer, x = DecomposedLinear(20, 7, 4), torch.randn(3, 20, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert (x.grad.shape, layer.weight.grad.shape) == ((3, 20), (7, 4))


def test_an_empty_batch_has_gradients() -> None:
    layer = DecomposedLinear.from_linear(dense(), sets())
    x = torch.zeros(0, 20, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (0, 20)
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("gradients", [True, False])
def test_an_empty_batch_of_one_feature_has_no_logits(gradients: bool) -> None:
    layer = DecomposedLinear.from_linear(nn.Linear(1, 3), np.zeros((3, 1), dtype=np.int64))
    with torch.set_grad_enabled(gradients):
        assert layer(torch.zeros(0, 1)).shape == (0, 3)
        assert layer(torch.zeros(2, 0, 1)).shape == (2, 0, 3)


@pytest.mark.parametrize("training", [True, False])
def test_nothing_is_kept_when_weights_change(training: bool) -> None:
    layer = DecomposedLinear.from_linear(dense(), sets()).train(training)
    x = torch.randn(6, 20)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        with torch.inference_mode():
            layer(x)
        optimizer.zero_grad()
        layer(x).square().sum().backward()
        optimizer.step()
        for rows in (x, x[:1]):
            torch.testing.assert_close(layer(rows), layer.masked_dense()(rows), rtol=0, atol=1e-5)
    other = DecomposedLinear.from_linear(dense(), sets().flip(0))
    layer.load_state_dict(other.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), other(x), rtol=0, atol=0)
        torch.testing.assert_close(layer(x[:1]), other(x[:1]), rtol=0, atol=0)


def test_training_lowers_the_loss_and_repeats_to_the_byte() -> None:
    generator = torch.Generator().manual_seed(0)
    x, labels = torch.randn(200, 20, generator=generator), torch.randint(0, 7, (200,), generator=generator)
    x[torch.arange(200), labels] += 3
    ends = []
    for _ in range(2):
        layer = DecomposedLinear.from_linear(dense(), (torch.arange(7)[:, None] + torch.arange(3)) % 20)
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            F.cross_entropy(layer(x), labels).backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
        ends.append(layer)
    assert float((ends[0](x).argmax(1) == labels).float().mean()) > 0.9
    for name, value in ends[0].state_dict().items():
        torch.testing.assert_close(ends[1].state_dict()[name], value, rtol=0, atol=0)


def test_a_state_dict_goes_through_a_file_into_a_fresh_layer() -> None:
    layer = DecomposedLinear.from_linear(dense(), sets())
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = DecomposedLinear(20, 7, 4)
    x = torch.randn(5, 20)
    torch.testing.assert_close(fresh(x), fresh.masked_dense()(x))  # valid before anything is loaded
    fresh.load_state_dict(torch.load(file, weights_only=True))
    torch.testing.assert_close(fresh(x), layer(x), rtol=0, atol=0)
    assert DecomposedLinear(20, 7, 4, bias=False).bias is None
    assert repr(fresh) == "DecomposedLinear(in_features=20, out_features=7, k=4, bias=True)"


def test_deep_copies_and_other_dtypes() -> None:
    layer = DecomposedLinear.from_linear(dense(), sets())
    wide = copy.deepcopy(layer).to(torch.float64)
    assert (wide.weight.dtype, wide.indices.dtype, layer.weight.dtype) == (torch.float64, torch.int64, torch.float32)
    x = torch.randn(5, 20)
    torch.testing.assert_close(wide(x.double()).float(), layer(x))
    for dtype, atol in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
        narrow = copy.deepcopy(layer).to(dtype)
        for rows in (x, x[:1]):
            torch.testing.assert_close(narrow(rows.to(dtype)).float(), layer(rows), rtol=0, atol=atol)
    with torch.no_grad():
        wide.weight.zero_()
    assert bool(layer.weight.any())


@pytest.mark.parametrize("n", [1, 4])
def test_it_is_exported(n: int) -> None:
    layer = DecomposedLinear.from_linear(dense(), sets()).eval()
    x = torch.randn(n, 20)
    torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), layer(x))


def test_an_exported_layer_takes_any_batch() -> None:
    layer = DecomposedLinear.from_linear(dense(), sets()).eval()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(layer, (torch.randn(4, 20),), dynamic_shapes=({0: batch},))
    for n in (1, 2, 4, 11):
        x = torch.randn(n, 20)
        torch.testing.assert_close(program.module()(x), layer(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # up to torch 2.12
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # from within embedding_bag, of any caller
@pytest.mark.parametrize("how", ["script", "trace one", "trace more"])
def test_torchscript_takes_any_batch(how: str) -> None:
    layer = DecomposedLinear.from_linear(dense(), sets()).eval()
    made: Any  # torch.jit has no types
    if how == "script":
        made = torch.jit.script(layer)
    else:
        made = torch.jit.trace(layer, torch.randn(1 if how == "trace one" else 3, 20))  # type: ignore[no-untyped-call]
    file = io.BytesIO()
    torch.jit.save(made, file)
    file.seek(0)
    again = torch.jit.load(file)  # type: ignore[no-untyped-call]  # torch.jit has no types
    for n in (1, 2, 11):
        x = torch.randn(n, 20)
        torch.testing.assert_close(again(x), layer(x))


def test_the_input_stays_and_what_no_class_reads_does_not_count() -> None:
    layer = DecomposedLinear.from_linear(dense(), torch.arange(4).repeat(7, 1))
    for n in (1, 3):
        x = torch.randn(n, 20)
        x[:, 10] = torch.nan
        before = x.clone()
        assert bool(layer(x).isfinite().all())
        torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        (torch.zeros(7, 0, dtype=torch.int64), r"indices: expected shape \(7, k\) with 1 <= k <= 20, found \(7, 0\)"),
        (torch.zeros(6, 1, dtype=torch.int64), r"indices: expected shape \(7, k\) .* found \(6, 1\)"),
        (torch.zeros(7, dtype=torch.int64), r"indices: expected shape \(7, k\) .* found \(7,\)"),
        (torch.arange(21).repeat(7, 1), r"indices: expected shape \(7, k\) .* found \(7, 21\)"),
        (torch.tensor([[0, 1]] * 6 + [[0, 20]]), r"indices: expected 0\.\.19, found 20 at class 6"),
        (torch.tensor([[0, -1]] * 7), r"indices: expected 0\.\.19, found -1 at class 0"),
        (torch.tensor([[0, 1]] * 6 + [[3, 3]]), "indices: expected distinct features, found 3 twice at class 6"),
        (torch.zeros(7, 1), "indices: expected a NumPy array of integers, found float32"),
        ([[0]] * 7, "indices: expected a NumPy array of integers, found list"),
    ],
)
def test_sets_that_make_no_sense_are_refused(indices: Any, message: str) -> None:  # Any: lists too
    with pytest.raises((ValueError, TypeError), match=message):
        DecomposedLinear.from_linear(dense(), indices)


def test_other_layers_and_widths_are_refused() -> None:
    with pytest.raises(TypeError, match=r"linear: expected torch\.nn\.Linear, found Conv2d"):
        DecomposedLinear.from_linear(nn.Conv2d(3, 4, 1), sets())  # type: ignore[arg-type]  # the point of the test
    layer = DecomposedLinear.from_linear(dense(), sets())
    for width in (19, 21):
        with pytest.raises(ValueError, match=rf"expected features \(\.\.\., 20\), found shape \[3, {width}\]"):
            layer(torch.randn(3, width))
    with pytest.raises(ValueError, match=r"k: expected 1\.\.3, found 4"):
        DecomposedLinear(3, 2, 4)


@pytest.mark.gpu
def test_it_runs_on_a_gpu() -> None:
    layer = DecomposedLinear.from_linear(dense().cuda(), sets())
    assert {layer.weight.device.type, layer.indices.device.type} == {"cuda"}
    for n in (1, 33):
        x = torch.randn(n, 20, device="cuda", requires_grad=True)
        logits = layer(x)
        torch.testing.assert_close(logits, layer.masked_dense()(x), rtol=1e-4, atol=1e-4)
        logits.square().sum().backward()
        given = x.grad
        x.grad = None
        layer.masked_dense()(x).square().sum().backward()
        torch.testing.assert_close(given, x.grad, rtol=1e-3, atol=1e-3)
        half = copy.deepcopy(layer).half()
        torch.testing.assert_close(half(x.half()).float(), layer(x), rtol=0, atol=1e-2)


def test_a_narrow_input_under_autocast() -> None:
    torch.manual_seed(0)
    before, dense = nn.Linear(6, 8), nn.Linear(8, 3)
    layer = DecomposedLinear.from_linear(dense, np.array([[0, 5], [1, 2], [7, 3]]))
    x = torch.randn(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nn.Sequential(before, layer)(x)
    np.testing.assert_allclose(found.detach(), layer(before(x)).detach(), atol=0.05)
