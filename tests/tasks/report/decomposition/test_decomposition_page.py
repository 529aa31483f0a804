"""The decomposition page as bytes: its numbers, its words, its figures, its files."""

import io
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.report.decomposition.results import COLUMNS, DecompositionResults, Histogram, Overlap
from tasks.report.pages import RunFacts
from tests.tasks.report.decomposition.decomposition_site import figures_in, text_of, views_of
from tests.tasks.report.decomposition.decomposition_tables import Decompositions
from tests.tasks.report.site_pages import site_of


def test_numbers_of_the_tables_are_on_the_page(facts: RunFacts, decomposition: DecompositionResults) -> None:
    text = text_of(site_of(facts, decomposition))
    coverage, change = decomposition.coverage.iloc[0], decomposition.classes.iloc[0]
    for expected in (
        "resnet20 0 91.0 % 87.4 % 0.960 93.0 % 30.0 %",
        "resnet20 0 cifar-resnet20 5 abs label train val of the weights 5",
        "resnet20 0 cifar-resnet20 20 3 3 64 50,000 10,000",
        "5 5 87.4 % 0.960",
        "random 5 20 35.0 ± 4.2 %",
        "mean − overall 5 1 88.6 %",
        "N(0, 1) label as many others 5 88.0 ± 0.4 %",
        "zero label influential 1 69.0 %",
        "whole network 0 87.4 % –",
        "100 93.0 %",
        "32 0.800 ms 0.160 ms 0.20 × yes",
        "1 0.0500 ms 0.0900 ms 1.80 × no",
        "train 88.0 % 88.1 % 0.210 40.0 %",
        f"zero 91.0 % {100 * change['a_decomposed']:.1f} % {100 * coverage['own_top_share']:.1f} %",
        change["indices"],
        "sample 4001",
        "r_A by depth, cifar-resnet: resnet20 0.960, resnet56 0.968.",
    ):
        assert expected in text, expected


def test_the_authors_figures_are_beside_ours(facts: RunFacts, build_decomposition: Decompositions) -> None:
    ten = tuple("abcdefghij")
    site = site_of(facts, build_decomposition(ten, (("mine", "cifar-resnet20", 20),), n_maps=0))
    text = text_of(site)
    for expected in (
        "mine 0 A_f – 91.17 % 91.00 % −0.17 points their code's notes say 91.71 %",
        "mine 0 A_d k1 = 5, k2 = 5 88.59 % 87.36 % −1.23 points",
        "mine 0 noise N(0, 1) in all others k1 = 5, k2 = 5 82.24 % 82.00 % −0.24 points",
    ):
        assert expected in text
    assert len(pd.read_csv(io.BytesIO(site["data/decomposition_authors.csv"]))) == 8
    wide = build_decomposition(ten, (("mine", "wide_resnet50_2", 50),), n_maps=0)
    wide = replace(wide, networks=wide.networks.assign(n_classes=1000, n_outputs=1000, k1="50", k2=50))
    assert "r_A k1 = 50, k2 = 50 0.971 0.960 −0.011" in text_of(site_of(facts, wide))


@pytest.mark.parametrize(
    ("rank_by", "group_by", "said"),
    [
        ("abs", "label", "the k1 features of largest magnitude are counted for the image's class."),
        ("value", "prediction", "the k1 features of largest value are counted for the class predicted."),
        ("contribution", "label", "of largest contribution to the class's logit are counted for the image's class."),
    ],
)
def test_algorithm_1_is_told_as_it_was_run(
    facts: RunFacts, decomposition: DecompositionResults, rank_by: str, group_by: str, said: str
) -> None:
    networks = decomposition.networks.assign(rank_by=rank_by, group_by=group_by)
    assert said in text_of(site_of(facts, replace(decomposition, networks=networks)))


def test_networks_counted_in_two_ways_are_told_of_both(facts: RunFacts, decomposition: DecompositionResults) -> None:
    networks = decomposition.networks.assign(rank_by=["value", "abs"])
    text = text_of(site_of(facts, replace(decomposition, networks=networks)))
    assert "features of largest value or magnitude (see Networks) are counted for the image's class." in text


def test_caveats_of_the_method_are_on_the_page(facts: RunFacts, decomposition: DecompositionResults) -> None:
    text = text_of(site_of(facts, decomposition))
    for expected in (
        "This is a perturbation test, not an accuracy: with scope label the true label decides which "
        "features are replaced.",
        "There are many more other features than influential ones, so the control of equal size decides.",
        "With gates it needs the label of the image",
        "It is not faster at batch 1",
    ):
        assert expected in text


def test_figures_draw_the_tables(facts: RunFacts, decomposition: DecompositionResults) -> None:
    site = site_of(facts, decomposition)
    kinds = ("grid", "controls", "noise", "retraining", "classes", "samples", "overlap", "histogram")
    assert figures_in(site) == ["depth", *(f"{kind}-{i}" for i in (1, 2) for kind in kinds)]
    own = decomposition.of("resnet20", 0)
    (head, network, full) = views_of(site, "retraining-1")["accuracy"]
    np.testing.assert_allclose(head["y"], 100 * own.retraining.query("scope == 'head'")["accuracy"], atol=1e-4)
    np.testing.assert_allclose(network["y"], 100 * own.retraining.query("scope == 'network'")["accuracy"], atol=1e-4)
    assert full["y"] == [91.0, 91.0]
    assert list(views_of(site, "histogram-1")) == ["zero", "one"]
    chosen = views_of(site, "histogram-1")["one"][0]
    assert chosen["x"] == own.histograms[1].chosen.tolist()
    np.testing.assert_allclose(views_of(site, "depth")["r_A"][0]["y"], [0.96, 0.968])


def test_csv_files_hold_the_tables(facts: RunFacts, decomposition: DecompositionResults) -> None:
    extra = replace(decomposition, classes=decomposition.classes.assign(first_sample=987654321))
    site = site_of(facts, extra)
    for name in COLUMNS:
        read = pd.read_csv(io.BytesIO(site[f"data/decomposition_{name}.csv"]), dtype={"k1": str})
        pd.testing.assert_frame_equal(read, getattr(decomposition, name), check_dtype=False)
    assert not any(b"987654321" in data for data in site.values())  # a column that the page does not use
    histograms = pd.read_csv(io.BytesIO(site["data/decomposition_histograms.csv"]))
    assert len(histograms) == 2 * 2 * 64
    first = histograms.query("network == 'resnet20' and class_name == 'zero'")
    np.testing.assert_allclose(first["frequency"], decomposition.histograms[0].frequencies)
    assert first["feature"][first["chosen"]].tolist() == decomposition.histograms[0].chosen.tolist()
    overlaps = pd.read_csv(io.BytesIO(site["data/decomposition_overlaps.csv"]))
    assert overlaps["overlap"].tolist()[:3] == decomposition.overlaps[0].matrix[[0, 0, 1], [1, 2, 2]].tolist()


def test_every_figure_and_table_speaks(facts: RunFacts, decomposition: DecompositionResults) -> None:
    page = site_of(facts, decomposition)["decomposition.html"].decode()
    for plot in re.findall(r'<div class="plot"[^>]*>', page):
        assert re.search(r'role="img" aria-label="[^"]{20,}"', plot), plot
    for scroll in re.findall(r'<div class="scroll"[^>]*>', page):
        assert 'tabindex="0"' in scroll
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_two_classes_of_one_name_are_two_rows(facts: RunFacts, build_decomposition: Decompositions) -> None:
    page = build_decomposition(("crane", "crane", "maillot"), (("n", "m", 3),), 8, k=2, n_maps=0)
    table = text_of(site_of(facts, page))
    assert table.count("crane 91.0 %") == 2


def test_what_belongs_to_a_network_is_found_by_name_and_seed(decomposition: DecompositionResults) -> None:
    again = replace(
        decomposition,
        networks=pd.concat([decomposition.networks, decomposition.networks.assign(seed=1)]),
        histograms=(*decomposition.histograms, Histogram("resnet20", 1, "x", np.ones(2), np.array([0]))),
        overlaps=(*decomposition.overlaps, Overlap("resnet20", 1, ("x",), np.ones((1, 1)))),
    )
    mine = again.of("resnet20", 1)
    assert (len(mine.networks), len(mine.grid), [h.class_name for h in mine.histograms]) == (1, 0, ["x"])
    assert (len(mine.overlaps), len(mine.gallery)) == (1, 2)
