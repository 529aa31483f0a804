"""Credit of each example inside a batch, from each kind of archive that splits, against a plain loop of gradients."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from storage.stages import FinishedStage, open_finished
from tasks.recording.replay_block import ReplayBlock
from tasks.steps.common.networks import load_network
from tasks.steps.common.replays import open_archive
from tasks.steps.tracing.results import tracing_results
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import Doubles, Ids, Plain, images, mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

LAYERS, LR, MOMENTUM = ["1", "3"], 0.05, 0.6


def members_tree(store: Path, kind: str = "hybrid", **tracing: Any) -> Tree:
    """A config of an MLP that learns from batches of 4 with momentum, recorded as an archive of a kind."""
    tree = mlp_tree(store)
    net = tree["networks"]["net"]
    net["arguments"]["sizes"] = [64, 40, 10]
    net["train"] |= {
        "batches": {"size": 4},
        "optimizer": {"kind": "sgd", "lr": LR, "momentum": MOMENTUM, "weight_decay": 0.02},
        "checkpoint_every": 4,
        "record": {"kind": kind},
    }
    tree["tracing"] = {"networks": ["net"], "queries": {"count": 3}, "k": 20, **tracing}
    return tree


@pytest.fixture(scope="module", params=["hybrid", "replay"])
def members_run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]
) -> "Run":
    return new_run(members_tree(tmp_path_factory.mktemp("members") / "store", request.param)).finish()


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


def test_steps_that_a_replay_cannot_split_are_shared_equally(
    tmp_path: Path, new_run: Callable[[Tree], "Run"], retrain: Callable[..., Plain], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ReplayBlock.per_example

    def refuses(block: ReplayBlock, *given: Any, **named: Any) -> list[Tensor]:
        if block.start >= 4:
            raise NotImplementedError(f"layer {block.layer!r}: expected a sum of parts, found another")
        return original(block, *given, **named)

    monkeypatch.setattr(ReplayBlock, "per_example", refuses)
    tree = members_tree(tmp_path / "store", "replay", window=[4, 8])
    tree["networks"]["net"]["train"]["optimizer"] = {"kind": "sgd", "lr": LR}
    run = new_run(tree).finish()
    stage, ids = influence_of(run)
    plain = retrain(run, traces(run.plan)[0].training)
    projected = plain.project(LAYERS[0], ids)
    expected = plain.summed(projected.gamma, [4 <= t < 8 for t in range(len(plain.steps))])
    index = stage.summary["rankings"].index([LAYERS[0], "gamma"])
    top, sums = (stage.read(f"top_{name}", index, index + 1)[0] for name in ("id", "sum"))
    size = max(float(np.abs(values).max()) for values in expected.values())
    for query in range(len(ids)):
        known = [expected[i][query] for i in top[query].tolist() if i >= 0]
        np.testing.assert_allclose(sums[query][: len(known)], known, atol=2e-5 * size)
    (trace,) = traces(run.plan)
    layers = tracing_results(run.job.store, [trace], "hide").layers
    assert layers["split"].tolist() == ["partly", "partly"]


def columns_of(run: "Run", layer: str) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """Return by recorded step the columns of its members with the credit of steps, and its gamma."""
    trace = traces(run.plan)[0]
    source = open_archive(run.job.store, trace.training)
    module = load_network(run.job.store, trace.queries, torch.device("cpu")).get_submodule(layer)
    weight = source.final(layer)
    inputs = torch.randn(2, weight.shape[1], generator=torch.Generator().manual_seed(3))
    columns, gammas = dict[int, Tensor](), dict[int, Tensor]()
    for segment in source.segments():
        for block in source.blocks(segment, [layer], members=True):
            if block.recorded:
                found = block.per_example(module, weight, inputs, credit="step")
                columns |= dict(zip(block.steps.tolist(), found, strict=True))
                gammas |= dict(zip(block.steps.tolist(), block.project(module, weight, inputs).gamma.T, strict=True))
    return columns, gammas


@pytest.mark.parametrize("layer", LAYERS)
def test_steps_next_to_gaps_of_a_replay_are_split_as_without_gaps(
    new_run: Callable[[Tree], "Run"], tmp_path: Path, layer: str
) -> None:
    """What momentum carries of decay out of a gap is that of its steps one by one."""
    found = []
    for name, steps in (("whole", None), ("gaps", [[0, 2], [5, 6], [7, 10]])):
        tree = members_tree(tmp_path / name, "replay")
        tree["networks"]["net"]["train"]["record"] |= {} if steps is None else {"steps": steps}
        found.append(columns_of(new_run(tree).finish(), layer))
    (whole, _), (gaps, gammas) = found
    assert sorted(whole) == list(range(10))
    assert sorted(gaps) == [0, 1, 5, 7, 8, 9]
    for step, columns in gaps.items():
        torch.testing.assert_close(columns, whole[step], rtol=1e-6, atol=0)
        assert not torch.allclose(columns.sum(1), gammas[step], rtol=1e-5)  # the rest is decay
