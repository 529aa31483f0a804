"""Counterfactual influence and TracIn of trainings with companions, against the training made again with weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from configs.load import ConfigError
from configs.schema import Config
from flows.plan import make_plan
from flows.progress import existing_store, planned_stages
from storage.stages import open_finished
from tasks.steps.common.trainer import open_trainer
from tasks.steps.tracing.counterfactual import read_derivatives
from tasks.steps.tracing.queries import query_inputs
from tasks.steps.tracing.retraining import subset
from tasks.steps.tracing.tracin import read_self_influence, read_tracin
from tasks.tracing.measures import margin_of
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
Doubles = NDArray[np.float64]
CPU = torch.device("cpu")
H = 1e-4
WORDS = ["red", "blue", "striped", "square"]


def diversity(folder: Path) -> Tree:
    """The regulariser, with random vectors in place of features."""
    rng, path = np.random.default_rng(0), folder / "features.npz"
    images, texts = (rng.normal(size=(n, 5)).astype(np.float32) for n in (1797, 4))
    np.savez(path, images=images, texts=texts, words=np.array(WORDS), ids=np.arange(1797))
    features = {"kind": "features", "path": str(path), "words": "words", "ids": "ids"}
    return {"layer": "1", "words": WORDS[:3], "beta": 0.7, "temperature": 0.5, "image_text": features}


COMPANIONS: dict[str, Callable[[Path], Tree]] = {
    "adversary": lambda _: {"epsilon": 0.02, "step": 0.01, "steps": 2, "evaluation": {"count": 4, "steps": 1}},
    "lottery": lambda _: {"stages": 1, "fraction": 0.3},
    "diversity": diversity,
}


def tree_with(name: str, folder: Path) -> Tree:
    """The MLP in batches of five with a companion: 20 examples, 8 steps in 2 segments."""
    tree = mlp_tree(folder / "store")
    train = tree["networks"]["net"]["train"]
    train |= {"batches": {"size": 5}, "checkpoint_every": 5, name: COMPANIONS[name](folder)}
    tree["tracing"] |= {
        "scores": ["gamma", "tracin"],
        "counterfactual": {"precision": "float64", "retrainings": 2, "left_out": 0.2},
    }
    return tree


def margins(run: "Run", weights: torch.Tensor) -> Doubles:
    """The margins of the queries after the run's training in float64, with weights on the examples' losses."""
    trace = traces(run.plan)[0]
    made = replace(open_trainer(run.job.store, trace.training, CPU, 2**20), weights=weights)
    fetch = made.samples.fetch

    def wide(positions: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = fetch(positions)
        return inputs.double(), labels

    object.__setattr__(made.samples, "fetch", wide)
    made.model.double()
    made.run(0, 8)
    inputs = query_inputs(run.job.store, trace.queries, CPU).double()
    classes = torch.from_numpy(open_finished(run.job.store, trace.queries).read("label").astype(np.int64))
    with torch.no_grad():
        return margin_of(made.model.eval()(inputs), classes).numpy()


@pytest.mark.parametrize("name", COMPANIONS)
def test_scores_of_a_training_with_a_companion(name: str, new_run: NewRun, tmp_path: Path) -> None:
    run = new_run(tree_with(name, tmp_path)).finish()
    spec = traces(run.plan)[0].comparison
    assert spec is not None
    found = read_derivatives(run.job.store, spec.inputs["counterfactual"])
    for position in (0, 7, 19):
        ends = []
        for sign in (1, -1):
            weights = torch.ones(20, dtype=torch.float64)
            weights[position] += sign * H
            ends.append(margins(run, weights))
        # the run's own states are float32
        np.testing.assert_allclose(found[:, position], (ends[0] - ends[1]) / (2 * H), rtol=2e-3, atol=2e-5)
    left_out = open_finished(run.job.store, spec.inputs["left_out"]).read("margin")
    for index in range(2):
        weights = torch.zeros(20, dtype=torch.float64)
        weights[subset(spec.inputs["left_out"], index, 20)] = 1
        np.testing.assert_allclose(left_out[index], margins(run, weights), rtol=2e-3, atol=2e-5)
    assert np.isfinite(read_tracin(run.job.store, spec.inputs["tracin"])).all()


def test_tracin_counts_only_weights_that_remain(new_run: NewRun, tmp_path: Path) -> None:
    """In a plain float64 loop over the recorded weights: products of gradients, 0 where a weight is pruned."""
    run = new_run(tree_with("lottery", tmp_path)).finish()
    trace = traces(run.plan)[0]
    made = open_trainer(run.job.store, trace.training, CPU, 2**20)
    masks = {name: ~gone for one in made.companions for name, (_, gone) in one.pruned.items()}  # type: ignore[attr-defined]  # Masking
    assert any((~mask).any() for mask in masks.values())
    queries = query_inputs(run.job.store, trace.queries, CPU)
    classes = torch.from_numpy(open_finished(run.job.store, trace.queries).read("label").astype(np.int64))
    expected, model = np.zeros((3, 20)), made.model

    def slopes(inputs: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        loss = torch.nn.functional.cross_entropy(model(inputs), labels)
        found = torch.autograd.grad(loss, list(model.parameters()))
        named = zip(model.named_parameters(), found, strict=True)
        return [slope * masks[name] if name in masks else slope for (name, _), slope in named]

    for step in range(8):
        picked = made.samples.batches.batch(step).examples
        inputs, labels = made.samples.fetch(picked)
        theirs = [slopes(queries[[q]], classes[[q]]) for q in range(3)]
        for row, position in enumerate(picked.tolist()):
            own = slopes(inputs[[row]], labels[[row]])
            for q in range(3):
                product = sum(float((a * b).sum()) for a, b in zip(own, theirs[q], strict=True))
                expected[q, position] += 0.02 / 5 * product
        made.run(step, step + 1)
    assert trace.comparison is not None
    found = read_tracin(run.job.store, trace.comparison.inputs["tracin"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)


def test_tracin_at_checkpoints_has_their_learning_rate_and_no_pruned_weight(new_run: NewRun, tmp_path: Path) -> None:
    """In a plain loop over the weights after 5 and 8 steps; the rate is that of the step before, on a cosine."""
    tree = tree_with("lottery", tmp_path)
    tree["networks"]["net"]["train"]["schedule"] = {"kind": "cosine"}
    del tree["tracing"]["counterfactual"]
    tree["tracing"]["tracin"] = {"checkpoints": 2}
    run = new_run(tree).finish()
    trace = traces(run.plan)[0]
    made = open_trainer(run.job.store, trace.training, CPU, 2**20)
    masks = {name: ~gone for one in made.companions for name, (_, gone) in one.pruned.items()}  # type: ignore[attr-defined]  # Masking
    queries = query_inputs(run.job.store, trace.queries, CPU)
    classes = torch.from_numpy(open_finished(run.job.store, trace.queries).read("label").astype(np.int64))
    inputs, labels = made.samples.fetch(np.arange(20))
    expected, own, model = np.zeros((3, 20)), np.zeros(20), made.model

    def slopes(image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        found = torch.autograd.grad(torch.nn.functional.cross_entropy(model(image), label), list(model.parameters()))
        named = zip(model.named_parameters(), found, strict=True)
        return torch.cat([(g * masks[name] if name in masks else g).flatten() for (name, _), g in named]).double()

    for start, stop in ((0, 5), (5, 8)):
        rate = 0.02 * (1 + np.cos(np.pi * (stop - 1) / 8)) / 2
        made.run(start, stop)
        model.eval()
        theirs = torch.stack([slopes(queries[[q]], classes[[q]]) for q in range(3)])
        each = torch.stack([slopes(inputs[[n]], labels[[n]]) for n in range(20)])
        expected += rate * (theirs @ each.T).numpy()
        own += rate * each.square().sum(1).numpy()
    assert trace.comparison is not None
    spec = trace.comparison.inputs["tracin"]
    np.testing.assert_allclose(read_tracin(run.job.store, spec), expected, rtol=1e-4, atol=1e-7)
    found = read_self_influence(run.job.store, spec)
    assert found is not None
    np.testing.assert_allclose(found, own, rtol=1e-4)


def test_an_adversary_beside_detached_ghosts_is_refused(tmp_path: Path) -> None:
    tree = tree_with("adversary", tmp_path)
    tree["networks"]["net"]["train"]["batches"] = {
        "kind": "single-class",
        "size": 5,
        "ghosts": 3,
        "detach_ghosts": True,
    }
    config = Config.model_validate(tree)
    expected = "expected ghosts with gradients in networks.net.train, which has an adversary, found networks.net.train"
    with pytest.raises(ConfigError, match=f"tracing.counterfactual: {expected}"):
        planned_stages(make_plan(config), existing_store(config))
