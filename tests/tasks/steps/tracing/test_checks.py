"""The checks of explanations: mislabel, randomisation, retraining, datamodelling, by loops, scipy and scikit-learn."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from storage.stages import open_finished
from tasks.engine.life import complete
from tasks.steps.tracing import mislabel
from tasks.steps.tracing.mislabel import MISLABEL
from tasks.steps.tracing.results import correlation_row
from tasks.steps.tracing.retraining import subset
from tests.plans import traces

if TYPE_CHECKING:
    from storage.specs import StageSpec
    from tests.conftest import Run
    from tests.tasks.steps.tracing.conftest import Plain

Doubles = NDArray[np.float64]
Retrain = Callable[..., "Plain"]


def checked(plain: "Plain", ids: NDArray[np.int64], labels: NDArray[np.int64]) -> list[dict[int, Doubles]]:
    """Return what checks look at, summed by example: gamma of each layer, and the logit of the given class."""
    found = []
    for layer in plain.layers:
        projected = plain.project(layer, ids)
        found.append(plain.summed(projected.gamma - projected.decay))
    steps, decay, _ = plain.logit(plain.layers[-1], ids, labels)
    return [*found, plain.summed(steps - decay)]


def queries_of(run: "Run") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and labels of a run's queries."""
    stage = open_finished(run.job.store, traces(run.plan)[0].queries)
    return np.asarray(stage.read("sample_id"), np.int64), np.asarray(stage.read("label"), np.int64)


def scores(run: "Run") -> pd.DataFrame:
    """Return the self-attributions and losses of a run's examples, by id."""
    spec = traces(run.plan)[0].mislabel
    assert spec is not None
    files = sorted(Path(run.config.store, spec.path, "files").glob("segment-*.parquet"))
    assert len(files) == 2
    return pd.concat([pd.read_parquet(file) for file in files]).groupby("id").sum()


def test_self_attributions_and_how_well_they_find_flipped_labels(traced_run: "Run", plain: "Plain") -> None:
    spec = traces(traced_run.plan)[0].mislabel
    assert spec is not None
    found, summary = scores(traced_run), open_finished(traced_run.job.store, spec).summary
    flipped = (plain.rows["label_given"] != plain.rows["label_true"]).to_numpy()
    assert (summary["flipped"], summary["examples"]) == (6, 60)
    assert flipped.sum() == 6
    losses = dict.fromkeys(plain.ids.tolist(), 0.0)
    for step in plain.steps:
        for example in step.members.tolist():
            losses[example] += step.loss / len(step.members)
    np.testing.assert_allclose(found["loss"][plain.ids], list(losses.values()), rtol=1e-6)
    assert summary["loss_auc"] == pytest.approx(roc_auc_score(flipped, list(losses.values())))
    assert set(summary["auc"]) == set(plain.layers)
    for layer in plain.layers:
        own = np.array(list(plain.own(layer).values()))
        np.testing.assert_allclose(found[layer][plain.ids], own, rtol=1e-3, atol=1e-4 * np.abs(own).max())
        assert summary["auc"][layer] == pytest.approx(roc_auc_score(flipped, -own))


def test_few_examples_at_a_time_give_the_same_self_attributions(
    traced_run: "Run", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = traced_run.at(str(tmp_path / "copy"))
    spec = traces(run.plan)[0].mislabel
    assert spec is not None
    shutil.rmtree(Path(run.config.store, spec.path))
    monkeypatch.setattr(mislabel, "EXAMPLES", 9)
    complete(run.job, MISLABEL, [spec])
    pd.testing.assert_frame_equal(scores(run), scores(traced_run), rtol=1e-4, atol=1e-6)


def test_randomisation_is_the_rank_correlation_with_a_network_of_permuted_labels(
    traced_run: "Run", plain: "Plain", retrain: Retrain
) -> None:
    trace = traces(traced_run.plan)[0]
    assert trace.permuted is not None
    assert trace.randomisation is not None
    other = retrain(traced_run, trace.permuted.training)
    mine, theirs = plain.rows.set_index("id"), other.rows.set_index("id")
    assert (mine["label_true"] == theirs["label_true"][mine.index]).all()
    assert (theirs["label_given"] != theirs["label_true"]).sum() > 30
    assert sorted(theirs["label_given"]) == sorted(theirs["label_true"])
    ids, labels = queries_of(traced_run)
    stage = open_finished(traced_run.job.store, trace.randomisation)
    found = stage.read("correlation")
    sides = checked(plain, ids, labels), checked(other, ids, labels)
    assert found.shape == (5, 4)
    for row, (one, two) in enumerate(zip(*sides, strict=True)):
        for query in range(4):
            both = sorted(one.keys() & two.keys())
            ranks = spearmanr([float(one[i][query]) for i in both], [float(two[i][query]) for i in both])
            assert found[row, query] == pytest.approx(ranks.statistic, abs=2e-3)
    assert [(row["layer"], row["score"]) for row in stage.summary["rows"]] == [
        *((layer, "gamma") for layer in plain.layers),
        (plain.layers[-1], "logit"),
    ]
    assert [row["value"] for row in stage.summary["rows"]] == pytest.approx(found.mean(axis=1).tolist())
    assert [row["spread"] for row in stage.summary["rows"]] == pytest.approx(found.std(axis=1).tolist())


def retraining_of(run: "Run") -> "StageSpec":
    """Return the retrainings of a run."""
    spec = traces(run.plan)[0].retraining
    assert spec is not None
    return spec


def test_subsets_are_drawn_from_the_seed(traced_run: "Run") -> None:
    spec = retraining_of(traced_run)
    drawn = [subset(spec, index, 60) for index in range(3)]
    for index, positions in enumerate(drawn):
        np.testing.assert_array_equal(positions, np.sort(np.random.default_rng([0, index]).permutation(60)[:30]))
        assert len(set(positions.tolist())) == 30
    assert len({tuple(positions.tolist()) for positions in drawn}) == 3


@pytest.mark.parametrize(
    ("share", "n", "expected"), [(0.98, 6, 5), (0.98, 25, 24), (0.98, 100, 98), (0.5, 2, 1), (0.98, 1, 1), (0.01, 6, 1)]
)
def test_a_subset_has_a_sample_and_leaves_one_out(share: float, n: int, expected: int) -> None:
    spec: Any = SimpleNamespace(parameters={"seed": 3, "share": share})
    for index in range(3):
        positions = subset(spec, index, n)
        assert len(set(positions.tolist())) == len(positions) == expected
        assert set(positions.tolist()) <= set(range(n))


def test_a_correlation_without_two_sides_that_vary_has_no_value() -> None:
    """The mean over queries counts constants as 0, which says something only while others vary."""
    stated = {"score": "gamma", "value": 0.25, "spread": 0.1, "constant": 2}
    assert correlation_row(stated, 3) == {"value": 0.25, "spread": 0.1, "n": 3, "note": "2 constant"}
    found = correlation_row({**stated, "value": 0.0, "constant": 3}, 3, "gamma; 2 subsets x 1, ")
    assert [str(found.pop(name)) for name in ("value", "spread")] == ["nan", "nan"]
    assert found == {"n": 3, "note": "gamma; 2 subsets x 1, all constant"}


@pytest.mark.parametrize("number", [0, 3])
def test_a_retraining_is_a_plain_training_on_the_subset(traced_run: "Run", retrain: Retrain, number: int) -> None:
    spec, (ids, labels) = retraining_of(traced_run), queries_of(traced_run)
    index, repeat = divmod(number, 2)
    seed = int(np.random.SeedSequence([0, index, repeat]).generate_state(1)[0])
    plain = retrain(traced_run, spec, seed=seed, subset=subset(spec, index, 60))
    assert len({example for step in plain.steps for example in step.members.tolist()}) == 30
    chances = F.softmax(torch.from_numpy(plain.logits(ids)), dim=1)[torch.arange(4), torch.from_numpy(labels)]
    margins = open_finished(traced_run.job.store, spec).read("margin")
    assert margins.shape == (6, 4)
    np.testing.assert_allclose(margins[number], torch.log(chances / (1 - chances)), rtol=1e-4, atol=1e-4)


def test_the_datamodelling_score_and_its_ceiling(traced_run: "Run", plain: "Plain") -> None:
    trace, (ids, labels) = traces(traced_run.plan)[0], queries_of(traced_run)
    assert trace.datamodelling is not None
    stage = open_finished(traced_run.job.store, trace.datamodelling)
    spec = retraining_of(traced_run)
    margins: Doubles = open_finished(traced_run.job.store, spec).read("margin").astype(np.float64)
    held = [plain.ids[subset(spec, index, 60)].tolist() for index in range(3)]
    found = stage.read("correlation")
    for row, sums in enumerate(checked(plain, ids, labels)):
        for query in range(4):
            foretold = [float(sum(sums[example][query] for example in members)) for members in held]
            measured = [float(margins[2 * index : 2 * index + 2, query].mean()) for index in range(3)]
            assert found[row, query] == pytest.approx(spearmanr(foretold, measured).statistic)
    pairs = [spearmanr(margins[0::2, query].tolist(), margins[1::2, query].tolist()) for query in range(4)]
    single = float(np.mean([pair.statistic for pair in pairs]))
    reliability = 2 * max(single, 0) / (1 + max(single, 0))
    assert stage.summary["ceiling"] == pytest.approx(np.sqrt(reliability))
    assert (stage.summary["subsets"], stage.summary["retrainings"], stage.summary["queries"]) == (3, 2, 4)
    assert [row["value"] for row in stage.summary["rows"]] == pytest.approx(found.mean(axis=1).tolist())
