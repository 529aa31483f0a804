"""Each member's columns by every product, and sums of the members' parts, against autograd in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tasks.modules.rows import Rows
from tasks.recording import columns, sums
from tasks.recording.columns import KeptColumns, MemberColumns
from tasks.recording.factors import MANY, Factors
from tasks.recording.sums import COMBINED, factor_of, summed
from tasks.tracing.prepared import Queries

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(7, 12, bias=False), (7,)),
    "tokens": (lambda: nn.Linear(7, 12, bias=False), (5, 7)),
    "many tokens": (lambda: nn.Linear(3, 2, bias=False), (4, 5, 3)),
    "conv1d": (lambda: nn.Conv1d(3, 10, 3, stride=2, bias=False), (3, 15)),
    "one position": (lambda: nn.Conv2d(3, 9, 4, bias=False), (3, 4, 4)),
    "conv2d": (lambda: nn.Conv2d(2, 9, 3, padding=1, bias=False), (2, 6, 5)),
    "groups": (lambda: nn.Conv2d(4, 20, 3, groups=2, dilation=2, padding=(1, 2), bias=False), (4, 7, 6)),
    "depthwise": (lambda: nn.Conv2d(6, 6, 3, groups=6, padding=1, bias=False), (6, 5, 5)),
    "same": (lambda: nn.Conv2d(2, 11, (1, 3), padding="same", bias=False), (2, 5, 6)),
    "circular": (lambda: nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular", bias=False), (2, 4, 4)),
    "reflect": (lambda: nn.Conv1d(2, 16, 5, padding=2, padding_mode="reflect", groups=2, bias=False), (2, 140)),
    "many positions": (lambda: nn.Conv2d(2, 3, 3, padding=1, groups=1, bias=False), (2, 12, 12)),
    "strided, many positions": (lambda: nn.Conv2d(4, 6, 3, stride=(1, 2), groups=2, bias=False), (4, 14, 28)),
    "conv3d": (lambda: nn.Conv3d(2, 9, 2, padding=1, bias=False), (2, 3, 4, 3)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 2, 2, stride=2, bias=False), (3, 4, 4)),
}
WAYS: dict[str, dict[str, float]] = {
    "chosen": {},
    "layers": {"FORMED": 1e12},
    "gradients": {"FORMED": 0.0, "EACH": 0.0},
    "bits": {"CHUNK": 1},
}


class Case:
    """A layer with queries and a batch, in float64; and what autograd says of them."""

    def __init__(self, name: str, queries: int, members: int = 6) -> None:
        make, shape = LAYERS[name]
        torch.manual_seed(3)
        self.module = make().double()
        self.weight, self.anchor = self._weight.detach().clone(), torch.randn_like(self._weight)
        self.queries, self.rows = (torch.randn(n, *shape, dtype=torch.float64) for n in (queries, members))
        self.outputs = torch.randn_like(self.module(self.rows))

    @property
    def _weight(self) -> Tensor:
        found: Tensor = self.module.weight  # type: ignore[assignment]  # torch's stub
        return found

    def gradient(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Return the gradient of <outputs, layer(inputs)> by the weight."""
        (found,) = torch.autograd.grad((self.module(inputs) * outputs).sum(), self._weight)
        return found

    def gradients(self) -> Tensor:
        """Return each member's gradient, one member at a time."""
        return torch.stack(
            [self.gradient(self.rows[k : k + 1], self.outputs[k : k + 1]) for k in range(len(self.rows))]
        )

    def expected(self, anchor: Tensor | None = None) -> Tensor:
        """Return <H, G_b> (Q, members)."""
        found = []
        for k in range(len(self.queries)):
            one = self.queries[k : k + 1]
            z = torch.func.functional_call(self.module, {"weight": self.weight if anchor is None else anchor}, (one,))
            found.append(self.gradient(one, z.detach()))
        return torch.stack(found).flatten(1) @ self.gradients().flatten(1).T

    def found(self, dtype: torch.dtype, anchor: Tensor | None = None) -> Tensor:
        """Return the columns in a dtype."""
        module, (weight, inputs, rows, outputs) = (
            self.module.to(dtype),
            (each.to(dtype) for each in (self.weight, self.queries, self.rows, self.outputs)),
        )
        queries = Queries(module, weight, inputs, None if anchor is None else anchor.to(dtype), None)
        made = MemberColumns(queries).of([(rows, outputs)], len(rows))
        assert made.dtype == dtype
        return made


def close(found: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    """Check that columns agree, relative to the largest."""
    share = 1e-5 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(found.double(), wanted, rtol=0, atol=share * float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LAYERS)
def test_columns_are_those_of_autograd(
    name: str, way: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant, value in WAYS[way].items():
        monkeypatch.setattr(columns, constant, value)
    for queries in (1, 4):
        case = Case(name, queries)
        wanted, displaced = case.expected(), case.expected(case.anchor)
        close(case.found(dtype), wanted, dtype)
        case = Case(name, queries)
        close(case.found(dtype, case.anchor), displaced, dtype)


def test_every_product_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases above use all products, by the choice alone."""
    taken = list[str]()
    for name in ("_by_positions", "_by_layer", "_by_gradients", "_by_gammas"):
        own = getattr(MemberColumns, name)

        def noted(*given: object, name: str = name, own: Callable[..., Tensor] = own) -> Tensor:
            taken.append(name)
            return own(*given)

        monkeypatch.setattr(MemberColumns, name, noted)
    for name in LAYERS:
        for queries in (1, 300):
            Case(name, queries).found(torch.float32)
    assert set(taken) == {"_by_positions", "_by_layer", "_by_gradients", "_by_gammas"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", [name for name in LAYERS if name != "transposed"])
def test_gradients_by_sample_are_those_of_autograd(name: str, dtype: torch.dtype) -> None:
    case = Case(name, 1)
    wanted = case.gradients()
    factors = Factors(case.module, tuple(case.weight.shape), case.rows.to(dtype), case.outputs.to(dtype))
    assert (factors.sample_outputs.shape[3] >= MANY) == ("many pos" in name or name == "reflect")
    close(factors.gradients_by_sample(), wanted, dtype)
    close(factors.gradient(), wanted.sum(0), dtype)


def test_calls_of_one_layer_are_added_or_joined() -> None:
    case = Case("conv2d", 3)
    wanted, queries = case.expected(), Queries(case.module, case.weight, case.queries, None, None)
    calls = [(case.rows, case.outputs), (case.rows, case.outputs)]
    close(MemberColumns(queries).of(calls, 6), 2 * wanted, torch.float64)
    parts = [(case.rows[:2], case.outputs[:2]), (case.rows[2:], case.outputs[2:])]
    close(MemberColumns(queries).of(parts, 6), wanted, torch.float64)
    assert torch.equal(MemberColumns(queries).of([], 6), torch.zeros(3, 6, dtype=torch.float64))


def test_ragged_queries_see_no_padding() -> None:
    case = Case("tokens", 3)
    wanted = case.expected()
    rows = torch.cat([case.queries.flatten(0, 1), torch.ones(0, 7, dtype=torch.float64)])
    ragged = Rows(rows, torch.tensor([0, 5, 10, 15]))
    found = MemberColumns(Queries(case.module, case.weight, ragged, None, None)).of([(case.rows, case.outputs)], 6)
    close(found, wanted, torch.float64)


def test_queries_without_rows_have_no_part() -> None:
    case = Case("tokens", 2)
    none = Rows(torch.zeros(0, 7, dtype=torch.float64), torch.tensor([0, 0, 0]))
    found = MemberColumns(Queries(case.module, case.weight, none, None, None)).of([(case.rows, case.outputs)], 6)
    assert torch.equal(found, torch.zeros(2, 6, dtype=torch.float64))


def test_a_layer_and_its_units_are_prepared_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    case, made = Case("conv2d", 3), list[Queries]()
    monkeypatch.setattr(columns, "MemberColumns", lambda queries: (made.append(queries), MemberColumns(queries))[1])  # type: ignore[func-returns-value]
    kept, anchors = KeptColumns(), [None, case.anchor, 2 * case.anchor]
    for _ in range(3):
        for anchor in anchors:
            kept.of("0", Queries(case.module, case.weight, case.queries, anchor, None), [])
    assert len(made) == len(anchors)
    with torch.inference_mode():  # its changes in place are not counted
        uncounted = case.weight * 1
    for _ in range(2):
        kept.of("1", Queries(case.module, uncounted, case.queries, None, None), [])
    assert len(made) == len(anchors) + 2
    full = KeptColumns(budget=case.queries.nbytes)  # the copy of the inputs counts too
    for _ in range(2):
        full.of("0", Queries(case.module, case.weight, case.queries, None, None), [])
    assert len(made) == len(anchors) + 4


def test_gradients_of_other_layers_are_made_once_for_all_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    case, calls, make = Case("transposed", 5), list[int](), columns._gradients
    wanted = case.expected()
    monkeypatch.setattr(columns, "BUDGET", case.weight.nbytes)
    monkeypatch.setattr(columns, "_gradients", lambda *given: (calls.append(1), make(*given))[1])  # type: ignore[func-returns-value]
    queries = Queries(case.module, case.weight, case.queries, None, None)
    close(KeptColumns().of("0", queries, [([(case.rows, case.outputs)], 6)])[0], wanted, torch.float64)
    assert len(calls) == 1


def test_kept_queries_are_those_that_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("conv2d", 5)
    wanted, steps = case.expected(), [([(case.rows, case.outputs)], 6), ([], 6)]
    queries, kept = Queries(case.module, case.weight, case.queries, None, None), KeptColumns()
    for _ in range(2):
        first, second = kept.of("0", queries, steps)
        close(first, wanted, torch.float64)
        assert not second.any()
    case.queries.mul_(2)  # the same tensor with other values
    close(
        kept.of("0", Queries(case.module, case.weight, case.queries, None, None), steps)[0], 4 * wanted, torch.float64
    )
    none = Queries(case.module, case.weight, case.queries[:0], None, None)
    assert [each.shape for each in kept.of("0", none, steps)] == [(0, 6), (0, 6)]
    monkeypatch.setattr(columns, "BUDGET", 2 * case.weight.nbytes)  # batches of two queries
    queries = Queries(case.module, case.weight, case.queries, None, None)
    close(KeptColumns().of("0", queries, steps)[0], 4 * wanted, torch.float64)


def test_nan_is_refused() -> None:
    case = Case("conv2d", 2)
    case.outputs[4, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"^updates: .* in 1 of 6 rows, the first is row 4$"):
        case.found(torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_factor_of_a_sum_is_known(name: str, dtype: torch.dtype) -> None:
    case = Case(name, 1)
    gradient = case.gradient(case.rows, case.outputs).to(dtype)
    module, call = case.module.to(dtype), (case.rows.to(dtype), case.outputs.to(dtype))
    halves = [(call[0][:2], call[1][:2]), (call[0][2:], call[1][2:])]
    for calls in ([call], halves):
        factor = factor_of([summed(module, calls, 0.3 * gradient)])
        assert factor == pytest.approx(0.3, rel=1e-5 if dtype == torch.float32 else 1e-12)
    assert factor_of([summed(module, [call], torch.zeros_like(gradient))]) == 0.0
    masked, one_row = gradient.clone(), gradient.clone()
    masked.view(-1)[: masked.numel() // 4] = 0.0
    one_row[-1] *= 1.1
    penalty = case.weight.to(dtype) * (0.01 * float(gradient.norm()) / float(case.weight.norm()))
    for odd in (gradient + penalty, masked, one_row):
        assert factor_of([summed(module, [call], odd)]) is None


@pytest.mark.parametrize("name", ["linear", "conv2d", "groups"])
def test_products_of_fewer_bits_do_not_refuse_a_sum(name: str) -> None:
    case = Case(name, 1, members=64)
    module, call = case.module.float(), (case.rows.float(), case.outputs.float())
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        (gradient,) = torch.autograd.grad((module(call[0]) * call[1]).sum(), list(module.parameters()))
        assert factor_of([summed(module, [call], 0.3 * gradient)]) == pytest.approx(0.3, rel=1e-4)
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("name", ["linear", "conv2d"])
def test_calls_without_rows_have_no_part_of_a_sum(name: str) -> None:
    case = Case(name, 1)
    gradient, none = case.gradient(case.rows, case.outputs), (case.rows[:0], case.outputs[:0])
    assert factor_of([summed(case.module, [none, (case.rows, case.outputs)], gradient)]) == pytest.approx(1.0)
    assert factor_of([summed(case.module, [none], torch.zeros_like(gradient))]) == 0.0


def test_combinations_count_every_row_alike_on_the_cpu() -> None:
    with torch.device("meta"):
        found = sums._combinations(1000)
    np.testing.assert_allclose(found.square().sum(0), COMBINED)
    scales = (found @ torch.randn(1000, 40, dtype=torch.float64)).square().sum()  # of a norm that is known on average
    assert 0.5 < float(scales) / (COMBINED * 1000 * 40) < 2


def test_rows_that_cancel_each_other_do_not_vanish() -> None:
    """The gradients of logits sum to 0 over the classes, also where the rows are combined."""
    torch.manual_seed(0)
    module, rows = nn.Linear(5, 2 * COMBINED, bias=False), torch.randn(9, 5)
    outputs = torch.softmax(module(rows), 1).detach() - nn.functional.one_hot(torch.arange(9), 2 * COMBINED)
    total, wanted = summed(module, [(rows, outputs)], outputs.T @ rows)
    assert len(wanted.flatten()) == COMBINED * 5
    assert float(wanted.norm()) > 0.3 * float((outputs.T @ rows).norm()) * COMBINED**0.5
    assert factor_of([(total, wanted)]) == pytest.approx(1.0, rel=1e-5)
