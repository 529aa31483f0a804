"""Suspects: summed losses by a plain loop, neighbours by scikit-learn, and what of them may leave the store."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from storage.stages import open_finished
from tasks.steps.report import write_report
from tasks.steps.tracing.results import tracing_results
from tasks.steps.tracing.subjects import read_suspects
from tests.plans import traces
from tests.tasks.steps.tracing.conftest import Plain, images, mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
NewRun = Callable[[Tree], "Run"]
COLUMNS = ["network", "seed", "rank", "sample_id", "key", "label_given", "label_true", "predicted", "score"]


@pytest.fixture(scope="module")
def suspect_run(tmp_path_factory: pytest.TempPathFactory, new_run: NewRun) -> "Run":
    """A finished run on labels of which a fifth is flipped: not to be changed."""
    tree = mlp_tree(tmp_path_factory.mktemp("suspects") / "store")
    tree["data"]["digits"]["noise"] = {"share": 0.2}
    tree["tracing"]["suspects"] = 5
    return new_run(tree).finish()


def test_suspects_are_ranked_by_their_summed_loss(suspect_run: "Run", retrain: Callable[..., Plain]) -> None:
    trace = traces(suspect_run.plan)[0]
    assert trace.suspects is not None
    table = read_suspects(suspect_run.job.store, trace.suspects)
    plain = retrain(suspect_run, trace.training)
    sums = dict.fromkeys(plain.ids.tolist(), 0.0)
    for step in plain.steps:
        for example in step.members.tolist():
            sums[example] += step.loss / len(step.members)
    assert table["rank"].tolist() == list(range(1, 21))
    np.testing.assert_allclose(table["score"], [sums[i] for i in table["sample_id"].tolist()], rtol=1e-4)
    assert (np.diff(table["score"]) <= 0).all()
    pixels = images(plain.ids).flatten(1).numpy()
    near = NearestNeighbors(n_neighbors=10).fit(pixels).kneighbors(return_distance=False)
    labels = plain.rows["label_given"].to_numpy()
    expected = dict(zip(plain.ids.tolist(), (labels[near] != labels[:, None]).mean(axis=1), strict=True))
    np.testing.assert_allclose(table["disagreement"], [expected[i] for i in table["sample_id"].tolist()])
    predicted = dict(zip(plain.ids.tolist(), plain.logits(plain.ids).argmax(axis=1), strict=True))
    assert table["predicted"].tolist() == [predicted[i] for i in table["sample_id"].tolist()]
    flipped = (table["label_given"] != table["label_true"]).to_numpy(bool)
    assert flipped.sum() == 4
    auc = open_finished(suspect_run.job.store, trace.suspects).summary["auc"]
    for column in ("score", "disagreement"):
        assert auc[column] == pytest.approx(roc_auc_score(flipped, table[column]))


@pytest.mark.parametrize("shown", ["show", "ids", "none"])
def test_suspects_leave_the_store_as_far_as_images_may(
    suspect_run: "Run", new_run: NewRun, tmp_path: Path, shown: str
) -> None:
    tree = copy.deepcopy(suspect_run.at(str(tmp_path / "store")).tree)
    made = new_run({**tree, "report": {"training_images": shown}})
    write_report(made.job.store, made.plan.made(), created="today", reused=frozenset())
    folder = tmp_path / "store" / "reports" / "mlp"
    text, file = (folder / "tracing.html").read_text(), folder / "tables" / "suspects.parquet"
    assert file.is_file() == (shown != "none")
    assert ('id="suspects"' in text) == (shown != "none")
    if shown != "none":
        table = pd.read_parquet(file)
        assert table.columns.tolist()[:9] == COLUMNS
        assert len(table) == 20
        assert text.count('<span class="class">given ') == 5
    found = tracing_results(made.job.store, traces(made.plan), shown)
    rows = found.evaluation[found.evaluation["measure"] == "mislabel AUC"]
    assert {"summed loss", "neighbours' disagreement"} <= set(rows["score"])


def test_unknown_truths_stay_unknown(tmp_path: Path, new_run: NewRun) -> None:
    tree = mlp_tree(tmp_path / "store")
    tree["tracing"]["suspects"] = 2
    run = new_run(tree).finish()
    trace = traces(run.plan)[0]
    assert trace.suspects is not None
    assert read_suspects(run.job.store, trace.suspects)["label_true"].isna().all()
    assert open_finished(run.job.store, trace.suspects).summary["auc"] == {}
    shown = tracing_results(run.job.store, traces(run.plan), "show").suspects
    assert shown["truth"].isna().all()
    assert shown["shown"].sum() == 2
