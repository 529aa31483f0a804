"""The decomposition page from finished stages, and the files written with it."""

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from storage.stages import open_finished
from tasks.steps.decomposition.results import decomposition_results
from tasks.steps.decomposition.scores import read_scores
from tasks.steps.decomposition.stills import decomposition_files
from tasks.steps.report import write_report
from tests.plans import decomposed

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML


def test_tables_hold_what_the_stages_found(decomposed_run: "Run") -> None:
    store, (found,) = decomposed_run.job.store, decomposed(decomposed_run.plan)
    page = decomposition_results(store, decomposed(decomposed_run.plan))
    network = page.networks.iloc[0]
    (full,), (main,) = (read_scores(open_finished(store, spec)) for spec in (found.full, found.grid["3", 4]))
    assert (network["k1"], network["k2"], network["n_learn"], network["n_evaluate"]) == ("3", 4, 120, 40)
    assert (network["a_full"], network["a_decomposed"]) == (full.accuracy, main.accuracy)
    assert network["ratio"] == main.accuracy / full.accuracy
    assert (network["macs_full"], network["macs_decomposed"], network["depth"]) == (160, 40, 4)
    assert list(zip(page.grid["k1"], page.grid["k2"], strict=True)) == list(found.grid)
    random = page.controls[page.controls["method"] == "random"].iloc[0]
    draws = [score.accuracy for score in read_scores(open_finished(store, found.controls["random"]))]
    assert (random["draws"], random["accuracy"]) == (3, np.mean(draws))
    np.testing.assert_allclose(random["accuracy_std"], np.std(draws, ddof=1))
    counts = open_finished(store, found.histogram).read("counts").astype(np.int64)
    order = open_finished(store, found.histogram).read("order").astype(np.int64)
    for row, label in zip(page.classes.itertuples(), range(10), strict=True):
        assert row.indices == ", ".join(map(str, order[label, :4]))
        ordered = np.sort(counts[label])[::-1]
        assert row.tie == (ordered[3] == ordered[4])
    assert network["ties"] == page.classes["tie"].sum()
    assert page.histograms[0].frequencies.sum() == 1.0
    assert page.retraining["epoch"].tolist() == [0, 1, 2, 0, 1]
    start = page.retraining[page.retraining["epoch"] == 0]["accuracy"]
    assert start.tolist() == [main.accuracy] * 2  # both scopes begin with the decomposed head


def test_overlap_and_sample_need_by_hand(decomposed_run: "Run") -> None:
    store, (found,) = decomposed_run.job.store, decomposed(decomposed_run.plan)
    page = decomposition_results(store, decomposed(decomposed_run.plan))
    sets = [{*row} for row in open_finished(store, found.histogram).read("order")[:, :4].tolist()]
    few = [{*row} for row in open_finished(store, found.need[2]).read("order")[:, :4].tolist()]
    shared = [[len(a & b) / 4 for b in sets] for a in sets]
    np.testing.assert_allclose(page.overlaps[0].matrix, shared)
    apart = [shared[a][b] for a in range(10) for b in range(10) if a != b]
    np.testing.assert_allclose(page.networks["overlap_mean"].iloc[0], np.mean(apart))
    assert page.networks["union"].iloc[0] == len(set().union(*sets))
    expected = np.mean([len(a & b) / 4 for a, b in zip(few, sets, strict=True)])
    np.testing.assert_allclose(page.sample_need["overlap"].iloc[0], expected)


def test_files_beside_the_site(decomposed_run: "Run") -> None:
    page = decomposition_results(decomposed_run.job.store, decomposed(decomposed_run.plan))
    files = decomposition_files(page, "show")
    networks = pd.read_parquet(io.BytesIO(files["tables/decomposition_networks.parquet"]))
    pd.testing.assert_frame_equal(networks, page.networks)
    pictures = [data for name, data in files.items() if name.endswith(".png")]
    assert len(pictures) == 11
    assert all(min(Image.open(io.BytesIO(data)).size) > 300 for data in pictures)


@pytest.mark.parametrize("shown", ["ids", "none"])
def test_no_training_image_is_in_a_picture(decomposed_run: "Run", shown: str) -> None:
    page = decomposition_results(decomposed_run.job.store, decomposed(decomposed_run.plan))
    learned = replace(page, gallery=tuple(replace(row, split="train") for row in page.gallery))
    name = "figures/decomposition-small-maps.png"
    assert name in decomposition_files(page, shown)  # held-out images may be shown
    assert name in decomposition_files(learned, "show")
    assert name not in decomposition_files(learned, shown)


def test_the_report_has_the_page(decomposed_run: "Run", tmp_path: Path) -> None:
    run = decomposed_run.at(str(tmp_path / "copy"))
    path = write_report(run.job.store, run.plan.made(), created="today", reused=frozenset())
    folder = Path(run.config.store, path).parent
    assert "Which few features decide each class?" in (folder / "decomposition.html").read_text()
    assert (folder / "data" / "decomposition_networks.csv").is_file()


def test_an_unasked_part_is_not_there(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    tree = copy.deepcopy(decomposed_tree)
    del tree["networks"]["small"]["train"]["gates"]
    tree["decomposition"] = {"networks": ["small"], "k1": 2, "k2": 2, "ablation": None, "gallery": 0, "draws": 1}
    run = new_run(tree).finish()
    page = decomposition_results(run.job.store, decomposed(run.plan))
    for name in ("sample_need", "ablation", "retraining", "gates"):
        assert getattr(page, name).empty, name
    assert page.gallery == ()
    assert np.isnan(page.controls["accuracy_std"].to_numpy(float)).all()
    assert "figures/decomposition-small-grid.png" not in decomposition_files(page, "show")


def test_features_that_are_no_maps_have_no_pictures(decomposed_tree: Tree, new_run: Callable[[Tree], "Run"]) -> None:
    tree = copy.deepcopy(decomposed_tree)
    del tree["networks"]["small"]["train"]["gates"]
    tree["networks"]["small"] |= {"model": "mlp", "arguments": {"sizes": [64, 12, 10]}}
    tree["decomposition"] = {"networks": ["small"], "k1": 2, "k2": 2, "ablation": None, "gallery": 2, "draws": 1}
    run = new_run(tree).finish()
    (found,) = decomposed(run.plan)
    assert found.gallery is not None
    assert open_finished(run.job.store, found.gallery).summary["refused"].startswith("the network cannot be cut")
    assert decomposition_results(run.job.store, decomposed(run.plan)).gallery == ()
