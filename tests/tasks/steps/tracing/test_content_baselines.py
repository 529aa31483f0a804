"""Baselines on data without pixels: neighbours by content, under names that say so."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from configs.schema import Config
from flows.plan import make_plan
from tasks.steps.tracing import scores
from tasks.steps.tracing.scores import BASELINES, Compared, scores_of
from tests.flows.test_sequences import config
from tests.tasks.steps.tracing.test_graphs import graph_tree

ASKED = {"evaluation": {"lds": {"subsets": 2, "retrainings": 1}}, "suspects": 2}
BY_CONTENT = ("same class", "nearest in inputs", "nearest in features", "KNN-Shapley in inputs", "random")


class Given(Compared):
    """A comparison with its examples at hand."""

    given: tuple[Tensor, ...] = ()

    def batches(self) -> list[Tensor]:
        """Return the examples."""
        return list(self.given)


def compared(monkeypatch: pytest.MonkeyPatch, queries: Tensor, *examples: Tensor) -> Compared:
    monkeypatch.setattr(scores, "query_inputs", lambda *_: queries)
    given: Any = SimpleNamespace(inputs={"queries": None})  # Any: a spec with what is asked of it
    made = Given(given, given, torch.device("cpu"))
    object.__setattr__(made, "given", examples)
    return made


def test_tokens_are_compared_by_how_often_they_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = torch.tensor([[3, 1, 3, 0]], dtype=torch.float32)[..., None]
    first = torch.tensor([[1, 3, 3, 0], [2, 0, 0, 0]], dtype=torch.float32)[..., None]
    last = torch.tensor([[5, 5, 5, 1]], dtype=torch.float32)[..., None]
    mine, theirs = compared(monkeypatch, queries, first, last).pixels()
    assert np.array_equal(mine, [[1, 0, 2, 0, 0]])
    assert np.array_equal(theirs, [[1, 0, 2, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 3]])


def test_tokens_of_a_large_vocabulary_share_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "COLUMNS", 4)
    queries = torch.tensor([[1, 5, 9, 2]], dtype=torch.float32)[..., None]
    mine, theirs = compared(monkeypatch, queries, torch.tensor([[4, 8, 0, 0]], dtype=torch.float32)[..., None]).pixels()
    assert np.array_equal(mine, [[3, 1, 0, 0]])
    assert np.array_equal(theirs, [[0, 0, 0, 2]])


def test_the_numbers_of_an_input_bound_what_is_compared() -> None:
    assert scores.count_numbers(torch.zeros(1, 32, 1)) == scores.COLUMNS
    assert scores.count_numbers(torch.zeros(1, 8, 9)) == 72
    assert scores.count_numbers(torch.zeros(1, 3, 4, 4)) == 48


def test_steps_of_features_are_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, examples = torch.arange(12.0).reshape(1, 4, 3), torch.arange(24.0).reshape(2, 4, 3)
    mine, theirs = compared(monkeypatch, queries, examples).pixels()
    assert np.array_equal(mine, np.arange(12.0)[None])
    assert np.array_equal(theirs, np.arange(24.0).reshape(2, 12))


@pytest.mark.parametrize("kind", ["graphs", "sequences"])
def test_names_say_what_is_compared(tmp_path: Path, kind: str) -> None:
    tree = graph_tree(tmp_path) if kind == "graphs" else config(tmp_path)
    tree["tracing"] |= ASKED
    found = [spec for spec in make_plan(Config.model_validate(tree)).stages if spec.stage in ("comparison", "suspects")]
    assert len(found) == 4
    for spec in found:
        assert spec.parameters["inputs"] == "content"
    assert {scores_of(spec) for spec in found if spec.stage == "comparison"} == {BY_CONTENT}


def test_images_have_pixels(traced_tree: dict[str, Any]) -> None:
    traced_tree["tracing"] |= ASKED
    found = [s for s in make_plan(Config.model_validate(traced_tree)).stages if s.stage in ("comparison", "suspects")]
    assert found
    assert not any("inputs" in spec.parameters for spec in found)
    assert {scores_of(spec) for spec in found if spec.stage == "comparison"} == {BASELINES}
