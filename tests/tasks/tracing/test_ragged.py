"""Rows that differ by query: contributions against float64 loops over one query and one row at a time."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.modules.rows import Rows, declared, rows_of
from tasks.tracing import Contributions, Projector, contributions, gammas, unit_contributions
from tasks.tracing import projector as projector_file
from tasks.tracing import strategies as strategies_file

COUNTS = {
    "mixed": [3, 0, 1, 5],
    "one row each": [1, 1, 1],
    "equal": [4, 4],
    "only empty": [0, 0],
    "many": [60, 2, 33],
    "one query": [7],
}
STEPS, INPUTS, OUTPUTS = 4, 5, 3


def seeded(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def ragged(counts: list[int], dtype: torch.dtype = torch.float64) -> Rows:
    return Rows(seeded(sum(counts), INPUTS, seed=2).to(dtype), torch.tensor([0, *np.cumsum(counts).tolist()]))


def by_loops(rows: Rows, z_weight: Tensor, updates: Tensor, z_bias: Tensor, biases: Tensor) -> Contributions:
    """The definition: for each query sums over its rows and over outputs."""
    gamma, norm = torch.zeros(2, len(rows), len(updates), dtype=torch.float64)
    size = torch.zeros(len(rows), dtype=torch.float64)
    offsets = rows.offsets.tolist()
    for q in range(len(rows)):
        for r in range(offsets[q], offsets[q + 1]):
            f = rows.values[r].double()
            for o in range(len(z_weight)):
                z = float(z_weight[o].double() @ f + z_bias[o])
                size[q] += z * z
                for t in range(len(updates)):
                    moved = float(updates[t, o].double() @ f + biases[t, o])
                    gamma[q, t] += z * moved
                    norm[q, t] += moved * moved
    norm, size = norm.sqrt(), size.sqrt()
    scale = norm * size[:, None]
    return Contributions(gamma, norm, torch.where(scale > 0, gamma / scale.clamp(min=1e-300), 0.0), size)


def compare(found: Contributions, expected: Contributions, tolerance: float) -> None:
    scale = expected.norm * expected.preactivation_norm[:, None]
    np.testing.assert_array_less(
        (found.gamma - expected.gamma).abs(), tolerance * scale + 1e-300 + (scale == 0) * 1e-12
    )
    np.testing.assert_allclose(found.norm, expected.norm, rtol=tolerance, atol=1e-12)
    np.testing.assert_allclose(found.cosine, expected.cosine, atol=tolerance)
    np.testing.assert_allclose(found.preactivation_norm, expected.preactivation_norm, rtol=tolerance)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("displaced", [False, True])
@pytest.mark.parametrize("counts", COUNTS.values(), ids=COUNTS)
def test_contributions_are_sums_over_a_query_s_rows(counts: list[int], displaced: bool, bias: bool) -> None:
    rows, module = ragged(counts), nn.Linear(INPUTS, OUTPUTS)
    weight, updates = seeded(OUTPUTS, INPUTS, seed=1), seeded(STEPS, OUTPUTS, INPUTS, seed=3)
    anchor = seeded(OUTPUTS, INPUTS, seed=4) if displaced else None
    given, changes = seeded(OUTPUTS, seed=5) * bias, seeded(STEPS, OUTPUTS, seed=6) * bias
    expected = by_loops(rows, weight if anchor is None else anchor, updates, given, changes)
    more = {"bias": given, "bias_updates": changes} if bias else {}
    compare(contributions(module, weight, rows, updates, anchor=anchor, **more), expected, 1e-10)
    np.testing.assert_allclose(gammas(module, weight, rows, updates, anchor=anchor, **more), expected.gamma, atol=1e-10)


@pytest.mark.parametrize("strategy", ["matrices", "gradient", "gram"])
@pytest.mark.parametrize("bias", [False, True])
def test_every_product_gives_the_same(strategy: str, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector_file, "choose_strategy", lambda *_: strategy)
    monkeypatch.setattr(projector_file, "CHUNK", 1)  # one query and one step at a time
    rows, weight = ragged(COUNTS["mixed"]), seeded(OUTPUTS, INPUTS, seed=1)
    updates = seeded(STEPS, OUTPUTS, INPUTS, seed=3)
    given, changes = seeded(OUTPUTS, seed=5) * bias, seeded(STEPS, OUTPUTS, seed=6) * bias
    expected = by_loops(rows, weight, updates, given, changes)
    projector = Projector(nn.Linear(INPUTS, OUTPUTS), weight, rows, bias=given if bias else None)
    found = projector.gammas(updates, changes if bias else None)
    np.testing.assert_allclose(found, expected.gamma, atol=1e-12)
    if strategy != "gradient":
        compare(projector.contributions(updates, changes if bias else None), expected, 1e-10)


def test_float32_keeps_to_its_tolerance() -> None:
    rows, weight = ragged(COUNTS["many"], torch.float32), seeded(OUTPUTS, INPUTS, seed=1).float()
    updates = seeded(STEPS, OUTPUTS, INPUTS, seed=3).float()
    expected = by_loops(rows, weight, updates, torch.zeros(OUTPUTS), torch.zeros(STEPS, OUTPUTS))
    found = contributions(nn.Linear(INPUTS, OUTPUTS), weight, rows, updates)
    assert found.gamma.dtype == torch.float32
    compare(found, expected, 2e-5)


def test_batched_is_one_query_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, weight = ragged(COUNTS["many"]), seeded(OUTPUTS, INPUTS, seed=1)
    updates, module = seeded(STEPS, OUTPUTS, INPUTS, seed=3), nn.Linear(INPUTS, OUTPUTS)
    whole = contributions(module, weight, rows, updates)
    for q in range(len(rows)):
        alone = rows.values[rows.offsets[q] : rows.offsets[q + 1]]
        one = contributions(module, weight, alone[None], updates)  # a tensor (1, rows, in)
        for name in ("gamma", "norm", "cosine"):
            np.testing.assert_allclose(getattr(whole, name)[q], getattr(one, name)[0], rtol=1e-10)
    monkeypatch.setattr(strategies_file, "BUDGET", 1)
    monkeypatch.setattr("tasks.tracing.projections.queries_within", lambda *_: 1)
    split = contributions(module, weight, rows, updates)
    np.testing.assert_allclose(split.gamma, whole.gamma, rtol=1e-10)


def test_a_unit_and_completeness() -> None:
    rows, module = ragged(COUNTS["mixed"]), nn.Linear(INPUTS, OUTPUTS)
    initial, updates = seeded(OUTPUTS, INPUTS, seed=1), seeded(STEPS, OUTPUTS, INPUTS, seed=3)
    weight = initial + updates.sum(dim=0)
    whole = contributions(module, weight, rows, updates)
    start = contributions(module, weight, rows, initial[None])
    total = whole.gamma.sum(dim=1) + start.gamma[:, 0]
    np.testing.assert_allclose(total, whole.preactivation_norm.square(), rtol=1e-12, atol=1e-12)
    units = [unit_contributions(module, weight, rows, updates, unit) for unit in range(OUTPUTS)]
    np.testing.assert_allclose(sum(unit.gamma for unit in units), whole.gamma, rtol=1e-10, atol=1e-12)


def test_some_queries_are_the_same_rows() -> None:
    rows = ragged(COUNTS["mixed"])
    for picked in (slice(1, 3), torch.tensor([3, 0])):
        some = rows[picked]
        expected = [rows.padded()[q, : int(rows.counts[q])] for q in torch.arange(4)[picked].tolist()]
        np.testing.assert_array_equal(some.values, torch.cat(expected))
    assert rows[1:3].shape == (2, 5, INPUTS)
    assert rows[1:3].trimmed().shape == (2, 1, INPUTS)


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 3], "rise from 0 to 4, the number of rows, found 0 to 3"),
        ([1, 4], "found 1 to 4"),
        ([0, 3, 2, 4], "with a fall"),
        ([], r"expected integers \(Q \+ 1,\)"),
        ([[0, 4]], r"expected integers \(Q \+ 1,\)"),
        ([0.0, 4.0], r"expected integers \(Q \+ 1,\)"),
    ],
)
def test_wrong_offsets_are_refused(offsets: list[float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Rows(torch.zeros(4, INPUTS), torch.tensor(offsets))


def test_rows_of_other_shapes_and_modules_are_refused() -> None:
    with pytest.raises(ValueError, match="expected rows"):
        Rows(torch.zeros(4, 2, INPUTS), torch.tensor([0, 4]))
    with pytest.raises(TypeError, match="offsets: expected a torch tensor, found list"):
        Rows(torch.zeros(4, INPUTS), [0, 4])  # type: ignore[arg-type]  # the point of the test
    rows = ragged([2, 2])
    with pytest.raises(ValueError, match="expected a tensor for Conv1d, found ragged rows"):
        contributions(nn.Conv1d(5, 2, 1), seeded(2, 5, 1, seed=0), rows, seeded(1, 2, 5, 1, seed=1))
    with pytest.raises(ValueError, match=r"expected shape \(Q, \.\.\., 4\)"):
        contributions(nn.Linear(4, 2), seeded(2, 4, seed=0), rows, seeded(1, 2, 4, seed=1))
    bad = rows.values.clone()
    bad[0, 0] = torch.nan
    with pytest.raises(ValueError, match="inputs: expected finite values"):
        contributions(nn.Linear(5, 2), seeded(2, 5, seed=0), rows.with_values(bad), seeded(1, 2, 5, seed=1))


def test_a_network_declares_its_rows() -> None:
    values = torch.zeros(5, 2)
    assert declared(values) is values
    with rows_of(torch.tensor([2, 3])):
        found = declared(values)
        assert isinstance(found, Rows)
        assert found.offsets.tolist() == [0, 2, 5]
        with pytest.raises(ValueError, match="expected an input with 5 rows, as declared"):
            declared(torch.zeros(4, 2))
    assert declared(values) is values
