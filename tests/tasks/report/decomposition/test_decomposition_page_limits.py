"""The decomposition page of much: how many rows, networks, images and classes it shows, and that it says so."""

import re

import pytest

from tasks.report.blocks import MAX_IMAGES
from tasks.report.decomposition.content import MAX_SECTIONS
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.pages import RunFacts
from tests.tasks.report.decomposition.decomposition_site import text_of
from tests.tasks.report.decomposition.decomposition_tables import Decompositions
from tests.tasks.report.site_pages import site_of

MAX_PAGE_BYTES = 6_000_000


def test_a_table_too_long_for_the_site_is_left_out(
    facts: RunFacts, decomposition: DecompositionResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.report.decomposition.downloads.MAX_CSV_ROWS", 20)
    site = site_of(facts, decomposition)
    assert "data/decomposition_ablation.csv" not in site
    assert "The 54 rows of the table of ablation are too many for this site." in text_of(site)
    assert "The 8 rows" not in text_of(site)


def test_networks_beyond_the_cap_have_no_section(facts: RunFacts, build_decomposition: Decompositions) -> None:
    networks = tuple((f"r{i}", f"resnet{i}", i) for i in range(1, MAX_SECTIONS + 3))
    site = site_of(facts, build_decomposition(("a", "b"), networks, 8, n_histograms=0, n_maps=1))
    text = text_of(site)
    assert "The first 12 of 14 networks and seeds have a section." in text
    assert "Feature maps of the first 8 of 14 networks are shown." in text
    assert 'id="decomposed-12"' in site["decomposition.html"].decode()
    assert 'id="decomposed-13"' not in site["decomposition.html"].decode()


def test_feature_maps_stand_in_a_row_and_are_capped(facts: RunFacts, build_decomposition: Decompositions) -> None:
    page = build_decomposition(("a", "b"), (("n", "m", 3),), 8, n_maps=MAX_IMAGES + 6, size=2)
    site = site_of(facts, page)
    assert "The first 24 of 30 images." in text_of(site)
    alts = re.findall(r'<svg class="thumb" role="img" aria-label="([^"]*)"', site["decomposition.html"].decode())
    assert alts[:4] == [
        "Image of split val, sample 4000, class a",
        "Mean map of all features on sample 4000, class a",
        "Mean map of other features on sample 4000, class a",
        "Mean map of influential features on sample 4000, class a",
    ]
    assert len(alts) == 4 * MAX_IMAGES


@pytest.mark.slow
def test_a_page_of_a_thousand_classes_is_capped_says_so_and_stays_small(
    facts: RunFacts, build_decomposition: Decompositions
) -> None:
    names = tuple(f"class {i}" for i in range(1000))
    page = build_decomposition(names, (("resnet50", "resnet50", 50),), 2048, k=50, n_histograms=14, size=96)
    site = site_of(facts, page)
    assert len(site["decomposition.html"]) < MAX_PAGE_BYTES
    text = text_of(site)
    for expected in (
        "40 of 1,000 classes, evenly spread in this order.",
        "The first 100 of 1,000 classes.",
        "Of 1,000 classes the 30 that share most with the others.",
        "The first 10 of 499,500 pairs.",
        "The 80 most frequent of 2,048 features, the most frequent first. The first 12 of 14 classes.",
        "The 499,500 rows of the table of overlaps are too many for this site.",
        "The 28,672 rows of the table of histograms are too many for this site.",
    ):
        assert expected in text, expected
