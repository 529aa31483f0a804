"""TracIn at checkpoints, by plain sums of gradients at the weights of a plain loop; from archives of any kind."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional as F

from configs.tracing import Tracin
from storage.stages import open_finished
from tasks.steps.tracing import tracin
from tasks.steps.tracing.tracin import read_self_influence, read_tracin
from tests.plans import traces
from tests.tasks.steps.tracing.loops import Doubles, Loop, NewRun, Tree, compared, counter_tree

if TYPE_CHECKING:
    from tests.conftest import Run

STEPS = 40


def checkpoint_tree(store: Any, kind: str, count: int) -> Tree:  # Any: a path
    """The small run with TracIn at some checkpoints, recorded as a kind of archive."""
    tree = counter_tree(store)
    del tree["tracing"]["counterfactual"]
    (network,) = tree["tracing"]["networks"]
    tree["networks"][network]["train"]["record"] = {"kind": kind}
    tree["data"]["digits"]["noise"] = {"share": 0.2}
    tree["tracing"] |= {"tracin": {"checkpoints": count}, "suspects": 3}
    return tree


def by_hand(run: "Run", ends: list[int], *, unit: int | None = None) -> tuple[Doubles, Doubles]:
    """Return the sums of products of gradients after `ends` steps, (3, 20), and those with an example's own, (20,)."""
    loop, expected, squares = Loop(run), np.zeros((3, 20)), np.zeros(20)
    rate = loop.settings["optimizer"]["lr"]

    def slopes(model: nn.Module, value: torch.Tensor) -> list[torch.Tensor]:
        found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(model.parameters(), found, strict=True)]

    def look(model: nn.Module, step: int) -> None:
        if step not in ends:
            return
        own = [slopes(model, F.cross_entropy(model(loop.x[[n]]), loop.y[[n]])) for n in range(20)]
        squares[:] += [rate * sum(float((slope**2).sum()) for slope in each) for each in own]
        for q in range(3):
            if unit is None:
                value = F.cross_entropy(model(loop.queries[[q]]), loop.classes[[q]])
            else:
                layer = model.get_submodule("1")
                assert isinstance(layer, nn.Linear)
                value = -(loop.queries[q].flatten() @ layer.weight[unit] + layer.bias[unit])
            theirs = slopes(model, value)
            for n in range(20):
                expected[q, n] += rate * sum(float((a * b).sum()) for a, b in zip(own[n], theirs, strict=True))

    look(loop.trained(torch.ones(20, dtype=torch.float64), look), STEPS)
    return expected, squares


def ends_of(run: "Run") -> list[int]:
    """Return the number of steps before each checkpoint."""
    every = traces(run.plan)[0].training.place["train"]["checkpoint_every"]
    return [*range(every, STEPS, every), STEPS]


@pytest.mark.parametrize(
    ("kind", "count", "chosen"), [("dense", 2, [1, 2]), ("hybrid", 10, [0, 1, 2]), ("replay", 1, [2])]
)
def test_products_at_checkpoints_of_every_kind_of_archive(
    tmp_path: Any, new_run: NewRun, monkeypatch: pytest.MonkeyPatch, kind: str, count: int, chosen: list[int]
) -> None:
    monkeypatch.setattr(tracin, "TOGETHER", 8)  # examples in three groups, the last of them smaller
    run = new_run(checkpoint_tree(tmp_path / "store", kind, count)).finish()
    ends = ends_of(run)
    assert len(ends) == 3
    spec = compared(run).inputs["tracin"]
    expected, squares = by_hand(run, [ends[index] for index in chosen])
    np.testing.assert_allclose(read_tracin(run.job.store, spec), expected, rtol=1e-3, atol=1e-6)
    own = read_self_influence(run.job.store, spec)
    assert own is not None
    np.testing.assert_allclose(own, squares, rtol=1e-3)
    assert np.abs(expected).max() > 1e-3
    rows = {row["score"]: row["checks"] for row in open_finished(run.job.store, compared(run)).summary["rows"]}
    given, true = (Loop(run).rows[name].to_numpy() for name in ("label_given", "label_true"))
    assert rows["tracin"]["mislabel AUC"]["value"] == pytest.approx(roc_auc_score(given != true, squares))


def test_a_unit_is_raised_at_checkpoints(tmp_path: Any, new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracin, "GROUP_BYTES", 1)  # queries and examples one by one
    tree = checkpoint_tree(tmp_path / "store", "hybrid", 3)
    tree["tracing"]["tracin"] |= {"measure": "unit", "unit": "1:2"}
    run = new_run(tree).finish()
    found = read_tracin(run.job.store, compared(run).inputs["tracin"])
    expected, squares = by_hand(run, ends_of(run), unit=2)
    own = read_self_influence(run.job.store, compared(run).inputs["tracin"])
    assert own is not None
    np.testing.assert_allclose(own, squares, rtol=1e-3)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)
    assert np.abs(expected).max() > 1e-3


def test_every_step_and_checkpoints_have_stages_of_their_own(tmp_path: Any, new_run: NewRun) -> None:
    """The key of the stage of every step is as it was before checkpoints could be asked for."""
    at = compared(new_run(checkpoint_tree(tmp_path / "one", "dense", 2))).inputs["tracin"]
    tree = checkpoint_tree(tmp_path / "two", "dense", 2)
    del tree["tracing"]["tracin"]
    every = compared(new_run(tree)).inputs["tracin"]
    assert at.parameters == {"checkpoints": 2}
    assert every.parameters == {}


@pytest.mark.parametrize("count", [0, -1, 1.5, "all"])
def test_a_number_of_checkpoints_is_at_least_one(count: object) -> None:
    with pytest.raises(ValidationError, match="checkpoints"):
        Tracin.model_validate({"checkpoints": count})
