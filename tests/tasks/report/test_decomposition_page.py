"""The decomposition page as bytes: its numbers, its caps, its files, what it leaves out."""

import html
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.figures.overlay import thumbnail
from tasks.report.blocks import MAX_IMAGES
from tasks.report.decomposition import MAX_SECTIONS
from tasks.report.formats import NBSP
from tasks.report.pages import RunFacts
from tasks.report.pages_decomposition import COLUMNS, DecompositionPage, Histogram, Overlap
from tasks.report.site import render_site

Decompositions = Callable[..., DecompositionPage]

MAX_PAGE_BYTES = 6_000_000


def text_of(site: dict[str, bytes]) -> str:
    """Return the words of the page, one space between."""
    page = re.sub(r"<(script|style).*?</\1>", " ", site["decomposition.html"].decode(), flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]*>", " ", page)).replace(NBSP, " ")
    return re.sub(r"\s+", " ", words)


def views_of(site: dict[str, bytes], figure: str) -> dict[str, list[dict[str, list[float]]]]:
    """Return what a figure draws, by the label of its choice."""
    found = re.search(rf'id="{figure}-views">(.*?)</script>', site["decomposition.html"].decode())
    assert found is not None
    return {view["label"]: view["data"] for view in json.loads(found[1])}


def figures_in(site: dict[str, bytes]) -> list[str]:
    """Return the ids of all figures."""
    return re.findall(r'<div class="plot" id="([^"]*)"', site["decomposition.html"].decode())


def without(page: DecompositionPage, *names: str) -> DecompositionPage:
    """Empty some tables and tuples."""
    return replace(page, **{name: getattr(page, name)[:0] for name in names})


def test_numbers_of_the_tables_are_on_the_page(facts: RunFacts, decomposition: DecompositionPage) -> None:
    text = text_of(render_site(facts, None, None, decomposition))
    coverage, change = decomposition.coverage.iloc[0], decomposition.classes.iloc[0]
    for expected in (
        "resnet20 0 91.0 % 87.4 % 0.960 93.0 % 30.0 %",
        "resnet20 0 cifar-resnet20 5 abs label train val of the weights 5 20 3 3 64 50,000 10,000",
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
    site = render_site(facts, None, None, build_decomposition(ten, (("mine", "cifar-resnet20", 20),), n_maps=0))
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
    assert "r_A k1 = 50, k2 = 50 0.971 0.960 −0.011" in text_of(render_site(facts, None, None, wide))


@pytest.mark.parametrize(
    ("rank_by", "group_by", "said"),
    [
        ("abs", "label", "the k1 features of largest magnitude are counted for the image's class."),
        ("value", "prediction", "the k1 features of largest value are counted for the class predicted."),
        ("contribution", "label", "of largest contribution to the class's logit are counted for the image's class."),
    ],
)
def test_algorithm_1_is_told_as_it_was_run(
    facts: RunFacts, decomposition: DecompositionPage, rank_by: str, group_by: str, said: str
) -> None:
    networks = decomposition.networks.assign(rank_by=rank_by, group_by=group_by)
    assert said in text_of(render_site(facts, None, None, replace(decomposition, networks=networks)))


def test_networks_counted_in_two_ways_are_told_of_both(facts: RunFacts, decomposition: DecompositionPage) -> None:
    networks = decomposition.networks.assign(rank_by=["value", "abs"])
    text = text_of(render_site(facts, None, None, replace(decomposition, networks=networks)))
    assert "features of largest value or magnitude (see Networks) are counted for the image's class." in text


def test_outputs_without_images_are_told(facts: RunFacts, decomposition: DecompositionPage) -> None:
    networks = decomposition.networks.assign(n_outputs=[3, 1000])
    text = text_of(render_site(facts, None, None, replace(decomposition, networks=networks)))
    assert text.count("outputs have no images in") == 1
    assert (
        "997 of 1,000 outputs have no images in train; their sets are arbitrary, noise leaves them alone, and A_d has "
        "them as they are." in text
    )


def test_networks_without_feature_maps_are_named_with_the_reason(
    facts: RunFacts, decomposition: DecompositionPage
) -> None:
    page = replace(decomposition, refused=(("resnet56", "the last map has <2> channels."),), gallery=())
    site = render_site(facts, None, None, page)
    assert "Feature maps resnet56 has no feature maps: the last map has <2> channels. Networks" in text_of(site)
    assert "Maps of the last convolution" not in text_of(site)
    assert "<2>" not in site["decomposition.html"].decode()
    assert '<a href="#feature-maps">' in site["decomposition.html"].decode()
    assert page.of("resnet20", 0).refused == ()
    assert page.of("resnet56", 0).completed().refused == page.refused
    both = text_of(render_site(facts, None, None, replace(page, gallery=decomposition.gallery)))
    assert "sample 4001" in both
    assert "resnet56 has no feature maps" in both


def test_a_missing_control_is_told_beside_the_bars(facts: RunFacts, decomposition: DecompositionPage) -> None:
    union = (decomposition.ablation["scope"] == "union") & (decomposition.ablation["which"] == "equal-size")
    page = replace(decomposition, ablation=decomposition.ablation[~union])
    page = replace(page, networks=page.networks.assign(union=[33, 33]))
    site = render_site(facts, None, None, page)
    assert "Scope union: no control of equal size: the sets hold more than half of the features. Dashed" in text_of(
        site
    )
    assert "so the control of equal size decides. Scope union" in text_of(site)
    assert text_of(site).count("as many others") > 1
    views = views_of(site, "noise-1")
    assert [len(views[f"scope {scope}"]) for scope in ("label", "predicted", "union")] == [4, 4, 3]
    none = page.ablation[page.ablation["which"] != "equal-size"]
    wide = replace(page, ablation=none, networks=page.networks.assign(k2=33, union=60))
    text = text_of(render_site(facts, None, None, wide))
    assert "control of equal size decides" not in text
    assert "Scope label, predicted, union: no control of equal size: the sets hold more than half" in text
    assert "As many others : as many features from outside the set, where there are so many." in text
    assert text.count("as many others") == 1  # of the feature maps: no bar, no row, no claim


def test_caveats_of_the_method_are_on_the_page(facts: RunFacts, decomposition: DecompositionPage) -> None:
    text = text_of(render_site(facts, None, None, decomposition))
    for expected in (
        "This is a perturbation test, not an accuracy: with scope label the true label says which "
        "features are replaced.",
        "All others are many more features than the influential ones, so the control of equal size decides.",
        "With gates it needs the label of the image",
        "It does not pay at batch 1",
    ):
        assert expected in text


def test_figures_draw_the_tables(facts: RunFacts, decomposition: DecompositionPage) -> None:
    site = render_site(facts, None, None, decomposition)
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


def test_what_was_not_asked_for_is_not_shown(facts: RunFacts, decomposition: DecompositionPage) -> None:
    names = [name for name in COLUMNS if name != "networks"]
    bare = without(decomposition, *names, "histograms", "overlaps", "gallery")
    site = render_site(facts, None, None, bare)
    assert figures_in(site) == ["depth"]
    text = text_of(site)
    for absent in ("Controls", "Noise", "Retraining", "CSG Class", "Time of the head", "Feature maps", "Coverage"):
        assert absent not in text, absent
    assert "With 5 of 64 features" in text
    alone = replace(bare, networks=bare.networks[:1])
    assert figures_in(render_site(facts, None, None, alone)) == []
    assert [path for path in site if path.startswith("data/decomp")] == ["data/decomposition_networks.csv"]


def test_no_networks_at_all(facts: RunFacts) -> None:
    site = render_site(facts, None, None, DecompositionPage(networks=pd.DataFrame()))
    assert "No network was decomposed." in text_of(site)
    assert "There is nothing to compare yet." in html.unescape(site["index.html"].decode())


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "networks"])
def test_each_table_may_be_alone(facts: RunFacts, decomposition: DecompositionPage, name: str) -> None:
    others = [other for other in COLUMNS if other not in (name, "networks")]
    site = render_site(facts, None, None, without(decomposition, *others, "histograms", "overlaps", "gallery"))
    assert f"data/decomposition_{name}.csv" in site
    assert not re.search(r"\bnan\b", text_of(site), re.IGNORECASE)


def test_unknown_numbers_are_dashes(facts: RunFacts, decomposition: DecompositionPage) -> None:
    unknown = {}
    for name in COLUMNS:
        frame = getattr(decomposition, name)
        numbers = [c for c in frame.select_dtypes("float") if c not in ("n_images", "epoch")]
        unknown[name] = frame.assign(**dict.fromkeys(numbers, np.nan))
    site = render_site(facts, None, None, replace(decomposition, **unknown))
    assert "resnet20 0 – – – –" in text_of(site)
    assert not re.search(r"\bnan\b", site["decomposition.html"].decode(), re.IGNORECASE)


def test_absent_columns_count_as_unknown(facts: RunFacts, decomposition: DecompositionPage) -> None:
    page = replace(decomposition, networks=decomposition.networks.drop(columns=["union", "head_share", "agreement"]))
    assert not re.search(r"\bnan\b", text_of(render_site(facts, None, None, page)), re.IGNORECASE)


def test_csv_files_hold_the_tables(facts: RunFacts, decomposition: DecompositionPage) -> None:
    extra = replace(decomposition, classes=decomposition.classes.assign(first_sample=987654321))
    site = render_site(facts, None, None, extra)
    for name in COLUMNS:
        read = pd.read_csv(io.BytesIO(site[f"data/decomposition_{name}.csv"]), dtype={"k1": str})
        pd.testing.assert_frame_equal(read, getattr(decomposition, name), check_dtype=False)
    assert not any(b"987654321" in data for data in site.values())  # a column nobody asked for
    histograms = pd.read_csv(io.BytesIO(site["data/decomposition_histograms.csv"]))
    assert len(histograms) == 2 * 2 * 64
    first = histograms.query("network == 'resnet20' and class_name == 'zero'")
    np.testing.assert_allclose(first["frequency"], decomposition.histograms[0].frequencies)
    assert first["feature"][first["chosen"]].tolist() == decomposition.histograms[0].chosen.tolist()
    overlaps = pd.read_csv(io.BytesIO(site["data/decomposition_overlaps.csv"]))
    assert overlaps["overlap"].tolist()[:3] == decomposition.overlaps[0].matrix[[0, 0, 1], [1, 2, 2]].tolist()


def test_a_table_too_long_for_the_site_is_left_out(
    facts: RunFacts, decomposition: DecompositionPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.report.decomposition_csv.MAX_CSV_ROWS", 20)
    site = render_site(facts, None, None, decomposition)
    assert "data/decomposition_ablation.csv" not in site
    assert "The 54 rows of the table of ablation are too many for this site." in text_of(site)
    assert "The 8 rows" not in text_of(site)


def test_networks_beyond_the_cap_have_no_section(facts: RunFacts, build_decomposition: Decompositions) -> None:
    networks = tuple((f"r{i}", f"resnet{i}", i) for i in range(1, MAX_SECTIONS + 3))
    site = render_site(facts, None, None, build_decomposition(("a", "b"), networks, 8, n_histograms=0, n_maps=1))
    text = text_of(site)
    assert "The first 12 of 14 networks and seeds have a section." in text
    assert "Feature maps of the first 8 of 14 networks are shown." in text
    assert 'id="decomposed-12"' in site["decomposition.html"].decode()
    assert 'id="decomposed-13"' not in site["decomposition.html"].decode()


def test_names_of_classes_networks_and_all_else_are_escaped(
    facts: RunFacts, build_decomposition: Decompositions
) -> None:
    evil = "</script><script>alert(1)</script>&\"'"
    page = build_decomposition((evil, "b", "c"), ((evil, evil, 3), ("n2", evil, 4)), 8, k=2)
    page = replace(
        page,
        networks=page.networks.assign(
            preprocessing=evil, rank_by=evil, group_by=evil, learn=evil, evaluate=evil, k1=evil
        ),
        grid=page.grid.assign(k1=evil),
        controls=page.controls.assign(method=evil),
        classes=page.classes.assign(indices=evil, counts=evil),
        ablation=page.ablation.assign(noise=evil, scope=evil),
        retraining=page.retraining.assign(scope=evil),
        gates=page.gates.assign(split=evil),
        gallery=tuple(replace(row, split="val", predicted=evil) for row in page.gallery),
    )
    site = render_site(facts, None, None, page)
    for path in ("index.html", "decomposition.html"):
        assert b"<script>alert" not in site[path]
        assert evil in html.unescape(site[path].decode())
    for views in re.findall(r"-views\">(.*?)</script>", site["decomposition.html"].decode()):
        for view in json.loads(views):  # what plotly.js draws as HTML
            assert "<script>" not in json.dumps([view["data"], view["layout"]])


def test_feature_maps_stand_in_a_row_and_are_capped(facts: RunFacts, build_decomposition: Decompositions) -> None:
    page = build_decomposition(("a", "b"), (("n", "m", 3),), 8, n_maps=MAX_IMAGES + 6, size=2)
    site = render_site(facts, None, None, page)
    assert "The first 24 of 30 images." in text_of(site)
    alts = re.findall(r'<svg class="thumb" role="img" aria-label="([^"]*)"', site["decomposition.html"].decode())
    assert alts[:4] == [
        "Image of split val, sample 4000, class a",
        "Mean map of all features on sample 4000, class a",
        "Mean map of other features on sample 4000, class a",
        "Mean map of influential features on sample 4000, class a",
    ]
    assert len(alts) == 4 * MAX_IMAGES


@pytest.mark.parametrize("setting", ["show", "ids", "none", "odd"])
@pytest.mark.parametrize(("split", "learn"), [("train", "train"), ("val", "val"), ("unknown", "train")])
def test_training_images_and_their_ids_are_shown_only_where_allowed(
    facts: RunFacts, decomposition: DecompositionPage, setting: str, split: str, learn: str
) -> None:
    rng = np.random.default_rng(9)
    secret = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    first = decomposition.gallery[0]
    row = replace(first, sample_id=987654321, split=split, image=secret, all=secret, other=secret, influential=secret)
    page = replace(decomposition, gallery=(row, replace(decomposition.gallery[1], split="test")))
    page = replace(page, networks=page.networks.assign(learn=learn))
    site = render_site(replace(facts, training_images=setting), None, None, page)
    needles = (b"987654321", thumbnail(secret).digest.encode(), thumbnail(secret).uri.encode()[64:])
    for needle in needles:
        assert any(needle in data for data in site.values()) == (setting == "show")
    assert "sample 4001" in text_of(site)  # of a held-out split
    only = render_site(replace(facts, training_images=setting), None, None, replace(page, gallery=(row,)))
    assert ("Feature maps" in text_of(only)) == (setting == "show")


def test_validation_rows_may_always_be_shown(facts: RunFacts, decomposition: DecompositionPage) -> None:
    site = render_site(replace(facts, training_images="none"), None, None, decomposition)
    assert "sample 4000" in text_of(site)


def test_every_figure_and_table_speaks(facts: RunFacts, decomposition: DecompositionPage) -> None:
    page = render_site(facts, None, None, decomposition)["decomposition.html"].decode()
    for plot in re.findall(r'<div class="plot"[^>]*>', page):
        assert re.search(r'role="img" aria-label="[^"]{20,}"', plot), plot
    for scroll in re.findall(r'<div class="scroll"[^>]*>', page):
        assert 'tabindex="0"' in scroll
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_a_page_of_a_thousand_classes_is_capped_says_so_and_stays_small(
    facts: RunFacts, build_decomposition: Decompositions
) -> None:
    names = tuple(f"class {i}" for i in range(1000))
    page = build_decomposition(names, (("resnet50", "resnet50", 50),), 2048, k=50, n_histograms=14, size=96)
    site = render_site(facts, None, None, page)
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


def test_two_classes_of_one_name_are_two_rows(facts: RunFacts, build_decomposition: Decompositions) -> None:
    page = build_decomposition(("crane", "crane", "maillot"), (("n", "m", 3),), 8, k=2, n_maps=0)
    table = text_of(render_site(facts, None, None, page))
    assert table.count("crane 91.0 %") == 2


def test_what_belongs_to_a_network_is_found_by_name_and_seed(decomposition: DecompositionPage) -> None:
    again = replace(
        decomposition,
        networks=pd.concat([decomposition.networks, decomposition.networks.assign(seed=1)]),
        histograms=(*decomposition.histograms, Histogram("resnet20", 1, "x", np.ones(2), np.array([0]))),
        overlaps=(*decomposition.overlaps, Overlap("resnet20", 1, ("x",), np.ones((1, 1)))),
    )
    mine = again.of("resnet20", 1)
    assert (len(mine.networks), len(mine.grid), [h.class_name for h in mine.histograms]) == (1, 0, ["x"])
    assert (len(mine.overlaps), len(mine.gallery)) == (1, 2)
