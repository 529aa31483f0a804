"""What the decomposition page must not let out: markup in names, and training images where they are not allowed."""

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from tasks.figures.overlay import thumbnail
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.pages import RunFacts
from tests.tasks.report.decomposition.decomposition_site import text_of
from tests.tasks.report.decomposition.decomposition_tables import Decompositions
from tests.tasks.report.site_pages import site_of


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
    site = site_of(facts, page)
    for path in ("index.html", "decomposition.html"):
        assert b"<script>alert" not in site[path]
        assert evil in html.unescape(site[path].decode())
    for views in re.findall(r"-views\">(.*?)</script>", site["decomposition.html"].decode()):
        for view in json.loads(views):  # what plotly.js draws as HTML
            assert "<script>" not in json.dumps([view["data"], view["layout"]])


@pytest.mark.parametrize("setting", ["show", "ids", "none", "odd"])
@pytest.mark.parametrize(("split", "learn"), [("train", "train"), ("val", "val"), ("unknown", "train")])
def test_training_images_and_their_ids_are_shown_only_where_allowed(
    facts: RunFacts, decomposition: DecompositionResults, setting: str, split: str, learn: str
) -> None:
    rng = np.random.default_rng(9)
    secret = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    first = decomposition.gallery[0]
    row = replace(first, sample_id=987654321, split=split, image=secret, all=secret, other=secret, influential=secret)
    page = replace(decomposition, gallery=(row, replace(decomposition.gallery[1], split="test")))
    page = replace(page, networks=page.networks.assign(learn=learn))
    site = site_of(replace(facts, training_images=setting), page)
    needles = (b"987654321", thumbnail(secret).digest.encode(), thumbnail(secret).uri.encode()[64:])
    for needle in needles:
        assert any(needle in data for data in site.values()) == (setting == "show")
    assert "sample 4001" in text_of(site)  # of a held-out split
    only = site_of(replace(facts, training_images=setting), replace(page, gallery=(row,)))
    assert ("Feature maps" in text_of(only)) == (setting == "show")


def test_validation_rows_may_always_be_shown(facts: RunFacts, decomposition: DecompositionResults) -> None:
    site = site_of(replace(facts, training_images="none"), decomposition)
    assert "sample 4000" in text_of(site)
