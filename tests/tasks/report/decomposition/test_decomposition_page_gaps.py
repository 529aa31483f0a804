"""The decomposition page where parts are missing: what was not asked for, is unknown or cannot be."""

import html
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.report.decomposition.results import COLUMNS, DecompositionResults
from tasks.report.pages import RunFacts
from tests.tasks.report.decomposition.decomposition_site import figures_in, text_of, views_of, without
from tests.tasks.report.site_pages import site_of


def test_outputs_without_images_are_told(facts: RunFacts, decomposition: DecompositionResults) -> None:
    networks = decomposition.networks.assign(n_outputs=[3, 1000])
    text = text_of(site_of(facts, replace(decomposition, networks=networks)))
    assert text.count("outputs have no images in") == 1
    assert (
        "997 of 1,000 outputs have no images in train: their sets are arbitrary. A_d includes them, and "
        "noise leaves them alone." in text
    )


def test_networks_without_feature_maps_are_named_with_the_reason(
    facts: RunFacts, decomposition: DecompositionResults
) -> None:
    page = replace(decomposition, refused=(("resnet56", "the last map has <2> channels."),), gallery=())
    site = site_of(facts, page)
    assert "Feature maps resnet56 has no feature maps: the last map has <2> channels. Networks" in text_of(site)
    assert "Maps of the last convolution" not in text_of(site)
    assert "<2>" not in site["decomposition.html"].decode()
    assert '<a href="#feature-maps">' in site["decomposition.html"].decode()
    assert page.of("resnet20", 0).refused == ()
    assert page.of("resnet56", 0).completed().refused == page.refused
    both = text_of(site_of(facts, replace(page, gallery=decomposition.gallery)))
    assert "sample 4001" in both
    assert "resnet56 has no feature maps" in both


def test_a_missing_control_is_told_beside_the_bars(facts: RunFacts, decomposition: DecompositionResults) -> None:
    union = (decomposition.ablation["scope"] == "union") & (decomposition.ablation["which"] == "equal-size")
    page = replace(decomposition, ablation=decomposition.ablation[~union])
    page = replace(page, networks=page.networks.assign(union=[33, 33]))
    site = site_of(facts, page)
    assert "Scope union: no control of equal size: the sets hold more than half of the features. Dashed" in text_of(
        site
    )
    assert "so the control of equal size decides. Scope union" in text_of(site)
    assert text_of(site).count("as many others") > 1
    views = views_of(site, "noise-1")
    assert [len(views[f"scope {scope}"]) for scope in ("label", "predicted", "union")] == [4, 4, 3]
    none = page.ablation[page.ablation["which"] != "equal-size"]
    wide = replace(page, ablation=none, networks=page.networks.assign(k2=33, union=60))
    text = text_of(site_of(facts, wide))
    assert "control of equal size decides" not in text
    assert "Scope label, predicted, union: no control of equal size: the sets hold more than half" in text
    assert "As many others : the same number of features from outside the set, where there are enough." in text
    assert text.count("as many other") == 1  # of the feature maps: no bar, no row, no claim


def test_what_was_not_asked_for_is_not_shown(facts: RunFacts, decomposition: DecompositionResults) -> None:
    names = [name for name in COLUMNS if name != "networks"]
    bare = without(decomposition, *names, "histograms", "overlaps", "gallery")
    site = site_of(facts, bare)
    assert figures_in(site) == ["depth"]
    text = text_of(site)
    for absent in ("Controls", "Noise", "Retraining", "CSG Class", "Time of the head", "Feature maps", "Coverage"):
        assert absent not in text, absent
    assert "With 5 of 64 features" in text
    alone = replace(bare, networks=bare.networks[:1])
    assert figures_in(site_of(facts, alone)) == []
    assert [path for path in site if path.startswith("data/decomp")] == ["data/decomposition_networks.csv"]


def test_no_networks_at_all(facts: RunFacts) -> None:
    site = site_of(facts, DecompositionResults(networks=pd.DataFrame()))
    assert "No network was decomposed." in text_of(site)
    assert "There is nothing to compare yet." in html.unescape(site["index.html"].decode())


@pytest.mark.parametrize("name", [name for name in COLUMNS if name != "networks"])
def test_each_table_may_be_alone(facts: RunFacts, decomposition: DecompositionResults, name: str) -> None:
    others = [other for other in COLUMNS if other not in (name, "networks")]
    site = site_of(facts, without(decomposition, *others, "histograms", "overlaps", "gallery"))
    assert f"data/decomposition_{name}.csv" in site
    assert not re.search(r"\bnan\b", text_of(site), re.IGNORECASE)


def test_unknown_numbers_are_dashes(facts: RunFacts, decomposition: DecompositionResults) -> None:
    unknown = {}
    for name in COLUMNS:
        frame = getattr(decomposition, name)
        numbers = [c for c in frame.select_dtypes("float") if c not in ("n_images", "epoch")]
        unknown[name] = frame.assign(**dict.fromkeys(numbers, np.nan))
    site = site_of(facts, replace(decomposition, **unknown))
    assert "resnet20 0 – – – –" in text_of(site)
    assert not re.search(r"\bnan\b", site["decomposition.html"].decode(), re.IGNORECASE)


def test_absent_columns_count_as_unknown(facts: RunFacts, decomposition: DecompositionResults) -> None:
    page = replace(decomposition, networks=decomposition.networks.drop(columns=["union", "head_share", "agreement"]))
    assert not re.search(r"\bnan\b", text_of(site_of(facts, page)), re.IGNORECASE)
