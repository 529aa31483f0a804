"""Ghost statistics and ghost batch norm against weighted sums written out."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.io.networks import build_model
from tasks.modules.rows import rows_of
from tasks.training.ghost_norm import GhostBatchNorm, ghost_rows, ghost_statistics, has_ghost_norm, with_ghost_norm

SHAPES = [(), (5,), (3, 4), (2, 3, 2)]


def draw(m: int, n: int, positions: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Return a batch and ghosts of 3 channels with means and scales of their own."""
    rng = np.random.default_rng([m, n, *positions])
    scale, shift = np.array([1.0, 10.0, 0.1]), np.array([0.0, -3.0, 5.0])
    shape = (1, 3, *[1] * len(positions))
    values = rng.standard_normal((m + n, 3, *positions)) * scale.reshape(shape) + shift.reshape(shape)
    values[:m] += 2.0
    tensor = torch.tensor(values, dtype=dtype)
    return tensor[:m].clone().requires_grad_(), tensor[m:].clone().requires_grad_()


def weighted(batch: Tensor, ghosts: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance as direct sums over rows: 1/m for each of the batch, 1 for each ghost."""
    m, n = len(batch), len(ghosts)
    rows = torch.cat([batch, ghosts]).flatten(2) if batch.ndim > 2 else torch.cat([batch, ghosts])[:, :, None]
    weights = torch.tensor([1 / m] * m + [1.0] * n, dtype=torch.float64) / (n + 1)
    mean, var = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for row, weight in zip(rows, weights, strict=True):
        mean = mean + weight * row.mean(1)
    for row, weight in zip(rows, weights, strict=True):
        var = var + weight * ((row - mean[:, None]) ** 2).mean(1)
    return mean, var


@pytest.mark.parametrize("positions", SHAPES)
@pytest.mark.parametrize(("m", "n"), [(1, 1), (7, 4), (3, 11), (5, 0)])
def test_statistics_and_gradients_are_those_of_the_weighted_sums(m: int, n: int, positions: tuple[int, ...]) -> None:
    batch, ghosts = draw(m, n, positions)
    found, expected = ghost_statistics(batch, ghosts), weighted(batch, ghosts)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    rng = torch.Generator().manual_seed(0)
    g_mean, g_var = (torch.randn(3, generator=rng, dtype=torch.float64) for _ in range(2))
    gradients = [
        torch.autograd.grad((mean * g_mean + var * g_var).sum(), [batch, ghosts], allow_unused=n == 0)
        for mean, var in (found, expected)
    ]
    for a, b in zip(*gradients, strict=True):
        if n or a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("positions", SHAPES)
def test_the_formula_as_printed(positions: tuple[int, ...]) -> None:
    batch, ghosts = draw(6, 4, positions)
    mean, var = ghost_statistics(batch, ghosts, as_printed=True)
    for channel in range(3):
        b, g = (x.detach().numpy()[:, channel].ravel() for x in (batch, ghosts))
        shift = b.mean() - g.mean()
        assert mean[channel].item() == pytest.approx(g.mean() - shift / 5, rel=1e-12)
        assert var[channel].item() == pytest.approx(4 * g.var() / 5 + b.var() + 4 * shift**2 / 25, rel=1e-12)


def test_by_hand() -> None:
    batch, ghosts = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [4.0], [8.0]])
    mean, var = ghost_statistics(batch, ghosts)  # weights 1/2, 1/2, 1, 1, 1 of 4
    assert mean.tolist() == [3.5]
    assert var.item() == pytest.approx((0.5 * 6.25 + 0.5 * 0.25 + 12.25 + 0.25 + 20.25) / 4)


def test_inputs_stay_and_half_precision_is_summed_wide() -> None:
    batch, ghosts = (x.detach() for x in draw(40, 9, (3, 3), torch.float16))
    before = batch.clone()
    mean, var = ghost_statistics(batch, ghosts)
    assert torch.equal(batch, before)
    expected = ghost_statistics(batch.double(), ghosts.double())
    torch.testing.assert_close(mean.double(), expected[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(var.double(), expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("batch", "ghosts", "error", "message"),
    [
        (np.ones((2, 3)), torch.ones(2, 3), TypeError, "batch: expected a tensor, found a ndarray"),
        (torch.ones(2, 3), torch.ones(3), ValueError, r"ghosts: expected floats .*, found torch\.float32 \(3,\)"),
        (
            torch.ones(2, 3, dtype=torch.int64),
            torch.ones(2, 3),
            ValueError,
            r"batch: expected floats .*, found torch\.int64 \(2, 3\)",
        ),
        (torch.ones(2, 3), torch.ones(2, 4), ValueError, r"batch, ghosts: .* found \(2, 3\) and \(2, 4\)"),
        (
            torch.ones(0, 3),
            torch.ones(2, 3),
            ValueError,
            r"batch, ghosts: .* found \(0, 3\) and \(2, 3\)",
        ),
        (torch.ones(2, 3), torch.full((2, 3), float("nan")), ValueError, "ghosts: expected finite values, found NaN"),
    ],
)
def test_bad_inputs_are_named(batch: Tensor, ghosts: Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ghost_statistics(batch, ghosts)


@pytest.mark.parametrize(
    ("kind", "positions"), [(nn.BatchNorm1d, ()), (nn.BatchNorm1d, (5,)), (nn.BatchNorm2d, (3, 4))]
)
@pytest.mark.parametrize("as_printed", [False, True])
def test_the_module_normalises_batch_and_ghosts_by_those_statistics(
    kind: type[nn.BatchNorm1d], positions: tuple[int, ...], as_printed: bool
) -> None:
    batch, ghosts = (x.detach() for x in draw(6, 4, positions))
    plain = kind(3, dtype=torch.float64)
    with torch.no_grad():
        plain.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        plain.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    norm = with_ghost_norm(plain, as_printed=as_printed)
    with ghost_rows(norm, 6, 4):
        found = norm.train()(torch.cat([batch, ghosts]))
    mean, var = ghost_statistics(batch, ghosts, as_printed)
    deviation = var.sqrt() + plain.eps if as_printed else (var + plain.eps).sqrt()
    for channel in range(3):
        rows = torch.cat([batch, ghosts])[:, channel]
        expected = (rows - mean[channel]) / deviation[channel] * plain.weight[channel] + plain.bias[channel]
        torch.testing.assert_close(found[:, channel], expected, rtol=1e-10, atol=1e-10)
    size = int(np.prod(positions))
    weights = np.concatenate([np.full(6 * size, 1 / (6 * size)), np.full(4 * size, 1 / size)])
    effective = weights.sum() ** 2 / (weights**2).sum()
    assert plain.running_mean is not None
    assert plain.running_var is not None
    torch.testing.assert_close(plain.running_mean, 0.1 * mean, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(plain.running_var, 0.9 + 0.1 * var * effective / (effective - 1), rtol=1e-10, atol=0)
    assert int(plain.num_batches_tracked or 0) == 1


def test_without_ghosts_and_in_evaluation_it_is_plain_batch_norm() -> None:
    plain = nn.BatchNorm2d(3)
    norm = with_ghost_norm(copy.deepcopy(plain))
    inputs = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(norm(inputs), plain(inputs))
    with ghost_rows(norm, 5, 0):
        assert torch.equal(norm(inputs), plain(inputs))
    with ghost_rows(norm, 3, 2):
        assert torch.equal(norm.eval()(inputs), plain.eval()(inputs))
    for name, value in plain.state_dict().items():
        assert torch.equal(norm.state_dict()[name], value)


def test_a_cumulative_average_and_no_running_statistics() -> None:
    batch, ghosts = (x.detach() for x in draw(6, 4, ()))
    norm = with_ghost_norm(nn.BatchNorm1d(3, momentum=None, affine=False, dtype=torch.float64))
    with ghost_rows(norm, 6, 4):
        for rows in (torch.cat([batch, ghosts]), torch.cat([batch, ghosts]) + 1):
            norm(rows)
    torch.testing.assert_close(norm.running_mean, ghost_statistics(batch, ghosts)[0] + 0.5)
    bare = with_ghost_norm(nn.BatchNorm1d(3, track_running_stats=False, dtype=torch.float64))
    with ghost_rows(bare, 6, 4):
        bare(torch.cat([batch, ghosts]))
    assert bare.running_mean is None


def test_a_twin_shares_weights_and_names_and_leaves_the_model_alone() -> None:
    model = build_model("small-cnn", {"width": 4}, 0)
    twin = with_ghost_norm(model, detach_ghosts=True)
    assert has_ghost_norm(twin)
    assert not has_ghost_norm(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert [id(p) for p in twin.parameters()] == [id(p) for p in model.parameters()]
    assert [id(b) for b in twin.buffers()] == [id(b) for b in model.buffers()]
    inputs = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with ghost_rows(twin, 2, 4):
        twin.train()(inputs)
    assert torch.equal(twin.eval()(inputs), model.eval()(inputs))
    assert all(module.rows == (0, 0) for module in twin.modules() if isinstance(module, GhostBatchNorm))


def test_a_module_that_stands_twice_stays_one() -> None:
    norm = nn.BatchNorm1d(3)
    twin = with_ghost_norm(nn.Sequential(norm, nn.Sequential(norm), nn.BatchNorm1d(3)))
    assert isinstance(twin, nn.Sequential)
    assert twin.get_submodule("0") is twin.get_submodule("1.0")
    assert twin.get_submodule("2") is not twin.get_submodule("0")


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_through_the_ghosts_flow_or_do_not(detach: bool) -> None:
    batch, ghosts = draw(4, 3, ())
    norm = with_ghost_norm(nn.BatchNorm1d(3, dtype=torch.float64), detach_ghosts=detach)
    with ghost_rows(norm, 4, 3):
        out = norm(torch.cat([batch, ghosts]))
    (out[:4] ** 3).sum().backward()
    mean, var = ghost_statistics(batch, ghosts.detach() if detach else ghosts)
    direct = torch.autograd.grad(
        (((batch - mean) / (var + 1e-5).sqrt()) ** 3).sum(), [batch, ghosts], allow_unused=True
    )
    assert batch.grad is not None
    torch.testing.assert_close(batch.grad, direct[0], rtol=1e-10, atol=1e-10)
    if detach:
        assert ghosts.grad is None or not ghosts.grad.any()
    else:
        torch.testing.assert_close(ghosts.grad, direct[1], rtol=1e-10, atol=1e-10)


def test_a_dead_channel_gives_no_nan_as_printed() -> None:
    norm = with_ghost_norm(nn.BatchNorm1d(2), as_printed=True)
    rows = torch.zeros(5, 2, requires_grad=True)
    with ghost_rows(norm, 3, 2):
        norm(rows)[:3].sum().backward()
    assert rows.grad is not None
    assert torch.isfinite(rows.grad).all()


def test_rows_that_do_not_add_up_are_refused() -> None:
    norm = with_ghost_norm(nn.BatchNorm1d(3))
    message = r"ghost batch norm: expected 4 rows of the batch and 3 ghosts, found 8"
    with ghost_rows(norm, 4, 3), pytest.raises(ValueError, match=message):
        norm(torch.ones(8, 3))


def test_ragged_rows_share_the_weights_of_batch_and_ghosts() -> None:
    counts, m = torch.tensor([2, 4, 1, 3, 5]), 2  # rows of two examples, then of three ghosts
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(15, 3)) * [1.0, 10.0, 0.1] + [0.0, -3.0, 5.0]).requires_grad_()
    norm = GhostBatchNorm(3).double().train()
    with rows_of(counts), ghost_rows(norm, m, 3):
        found = norm(rows)
    weights = torch.tensor([1 / 6] * 6 + [3 / 9] * 9, dtype=torch.float64) / 4  # the batch 1, three ghosts 3
    mean = (weights[:, None] * rows).sum(dim=0)
    var = (weights[:, None] * (rows - mean) ** 2).sum(dim=0)
    np.testing.assert_allclose(found.detach(), ((rows - mean) / (var + norm.eps).sqrt()).detach(), rtol=1e-10)
    effective = float(1 / (weights**2).sum())
    assert norm.running_mean is not None
    assert norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean, 0.1 * mean.detach(), rtol=1e-6)
    np.testing.assert_allclose(norm.running_var, 0.9 + 0.1 * var.detach() * effective / (effective - 1), rtol=1e-6)


def test_equal_numbers_of_rows_are_positions() -> None:
    batch, ghosts = draw(3, 4, (5,))
    tensor = torch.cat([batch, ghosts]).detach()
    plain, ragged = GhostBatchNorm(3).double().train(), GhostBatchNorm(3).double().train()
    with ghost_rows(plain, 3, 4):
        expected = plain(tensor)
    with rows_of(torch.full((7,), 5)), ghost_rows(ragged, 3, 4):
        found = ragged(tensor.transpose(1, 2).flatten(0, 1))
    np.testing.assert_allclose(found.detach(), expected.transpose(1, 2).flatten(0, 1).detach(), rtol=1e-10)
    np.testing.assert_allclose(ragged.running_var, plain.running_var, rtol=1e-10)  # type: ignore[arg-type]  # not None


def test_rows_of_other_samples_are_refused() -> None:
    norm = GhostBatchNorm(3).train()
    with (
        rows_of(torch.tensor([2, 2])),
        ghost_rows(norm, 2, 3),
        pytest.raises(ValueError, match="expected 2 rows of the batch and 3 ghosts, found rows of 2 samples"),
    ):
        norm(torch.zeros(4, 3))
    with (
        rows_of(torch.tensor([2, 2, 0])),
        ghost_rows(norm, 2, 1),
        pytest.raises(ValueError, match="found none of one"),
    ):
        norm(torch.zeros(4, 3))
