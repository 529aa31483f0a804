"""Credit of each example inside a batch, from a hybrid archive, against each example's gradient in a plain loop."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from storage.stages import FinishedStage, open_finished
from tasks.steps.tracing.results import tracing_results
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import Doubles, Ids, Plain, images, mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

LAYERS, LR, MOMENTUM = ["1", "3"], 0.05, 0.6


def members_tree(store: Path, **tracing: Any) -> Tree:
    """A config of an MLP that learns from batches of 4 with momentum, recorded as a hybrid archive."""
    tree = mlp_tree(store)
    net = tree["networks"]["net"]
    net["arguments"]["sizes"] = [64, 40, 10]
    net["train"] |= {
        "batches": {"size": 4},
        "optimizer": {"kind": "sgd", "lr": LR, "momentum": MOMENTUM, "weight_decay": 0.02},
        "checkpoint_every": 4,
        "record": {"kind": "hybrid"},
    }
    tree["tracing"] = {"networks": ["net"], "queries": {"count": 3}, "k": 20, **tracing}
    return tree


@pytest.fixture(scope="module")
def members_run(tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]) -> "Run":
    return new_run(members_tree(tmp_path_factory.mktemp("members") / "store")).finish()


def parts_of(plain: Plain, layer: str, ids: Ids) -> list[Doubles]:
    """Return by step the parts (m, Q) of its examples: <z, D f>, D the whole effect of a gradient under momentum."""
    weights, inputs, steps = plain.weights[f"{layer}.weight"], plain.inputs(layer, ids), len(plain.steps)
    z = inputs @ weights[-1].T
    labels = dict(zip(plain.rows["id"].tolist(), plain.rows["label_given"].tolist(), strict=True))
    found = []
    for t, step in enumerate(plain.steps):
        rows = []
        share = -sum(LR * MOMENTUM ** (later - t) for later in range(t, steps))
        for example in step.members.tolist():
            values = {name: kept[t].clone().requires_grad_() for name, kept in plain.weights.items()}
            model = plain.model.double()
            logits = torch.func.functional_call(model, values, (images(np.array([example])).double(),))
            loss = F.cross_entropy(logits, torch.tensor([labels[example]])) / len(step.members)
            (gradient,) = torch.autograd.grad(loss, values[f"{layer}.weight"])
            gamma = (z * (inputs @ gradient.T)).sum(dim=1) * share
            rows.append(gamma.detach().numpy())
        found.append(np.stack(rows))
    return found


def credited(plain: Plain, layer: str, ids: Ids) -> dict[int, Doubles]:
    """Return the sums of the parts over each example's gradients."""
    found: dict[int, Doubles] = {}
    for step, parts in zip(plain.steps, parts_of(plain, layer, ids), strict=True):
        for example, gamma in zip(step.members.tolist(), parts, strict=True):
            found[example] = found.get(example, np.zeros(len(ids))) + gamma
    return found


def influence_of(run: "Run") -> tuple[FinishedStage, Ids]:
    """Return the influence stage of a run, and the ids of the queries."""
    (trace,) = traces(run.plan)
    ids = open_finished(run.job.store, trace.queries).read("sample_id")
    return open_finished(run.job.store, trace.influence), np.asarray(ids, np.int64)


@pytest.mark.parametrize("layer", LAYERS)
def test_influence_is_each_examples_own(members_run: "Run", retrain: Callable[..., Plain], layer: str) -> None:
    stage, ids = influence_of(members_run)
    (trace,) = traces(members_run.plan)
    contributions = open_finished(members_run.job.store, trace.contributions)
    assert f"members.{layer}" in contributions.layout.arrays
    plain = retrain(members_run, trace.training)
    expected = credited(plain, layer, ids)
    index = stage.summary["rankings"].index([layer, "gamma"])
    top, sums = (stage.read(f"top_{name}", index, index + 1)[0] for name in ("id", "sum"))
    size = max(float(np.abs(values).max()) for values in expected.values())
    for query in range(len(ids)):
        known = {example: values[query] for example, values in expected.items()}
        np.testing.assert_allclose(sums[query], [known[i] for i in top[query].tolist()], atol=2e-5 * size)
        np.testing.assert_allclose(sums[query], sorted(known.values(), reverse=True)[:20], atol=2e-5 * size)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_sum_over_examples_is_that_of_an_equal_split(
    members_run: "Run", retrain: Callable[..., Plain], layer: str
) -> None:
    """Both hand out gamma without decay; only the shares differ."""
    stage, ids = influence_of(members_run)
    plain = retrain(members_run, traces(members_run.plan)[0].training)
    projected = plain.project(layer, ids)
    index = stage.summary["rankings"].index([layer, "gamma"])
    sums = stage.read("top_sum", index, index + 1)[0]  # all 20 examples
    whole = (projected.gamma - projected.decay).sum(axis=0)
    np.testing.assert_allclose(sums.sum(axis=1), whole, atol=1e-4 * np.abs(whole).max())
    shares = stage.read("class_gamma", index, index + 1)[0].sum(axis=(1, 2))
    np.testing.assert_allclose(shares, whole, atol=1e-4 * np.abs(whole).max())


def test_the_results_state_the_split(members_run: "Run") -> None:
    (trace,) = traces(members_run.plan)
    layers = tracing_results(members_run.job.store, [trace], "hide").layers
    assert layers["split"].tolist() == ["example", "example"]


def test_the_spread_inside_batches(members_run: "Run", retrain: Callable[..., Plain]) -> None:
    (trace,) = traces(members_run.plan)
    plain, (_, ids) = retrain(members_run, trace.training), influence_of(members_run)
    layers = tracing_results(members_run.job.store, [trace], "hide").layers
    for index, layer in enumerate(LAYERS):
        squares = deviations = against = count = 0.0
        for parts in parts_of(plain, layer, ids):
            for own in parts.T:
                squares += (own**2).sum()
                deviations += len(own) * own.var()
                against += (np.sign(own) == -np.sign(own.sum())).sum()
                count += len(own)
        assert layers["member_spread"][index] == pytest.approx(np.sqrt(deviations / squares), rel=1e-4)
        assert layers["member_against"][index] == pytest.approx(against / count, abs=1.1 / count)
        assert 0.1 < layers["member_spread"][index] < 1


def test_an_equal_split_is_a_setting(
    tmp_path: Path, new_run: Callable[[Tree], "Run"], retrain: Callable[..., Plain]
) -> None:
    run = new_run(members_tree(tmp_path / "store", split="equal")).finish()
    stage, ids = influence_of(run)
    plain = retrain(run, traces(run.plan)[0].training)
    projected = plain.project(LAYERS[0], ids)
    expected = plain.summed(projected.gamma - projected.decay)
    index = stage.summary["rankings"].index([LAYERS[0], "gamma"])
    top, sums = (stage.read(f"top_{name}", index, index + 1)[0] for name in ("id", "sum"))
    size = max(float(np.abs(values).max()) for values in expected.values())
    for query in range(len(ids)):
        np.testing.assert_allclose(sums[query], [expected[i][query] for i in top[query].tolist()], atol=2e-5 * size)
