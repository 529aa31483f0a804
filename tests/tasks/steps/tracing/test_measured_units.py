"""A unit's activation as the measure of counterfactual influence and TracIn, by central differences and plain sums."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from configs.tracing import Counterfactual, Tracin
from storage.stages import open_finished
from tasks.steps.tracing.counterfactual import read_derivatives
from tasks.steps.tracing.results import tracing_results
from tasks.steps.tracing.retraining import subset
from tasks.steps.tracing.tracin import read_tracin
from tasks.tracing.measures import activation_of, watched_unit
from tests.plans import traces
from tests.tasks.steps.tracing.loops import Doubles, H, Loop, NewRun, compared, counter_tree, spearman

if TYPE_CHECKING:
    from tests.conftest import Run


@pytest.fixture(scope="module")
def unit_run(tmp_path_factory: pytest.TempPathFactory, new_run: NewRun) -> "Run":
    """A finished run about a hidden unit by derivatives, and about another one by TracIn: not to be changed."""
    tree = counter_tree(tmp_path_factory.mktemp("unit") / "store")
    tree["tracing"]["counterfactual"] |= {"measure": "unit", "unit": f"{HIDDEN}:1"}
    tree["tracing"]["tracin"] = {"measure": "unit", "unit": f"{HIDDEN}:2"}
    return new_run(tree).finish()


HIDDEN = "1"  # first linear layer of the network


def hidden(model: nn.Module, x: torch.Tensor, unit: int) -> torch.Tensor:
    """Return a unit's preactivation (n,), by hand."""
    layer = model.get_submodule(HIDDEN)
    assert isinstance(layer, nn.Linear)
    return x.flatten(1) @ layer.weight[unit] + (0 if layer.bias is None else layer.bias[unit])


def activations(loop: Loop, weights: torch.Tensor) -> Doubles:
    """Return the activations of the queries after a training with weights on its examples."""
    found: Doubles = hidden(loop.trained(weights), loop.queries, 1).detach().numpy()
    return found


def test_derivatives_of_an_activation_equal_central_differences(unit_run: "Run") -> None:
    loop = Loop(unit_run)
    found = read_derivatives(unit_run.job.store, compared(unit_run).inputs["counterfactual"])
    assert np.abs(found).max() > 1e-3
    for position in range(20):
        weights, ends = torch.ones(20, dtype=torch.float64), []
        for sign in (1, -1):
            weights[position] = 1 + sign * H
            ends.append(activations(loop, weights))
        np.testing.assert_allclose(found[:, position], (ends[0] - ends[1]) / (2 * H), rtol=1e-3, atol=1e-5)


def test_tracin_of_an_activation_sums_what_each_step_adds(unit_run: "Run") -> None:
    loop, expected = Loop(unit_run), np.zeros((3, 20))
    rate = loop.settings["optimizer"]["lr"]

    def look(model: nn.Module, step: int) -> None:
        (position,) = loop.batches[step].tolist()
        parameters = list(model.parameters())
        own = torch.autograd.grad(F.cross_entropy(model(loop.x[[position]]), loop.y[[position]]), parameters)
        for q in range(3):
            value = hidden(model, loop.queries[[q]], 2).sum()
            theirs = torch.autograd.grad(value, parameters, allow_unused=True)
            pairs = zip(own, theirs, strict=True)
            expected[q, position] -= rate * sum(float((a * b).sum()) for a, b in pairs if b is not None)

    loop.trained(torch.ones(20, dtype=torch.float64), look)
    found = read_tracin(unit_run.job.store, compared(unit_run).inputs["tracin"])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


def test_retrainings_measure_the_activation_and_test_the_derivatives(unit_run: "Run") -> None:
    spec, store, loop = compared(unit_run), unit_run.job.store, Loop(unit_run)
    left_out = spec.inputs["left_out"]
    found = open_finished(store, left_out).read("margin").astype(np.float64)
    predicted = []
    for index in range(3):
        weights = torch.zeros(20, dtype=torch.float64)
        weights[subset(left_out, index, 20)] = 1
        np.testing.assert_allclose(found[index], activations(loop, weights), rtol=1e-3, atol=1e-5)
        gone = (weights == 0).numpy()
        predicted.append(-read_derivatives(store, spec.inputs["counterfactual"])[:, gone].sum(axis=1))
    validity = np.mean([spearman(np.stack(predicted)[:, q], found[:, q]) for q in range(3)])
    rows = {row["score"]: row["checks"] for row in open_finished(store, spec).summary["rows"]}
    derived = rows[f"counterfactual of {HIDDEN}:1"]
    assert derived["validity"]["value"] == pytest.approx(validity)
    assert not {"LDS", "LDS, same order", "mislabel AUC"} & derived.keys()  # these are about answers
    assert "LDS" in rows["same class"]
    assert not {"LDS", "LDS, same order"} & rows[f"tracin of {HIDDEN}:2"].keys()


def test_the_page_names_the_units(unit_run: "Run", tmp_path: Any) -> None:
    page = tracing_results(unit_run.job.store, traces(unit_run.plan), "show")
    names = [layer.layer for layer in page.queries[0].layers][-2:]
    assert names == [f"tracin of {HIDDEN}:2", f"counterfactual of {HIDDEN}:1"]
    scores = read_derivatives(unit_run.job.store, compared(unit_run).inputs["counterfactual"])[0]
    best = page.queries[0].layers[-1].positive
    assert best["sample_id"].tolist() == Loop(unit_run).rows["id"].to_numpy()[np.argsort(-scores)[: len(best)]].tolist()


def test_the_answers_have_the_keys_of_before() -> None:
    plain, unit = Counterfactual(), Counterfactual(measure="unit", unit="0:1")
    assert (plain.measure, plain.unit, Tracin().measure) == ("margin", None, "loss")
    assert unit.unit == "0:1"


@pytest.mark.parametrize(
    ("module", "shape", "expected"),
    [
        (nn.Linear(3, 4), (2, 3), lambda y: y[:, 2]),
        (nn.Linear(3, 4), (2, 5, 3), lambda y: y[:, :, 2].mean(1)),  # tokens
        (nn.Conv2d(3, 4, 2), (2, 3, 5, 5), lambda y: y[:, 2].mean((1, 2))),
        (nn.Conv1d(3, 4, 2), (2, 3, 5), lambda y: y[:, 2].mean(1)),
        (nn.ConvTranspose2d(3, 4, 2), (2, 3, 5, 5), lambda y: y[:, 2].mean((1, 2))),
    ],
)
def test_activations_are_means_over_positions(module: nn.Module, shape: tuple[int, ...], expected: Any) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(module, nn.ReLU())
    with watched_unit(model, "0", 2) as found:
        model(x)
    torch.testing.assert_close(found[0], expected(module(x)))
    torch.testing.assert_close(activation_of(module, module(x), 2), expected(module(x)))
    assert not module._forward_hooks
