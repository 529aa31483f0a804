"""The tracing page's tables from finished stages, and what of the training set is in the report's folder."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from storage.stages import open_finished
from storage.stores import Store
from tasks.figures.overlay import thumbnail
from tasks.report.tracing.queries import EXAMPLE_PIXELS
from tasks.steps.report import report_is_current, write_report
from tasks.steps.tracing.results import tracing_results
from tests.plans import traces

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.tasks.steps.tracing.conftest import Plain

Tree = dict[str, Any]  # Any: YAML


def private(run: "Run", images: str, store: Path, new_run: "Callable[[Tree], Run]") -> Path:
    """Write the report of a finished run with another privacy and return its folder."""
    made = new_run({**copy.deepcopy(run.at(str(store)).tree), "report": {"training_images": images}})
    write_report(made.job.store, made.plan.made(), created="today", reused=frozenset())
    return store / "reports" / made.config.name


def holds(folder: Path, needle: bytes) -> bool:
    """Say whether any file below a folder holds some bytes."""
    return any(needle in file.read_bytes() for file in folder.rglob("*") if file.is_file())


def thumbnails_of(ids: list[int]) -> list[bytes]:
    """Return the influential examples' pictures as a page holds them: digits of 8 x 8 pixels."""
    levels = np.rint(load_digits().images[ids] * 255 / 16).astype(np.uint8)
    pictures = [np.repeat(level[:, :, None], 3, axis=2) for level in levels]
    return [
        thumbnail(picture, EXAMPLE_PIXELS).uri.removeprefix("data:image/png;base64,").encode() for picture in pictures
    ]


def test_layers_shares_and_checks_are_those_of_the_stages(traced_run: "Run", plain: "Plain") -> None:
    trace, store = traces(traced_run.plan)[0], traced_run.job.store
    page = tracing_results(store, traces(traced_run.plan), "show")
    influence, queries = open_finished(store, trace.influence), open_finished(store, trace.queries)
    ids, predicted = np.asarray(queries.read("sample_id"), np.int64), queries.read("logits").argmax(axis=1)
    layers = page.layers.set_index("layer")
    assert list(layers.index) == plain.layers
    labels = dict(zip(plain.rows["id"].tolist(), plain.rows["label_given"].tolist(), strict=True))
    for index, layer in enumerate(plain.layers):
        found = plain.project(layer, ids)
        decay, square = found.decay.sum(axis=0), found.z_norm**2
        assert layers["init_share"][layer] == pytest.approx(float((found.init / square).mean()), rel=1e-3)
        assert layers["decay_share"][layer] == pytest.approx(float((decay / square).mean()), rel=1e-3)
        examples = (found.gamma.sum(axis=0) - decay) / square
        assert layers["examples_share"][layer] == pytest.approx(float(examples.mean()), rel=1e-3)
        assert layers["residual_max"][layer] < 1e-5
        top = influence.read("top_id", index, index + 1)[0]
        agreement = np.mean([labels[i] == c for i, c in zip(top[:, 0].tolist(), predicted, strict=True)])
        assert layers["agreement_1"][layer] == pytest.approx(agreement)
        assert np.isnan(layers["agreement_10"][layer])  # five are kept
        assert layers["cardinality"][layer] == len(set(top.ravel().tolist())) / 20
    shares = page.shares.groupby("layer")["gamma"].sum()
    for layer in plain.layers:
        assert shares[layer] == pytest.approx(layers["examples_share"][layer], rel=1e-4)
    measures = page.evaluation["measure"].value_counts().to_dict()
    # Five baselines each; the same class does not mark wrong labels.
    baselines = {"class agreement @1": 5, "class agreement @10": 5}
    assert measures == {"mislabel AUC": 4 + 4, "randomisation": 5, "LDS": 5 + 5, **baselines}
    assert page.held_out == (("digits", "val"),)
    for measure in ("mislabel AUC", "randomisation", "LDS"):  # in order of depth, which is not that of their names
        of_measure = page.evaluation[page.evaluation["measure"] == measure]
        assert list(dict.fromkeys(layer for layer in of_measure["layer"] if layer in plain.layers)) == [
            "0",
            "3",
            "6",
            "11",
        ]


def test_a_query_has_its_examples_with_their_images(traced_run: "Run") -> None:
    trace, store = traces(traced_run.plan)[0], traced_run.job.store
    page = tracing_results(store, traces(traced_run.plan), "show")
    influence = open_finished(store, trace.influence)
    top, sums = (influence.read(f"top_{part}") for part in ("id", "sum"))
    square = influence.read("square")
    assert [query.number for query in page.queries] == [0, 1, 2, 3]
    for number, query in enumerate(page.queries):
        for index, layer in enumerate(query.layers):
            positive = sums[index, number] > 0
            assert layer.positive["sample_id"].tolist() == top[index, number][positive].tolist()
            shares = sums[index, number][positive] / square[index, number]
            np.testing.assert_allclose(layer.positive["share"], shares, rtol=1e-6)
            assert (layer.negative["sum"] < 0).all()
            assert layer.classes is not None
            assert layer.classes["sum"].sum() == pytest.approx(influence.read("class_gamma")[index, number].sum())
            for sample in (*layer.positive["sample_id"], *layer.negative["sample_id"]):
                assert ("digits", sample) in page.images


def test_keys_and_logits_are_those_of_the_stages(traced_run: "Run") -> None:
    trace, store = traces(traced_run.plan)[0], traced_run.job.store
    page = tracing_results(store, traces(traced_run.plan), "show")
    manifest = store.url.removeprefix("file://") + f"/{trace.training.inputs['data'].path}/files/manifest.parquet"
    keys = pd.read_parquet(manifest).set_index("id")["key"]
    influence = open_finished(store, trace.influence)
    index = influence.summary["rankings"].index(["11", "logit"])
    logits = open_finished(store, trace.queries).read("logits").astype(np.float64)
    for number, query in enumerate(page.queries):
        assert query.key == keys[query.sample_id]
        (logit,) = query.scores
        top, sums = (influence.read(f"top_{part}")[index, number] for part in ("id", "sum"))
        assert logit.positive["sample_id"].tolist() == top[sums > 0].tolist()
        assert logit.preactivation_norm == pytest.approx(logits[number].max(), rel=1e-4)
        np.testing.assert_allclose(logit.positive["share"], sums[sums > 0] / logit.preactivation_norm)
        for panel in (*query.layers, logit):
            for table in (panel.positive, panel.negative):
                assert table["key"].tolist() == keys[table["sample_id"]].tolist()


@pytest.mark.parametrize("images", ["show", "ids", "none"])
def test_what_of_the_training_set_is_in_the_report(
    traced_run: "Run", tmp_path: Path, new_run: "Callable[[Tree], Run]", images: str
) -> None:
    folder = private(traced_run, images, tmp_path / "copy", new_run)
    influence = open_finished(traced_run.job.store, traces(traced_run.plan)[0].influence)
    ids = sorted(set(influence.read("top_id")[:4].ravel().tolist()))  # of gamma
    shown = [holds(folder, picture) for picture in thumbnails_of(ids)]
    assert all(shown) if images == "show" else not any(shown)
    table = folder / "tables" / "tracing_examples.parquet"
    assert table.exists() == (images != "none")
    if images != "none":
        found = pd.read_parquet(table)
        top = found[(found["end"] == "top") & (found["score"] == "gamma")]
        assert sorted(set(top["sample_id"])) == ids
        asked = np.asarray(open_finished(traced_run.job.store, traces(traced_run.plan)[0].queries).read("sample_id"))
        assert sorted(set(found["query"])) == list(range(len(asked)))
        assert found["query_id"].tolist() == asked[found["query"]].tolist()
    names = sorted(path.name for path in (folder / "tables").iterdir() if path.name.startswith("tracing_"))
    assert len(names) == (4 if images == "none" else 5)
    for path in (folder / "tables").glob("tracing_*.parquet"):
        columns = set(pd.read_parquet(path).columns)
        assert ("sample_id" in columns) == (path == table)
    assert (folder / "index.html").exists()
    assert holds(folder, b"mislabel AUC")
    assert holds(folder, b"summed loss of its batches")


def test_what_an_earlier_report_showed_is_gone(
    traced_run: "Run", tmp_path: Path, new_run: "Callable[[Tree], Run]"
) -> None:
    run = traced_run.at(str(tmp_path / "copy"))
    influence = open_finished(run.job.store, traces(run.plan)[0].influence)
    pictures = thumbnails_of(sorted(set(influence.read("top_id")[:4].ravel().tolist())))
    folder = tmp_path / "copy" / "reports" / "traced"
    for images, there in (("show", True), ("none", False)):
        made = new_run({**copy.deepcopy(run.tree), "report": {"training_images": images}})
        write_report(made.job.store, made.plan.made(), created="today", reused=frozenset())
        assert [holds(folder, picture) for picture in pictures] == [there] * len(pictures)
        assert (folder / "tables" / "tracing_examples.parquet").exists() == there
        assert (folder / "data" / "tracing_examples.csv").exists() == there
        assert (folder / "made-from").exists()


def test_a_report_that_was_killed_is_not_current(
    traced_run: "Run", tmp_path: Path, new_run: "Callable[[Tree], Run]", monkeypatch: pytest.MonkeyPatch
) -> None:
    run = traced_run.at(str(tmp_path / "copy"))
    write_report(run.job.store, run.plan.made(), created="today", reused=frozenset())
    assert report_is_current(run.job.store, run.plan.made())
    hidden = new_run({**copy.deepcopy(run.tree), "report": {"training_images": "none"}})
    remove = Store.remove

    def die(self: Store, path: str) -> None:
        if not path.endswith("made-from"):
            raise KeyboardInterrupt
        remove(self, path)

    monkeypatch.setattr(Store, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        write_report(hidden.job.store, hidden.plan.made(), created="today", reused=frozenset())
    monkeypatch.undo()
    assert not report_is_current(hidden.job.store, hidden.plan.made())


def test_a_split_of_another_data_set_is_not_the_training_split(
    mlp: Tree, new_run: "Callable[[Tree], Run]", tmp_path: Path
) -> None:
    mlp["data"]["other"] = {"source": "sklearn-digits", "split": {"fit": 0.5, "train": 0.5}, "per_class": 1}
    mlp["tracing"]["queries"] |= {"data": "other", "split": "train"}
    run = new_run(mlp).finish()
    page = tracing_results(run.job.store, traces(run.plan), "show")
    assert {(query.data, query.source, query.split) for query in page.queries} == {("digits", "other", "train")}
    assert page.held_out == (("other", "train"),)


@pytest.mark.parametrize("images", ["show", "none"])
def test_coresets_are_not_named_where_training_images_are_not(
    copied_run: "Run", new_run: "Callable[[Tree], Run]", images: str
) -> None:
    run = new_run({**copy.deepcopy(copied_run.tree), "report": {"training_images": images}})
    write_report(run.job.store, run.plan.made(), created="today", reused=frozenset())
    folder = Path(run.config.store, "reports", "tiny")
    assert (folder / "tables" / "coresets.parquet").exists() == (images == "show")
    assert (folder / "tables" / "by_budget.parquet").exists()
