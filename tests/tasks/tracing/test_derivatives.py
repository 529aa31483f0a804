"""Derivatives through whole trainings, against central differences of torch.optim's own trainings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from tasks.tracing import TrainingDerivatives, training_derivatives
from tasks.training.sam import Sam

Settings = dict[str, Any]  # Any: settings of torch.optim
H = 1e-4


@dataclass(frozen=True)
class Step:
    examples: NDArray[np.int64]
    lr: float
    seed: int = 0


def steps(*members: Sequence[int], lr: float = 0.1) -> list[Step]:
    """Rows with a falling learning rate."""
    return [Step(np.array(ids, np.int64), lr / (1 + 0.1 * t), t) for t, ids in enumerate(members)]


# Example 7 twice in one batch, 3 in many steps, ids with gaps.
ROWS = steps([7, 7, 2], [3, 0], [11, 3, 5, 2], [5], [3, 11], [0, 7, 3], [2])
IDS = [0, 2, 3, 5, 7, 11]
INPUTS = torch.from_numpy(np.random.default_rng(5).normal(size=(12, 3)))
LABELS = torch.from_numpy(np.random.default_rng(6).integers(0, 3, 12))
QUERIES = torch.from_numpy(np.random.default_rng(7).normal(size=(4, 3)))


def network(*, norm: bool = False, dropout: float = 0.0) -> nn.Module:
    """A tiny smooth network in float64."""
    torch.manual_seed(0)
    middle = [*([nn.BatchNorm1d(4, track_running_stats=False)] if norm else []), nn.Tanh()]
    return nn.Sequential(nn.Linear(3, 4), *middle, nn.Dropout(dropout), nn.Linear(4, 3)).double()


def losses_of(model: nn.Module) -> Callable[[Mapping[str, Tensor], Step], Tensor]:
    """The losses of a row; random numbers are a function of the row."""

    def losses(parameters: Mapping[str, Tensor], row: Step) -> Tensor:
        torch.manual_seed(row.seed)
        logits = functional_call(model, dict(parameters), (INPUTS[row.examples],))
        return F.cross_entropy(logits, LABELS[row.examples], reduction="none")

    return losses


def measures_of(model: nn.Module) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """The margin of class 0 of four queries, without dropout."""

    def measures(parameters: Mapping[str, Tensor]) -> Tensor:
        torch.manual_seed(99)
        logits: Tensor = functional_call(model, dict(parameters), (QUERIES,))
        return logits[:, 0] - torch.logsumexp(logits[:, 1:], 1)

    return measures


def trained(
    model: nn.Module, make: Callable[..., torch.optim.Optimizer], rows: Sequence[Step], weights: Mapping[int, float]
) -> dict[str, Tensor]:
    """The parameters after a training by torch's own optimiser, with a weight on each example."""
    parameters = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    optimizer, losses = make(list(parameters.values())), losses_of(model)
    for row in rows:
        for group in optimizer.param_groups:
            group["lr"] = row.lr

        def closure(row: Step = row) -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            scale = torch.tensor([weights.get(int(i), 1.0) for i in row.examples], dtype=torch.float64)
            loss = (scale * losses(parameters, row)).sum() / len(row.examples)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's stub
            return loss

        optimizer.step(closure)  # type: ignore[arg-type]  # the stub expects a float
    return {name: value.detach() for name, value in parameters.items()}


def differences(
    model: nn.Module, make: Callable[..., torch.optim.Optimizer], rows: Sequence[Step], ids: Sequence[int]
) -> NDArray[np.float64]:
    """Central differences of the measures by each example's weight, (Q, n)."""
    measures = measures_of(model)
    columns = []
    for one in ids:
        up, down = (measures(trained(model, make, rows, {one: 1 + sign * H})) for sign in (1, -1))
        columns.append(((up - down) / (2 * H)).numpy())
    return np.stack(columns, 1)


def found_for(model: nn.Module, settings: Settings, rows: Sequence[Step]) -> TrainingDerivatives:
    start = {name: value.detach() for name, value in model.named_parameters()}
    return training_derivatives(losses_of(model), settings, start, rows, measures_of(model))


def maker(settings: Settings) -> Callable[..., torch.optim.Optimizer]:
    """The optimiser of torch with these settings."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sam": Sam}
    rest = {name: value for name, value in settings.items() if name != "kind"}
    return lambda parameters: kinds[settings["kind"]](parameters, **{"lr": 0.1, **rest})


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "sgd"},
        {"kind": "sgd", "weight_decay": 0.05},
        {"kind": "sgd", "momentum": 0.9},
        {"kind": "sgd", "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.02},
        {"kind": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "foreach": False},
        {"kind": "sgd", "momentum": 0.5, "maximize": True, "weight_decay": 0.1},
        {"kind": "adam"},
        {"kind": "adam", "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
        {"kind": "adam", "amsgrad": True, "eps": 1e-4},
        {"kind": "adam", "maximize": True, "eps": 1e-4, "weight_decay": 0.1},
        {"kind": "adamw"},
        {"kind": "adamw", "amsgrad": True, "weight_decay": 0.2, "betas": (0.7, 0.9)},
        {"kind": "adamw", "maximize": True},
        {"kind": "sam", "rho": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    ],
    ids=lambda settings: "-".join(f"{k}={v}" if k != "kind" else v for k, v in settings.items()),
)
def test_derivatives_equal_central_differences(settings: Settings) -> None:
    model, rows = network(), ROWS
    if settings["kind"].startswith("adam"):
        rows = steps(*(row.examples.tolist() for row in ROWS), lr=0.01)
    found = found_for(model, settings, rows)
    np.testing.assert_array_equal(found.ids, IDS)
    assert found.derivatives.dtype == np.float64
    np.testing.assert_allclose(found.derivatives, differences(model, maker(settings), rows, IDS), rtol=2e-5, atol=2e-7)


class Attentive(nn.Module):
    """Attention over the three numbers of an input; without `need_weights` torch takes its fused kernel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.attention, self.end = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(12, 3)
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = inputs[:, :, None] * torch.linspace(-1, 1, 4, dtype=inputs.dtype)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        found: Tensor = self.end(mixed.flatten(1))
        return found


def grouped() -> nn.Module:
    """Group norm, whose second derivative torch does not vectorise over queries."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(2, 8), nn.Tanh(), nn.Linear(8, 3)).double()


class Recurrent(nn.Module):
    """A recurrent layer over the three numbers of an input, embedded twice by the table that also gives the answer."""

    def __init__(self, kind: str, *, packed: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        reader = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.table, self.reader = nn.Embedding(3, 4), reader(4, 2, 2, batch_first=True, bidirectional=True)
        self.packed = packed
        self.double()

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = (inputs > 0).long()
        steps = self.table(tokens) * inputs[:, :, None] + self.table(2 - tokens)
        if self.packed:
            lengths = 1 + tokens.sum(1).clamp(max=2)
            steps = nn.utils.rnn.pack_padded_sequence(steps, lengths, batch_first=True, enforce_sorted=False)
        hidden = self.reader(steps)[1]
        last = hidden[0] if isinstance(hidden, tuple) else hidden
        found: Tensor = last[-2:].transpose(0, 1).flatten(1) @ self.table.weight.T
        return found


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("packed", [False, True])
def test_recurrent_layers_embeddings_and_tied_weights_are_differentiated(kind: str, *, packed: bool) -> None:
    model, settings = Recurrent(kind, packed=packed), {"kind": "sgd", "momentum": 0.9}
    found = found_for(model, settings, ROWS)
    expected = differences(model, maker(settings), ROWS, IDS)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found.derivatives, expected, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("build", [Attentive, grouped])
def test_attention_and_group_norm_are_differentiated(build: Callable[[], nn.Module]) -> None:
    model, settings = build(), {"kind": "sgd", "momentum": 0.9}
    found = found_for(model, settings, ROWS)
    expected = differences(model, maker(settings), ROWS, IDS)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found.derivatives, expected, rtol=2e-5, atol=2e-7)


class Slope(torch.autograd.Function):
    """The gradient of `Once`, which does not have a derivative of its own."""

    @staticmethod
    def forward(ctx: object, slope: Tensor) -> Tensor:
        return slope.clone()

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        raise RuntimeError("derivative of Slope is not implemented")


class Once(torch.autograd.Function):
    """The identity, which can be differentiated once."""

    @staticmethod
    def forward(ctx: object, values: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def backward(ctx: object, slope: Tensor) -> Tensor:
        found: Tensor = Slope.apply(slope)  # type: ignore[no-untyped-call]  # torch's stub
        return found


def test_an_operation_without_a_second_derivative_is_named_in_one_line() -> None:
    model = network()

    def losses(parameters: Mapping[str, Tensor], row: Step) -> Tensor:
        found: Tensor = Once.apply(losses_of(model)(parameters, row))  # type: ignore[no-untyped-call]  # torch's stub
        return found

    start = {name: value.detach() for name, value in model.named_parameters()}
    with pytest.raises(RuntimeError, match=r"^step 6: expected operations with derivatives of .*not implemented.*$"):
        training_derivatives(losses, {"kind": "sgd"}, start, ROWS, measures_of(model))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_batch_norm_and_dropout_are_differentiated_too(momentum: float) -> None:
    model = network(norm=True, dropout=0.4)
    settings = {"kind": "sgd", "momentum": momentum}
    rows = steps([7, 7, 2, 1], [3, 0], [11, 3, 5, 2], [5, 1], [3, 11, 0])
    found = found_for(model, settings, rows)
    expected = differences(model, maker(settings), rows, found.ids.tolist())
    np.testing.assert_allclose(found.derivatives, expected, rtol=2e-5, atol=2e-7)


@pytest.mark.parametrize("n_steps", [1, 2, 3, 11, 17])
def test_any_number_of_steps_is_cut_into_segments(n_steps: int) -> None:
    model, settings = network(), {"kind": "adamw", "eps": 1e-3}
    rows = steps(*([t % 5, (t * t) % 12] for t in range(n_steps)), lr=0.02)
    found = found_for(model, settings, rows)
    expected = differences(model, maker(settings), rows, found.ids.tolist())
    np.testing.assert_allclose(found.derivatives, expected, rtol=2e-5, atol=2e-7)
    assert found.growth.shape == (n_steps,)


def test_one_query_is_a_row() -> None:
    model = network()
    every = measures_of(model)
    start = {name: value.detach() for name, value in model.named_parameters()}
    found = training_derivatives(losses_of(model), {"kind": "sgd"}, start, ROWS, lambda p: every(p)[2:3])
    whole = training_derivatives(losses_of(model), {"kind": "sgd"}, start, ROWS, every)
    np.testing.assert_allclose(found.derivatives, whole.derivatives[2:3], rtol=1e-12)


def test_a_quadratic_is_worked_by_hand() -> None:
    """Losses (p - x)^2 / 2 with rate r: d p_T / d w = -r sum_t (p_t - x) (1 - r)^(T - 1 - t)."""
    r, x, p, expected = 0.25, 2.0, 0.0, 0.0
    for t in range(4):
        expected += -r * (p - x) * (1 - r) ** (3 - t)
        p -= r * (p - x)
    found = training_derivatives(
        lambda q, row: (q["p"] - x) ** 2 / 2,
        {"kind": "sgd"},
        {"p": torch.zeros(1, dtype=torch.float64)},
        [Step(np.array([5]), r)] * 4,
        lambda q: q["p"],
    )
    np.testing.assert_allclose(found.derivatives, [[expected]], rtol=1e-12)
    np.testing.assert_allclose(found.growth, [0.75**4, 0.75**3, 0.75**2, 0.75], rtol=1e-12)


@pytest.mark.parametrize("settings", [{"kind": "sgd"}, {"kind": "sgd", "momentum": 0.9, "weight_decay": 0.1}])
def test_growth_is_that_of_the_products_of_jacobians(settings: Settings) -> None:
    """The adjoint before step t is the derivative of the measures by the parameters there, by central differences."""
    model, rows = network(), ROWS[:4]
    found = found_for(model, settings, rows)
    measures, make = measures_of(model), maker(settings)
    start = torch.cat([value.detach().flatten() for value in model.parameters()])

    def jacobian(t: int) -> NDArray[np.float64]:
        columns = []
        for k in range(len(start)):
            moved = [measures(_moved(model, make, rows, t, k, sign * H)) for sign in (1, -1)]
            columns.append(((moved[0] - moved[1]) / (2 * H)).numpy())
        return np.stack(columns, 1)

    end = np.linalg.norm(jacobian(len(rows)), axis=1)
    expected = [(np.linalg.norm(jacobian(t), axis=1) / end).max() for t in range(len(rows))]
    np.testing.assert_allclose(found.growth, expected, rtol=2e-5)


def _moved(
    model: nn.Module, make: Callable[..., torch.optim.Optimizer], rows: Sequence[Step], t: int, k: int, by: float
) -> dict[str, Tensor]:
    """The trained parameters if parameter k is moved before step t."""
    parameters = {name: value.detach().clone().requires_grad_() for name, value in model.named_parameters()}
    optimizer, losses = make(list(parameters.values())), losses_of(model)
    for step in range(len(rows) + 1):
        if step == t:
            with torch.no_grad():
                flat = torch.nn.utils.parameters_to_vector(list(parameters.values()))
                flat[k] += by
                torch.nn.utils.vector_to_parameters(flat, list(parameters.values()))
        if step < len(rows):
            for group in optimizer.param_groups:
                group["lr"] = rows[step].lr
            optimizer.zero_grad()
            losses(parameters, rows[step]).mean().backward()  # type: ignore[no-untyped-call]  # torch's stub
            optimizer.step()
    return {name: value.detach() for name, value in parameters.items()}


def test_a_parameter_outside_the_loss_stays_as_torch_leaves_it() -> None:
    """torch does not decay a parameter without a gradient, and neither do we: its measure does not move."""
    found = training_derivatives(
        lambda q, row: (q["p"] - 1.0) ** 2,
        {"kind": "adamw", "weight_decay": 0.5},
        {"p": torch.zeros(1, dtype=torch.float64), "idle": torch.ones(1, dtype=torch.float64)},
        [Step(np.array([0]), 0.1)] * 3,
        lambda q: q["idle"],
    )
    np.testing.assert_array_equal(found.derivatives, [[0.0]])
    np.testing.assert_array_equal(found.growth, [1.0, 1.0, 1.0])


def test_a_dead_unit_gives_zero_with_adam() -> None:
    """Its gradient is 0 in all steps, and so is the root of the second moment."""
    inputs = torch.tensor([[1.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    found = training_derivatives(
        lambda q, row: (inputs[row.examples] @ q["w"] - 1.0) ** 2,
        {"kind": "adam"},
        {"w": torch.tensor([0.1, 0.2], dtype=torch.float64)},
        [Step(np.array([0, 1]), 0.01)] * 3,
        lambda q: q["w"],
    )
    assert np.isfinite(found.derivatives).all()
    np.testing.assert_array_equal(found.derivatives[1], [0.0, 0.0])


START = {"p": torch.zeros(2, dtype=torch.float64)}


def _losses(q: Mapping[str, Tensor], row: Step) -> Tensor:
    return (q["p"][0] - 1.0) ** 2 * torch.ones(len(row.examples), dtype=torch.float64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": {"kind": "lbfgs"}}, r"^optimizer: kind: expected one of sgd, adam, adamw, sam, found 'lbfgs'$"),
        ({"optimizer": {}}, r"^optimizer: kind: expected one of sgd, adam, adamw, sam, found None$"),
        ({"optimizer": {"kind": "adam", "momentum": 0.9}}, r"^optimizer: expected settings of adam \(.*'momentum'$"),
        (
            {"optimizer": {"kind": "sgd", "nesterov": True}},
            r"^optimizer: nesterov: expected a momentum above 0 and no dampening, found 0.0 and 0.0$",
        ),
        ({"rows": []}, r"^rows: expected at least one step, found none$"),
        ({"rows": [Step(np.empty(0, np.int64), 0.1)]}, r"^rows: step 0: expected at least one example, found none$"),
        ({"rows": [Step(np.array([1]), float("nan"))]}, r"^rows: step 0: lr: expected a finite number, found nan$"),
        ({"rows": [Step(np.array([0.5]), 0.1)]}, r"^rows: step 0: examples: expected a NumPy array of integers.*$"),
        ({"start": {}}, r"^start: expected parameters, found none$"),
        (
            {"start": {"p": torch.zeros(2, dtype=torch.int64)}},
            r"^start: p: expected a tensor of floats, found .*int64$",
        ),
        (
            {"start": {"p": torch.zeros(2), "q": torch.zeros(2, dtype=torch.float64)}},
            r"^start: expected parameters of one dtype, found torch.float32, torch.float64$",
        ),
        (
            {"losses": lambda q, row: q["p"].sum()},
            r"^losses: step 0: expected a loss for each of 1 examples, found \(\)$",
        ),
        ({"losses": lambda q, row: q["p"][:1] / 0.0}, r"^losses: step 0: expected finite losses, found NaN or inf.*$"),
        (
            {"losses": lambda q, row: torch.ones(1)},
            r"^losses: step 0: expected losses that depend on the parameters.*$",
        ),
        (
            {"measures": lambda q: q["p"].sum()},
            r"^measures: expected a value for each query, shape \(Q,\), found \(\)$",
        ),
        ({"measures": lambda q: q["p"] / 0.0}, r"^measures: expected finite values, found NaN or inf$"),
        ({"measures": lambda q: torch.ones(2)}, r"^measures: expected values that depend on the parameters.*$"),
    ],
)
def test_bad_input_is_named_in_one_line(changes: Settings, message: str) -> None:
    given: Settings = {
        "losses": _losses,
        "optimizer": {"kind": "sgd"},
        "start": START,
        "rows": [Step(np.array([4]), 0.1)],
        "measures": lambda q: q["p"],
    }
    with pytest.raises((ValueError, TypeError), match=message) as error:
        training_derivatives(**{**given, **changes})
    assert "\n" not in str(error.value)
