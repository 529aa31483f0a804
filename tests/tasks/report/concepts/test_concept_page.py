"""The concepts page as bytes: its numbers, its caps, its files."""

import html
import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.figures.overlay import thumbnail
from tasks.report.concepts import exemplars, explorer
from tasks.report.concepts.content import lay_out_concepts
from tasks.report.concepts.explorer import when_held
from tasks.report.concepts.results import ConceptResults
from tasks.report.findings import Finding
from tasks.report.pages import RunFacts
from tests.tasks.report import site_pages
from tests.tasks.report.concepts.concept_tables import invented_concepts
from tests.tasks.report.site_pages import site_of

PAGE = "concepts.html"


def text_of(site: dict[str, bytes]) -> str:
    """Return the words of the page, one space between."""
    return site_pages.text_of(site, PAGE)


def json_in(site: dict[str, bytes], name: str) -> dict[str, object]:
    """Return the JSON of a script element of the page."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', site[PAGE].decode())
    assert found is not None
    parsed: dict[str, object] = json.loads(found[1])
    return parsed


def choosers_in(site: dict[str, bytes]) -> list[dict[str, list[object]]]:
    """Return names and keys of every chooser of the page."""
    return [json.loads(html.unescape(each)) for each in re.findall(r'data-chooser="([^"]*)"', site[PAGE].decode())]


@pytest.fixture(scope="module")
def small() -> ConceptResults:
    """Two layers, two detectors, three snapshots, six neurons."""
    return invented_concepts(layers=("conv1", "conv2"), steps=(0, 50, 100), n_neurons=6, n_pictures=3)


@pytest.fixture(scope="module")
def site(facts: RunFacts, small: ConceptResults) -> dict[str, bytes]:
    """The site of these results."""
    return site_of(facts, small)


def test_the_first_sentence_is_that_of_the_first_detector(site: dict[str, bytes], small: ConceptResults) -> None:
    mine = small.monitor[(small.monitor["detector"] == "soft_wpmi") & (small.monitor["snapshot"] == 2)]
    most = int(mine["interpretable"].max())
    first = re.search(r'<p class="lead panel chosen".*?</p>', site[PAGE].decode(), re.DOTALL)
    assert first is not None
    assert f"{most} of 6 neurons of layer " in first[0]
    assert "(by chance 2)" in first[0]
    assert site_pages.text_of(site, "index.html").count(f"{most} of 6 neurons of layer ") >= 1


def test_bars_are_the_counts_in_percent_of_the_layer(site: dict[str, bytes], small: ConceptResults) -> None:
    views = site_pages.views_of(site, PAGE, "holdings")
    assert list(views) == ["small, seed 0, soft_wpmi", "small, seed 0, network-dissection"]
    mine = small.categories[small.categories["detector"] == "network-dissection"]
    for part in views["small, seed 0, network-dissection"][:-1]:  # the last one is the null
        expected = mine[mine["category"] == part["name"]]["neurons"].sum() / 6 * 100
        assert sum(part["y"]) == pytest.approx(expected)
    assert choosers_in(site)[0] == {
        "names": ["network", "seed", "detector"],
        "keys": [["small", "0", "soft_wpmi"], ["small", "0", "network-dissection"]],
        "start": 0,
    }


def test_the_explorer_holds_every_neuron_with_its_words(site: dict[str, bytes], small: ConceptResults) -> None:
    data = json_in(site, "explorer-data")
    words, groups = data["words"], data["groups"]
    assert isinstance(words, list)
    assert isinstance(groups, list)
    assert [(group["of"], group["layer"]) for group in groups] == [
        (f"small, seed 0, {detector}", layer)
        for detector in ("soft_wpmi", "network-dissection")
        for layer in ("conv1", "conv2")
    ]
    rows = small.words
    at = rows[(rows["detector"] == "soft_wpmi") & (rows["layer"] == "conv2") & (rows["neuron"] == 4)]
    at = at[at["snapshot"] == 1].sort_values("rank")
    shown = groups[1]["neurons"][4]
    assert shown["n"] == 4
    assert [words[w] for w, _ in shown["words"][1]] == at["word"].tolist()
    np.testing.assert_allclose([value for _, value in shown["words"][1]], at["similarity"], rtol=1e-3)
    concepts = small.concepts
    mine = concepts[(concepts["detector"] == "soft_wpmi") & (concepts["layer"] == "conv2") & (concepts["neuron"] == 4)]
    assert shown["held"] == mine.sort_values("snapshot")["interpretable"].astype(int).tolist()
    images = data["images"]
    assert isinstance(images, dict)
    assert images["1:4"][0] == [thumbnail(small.pictures["p1"]).digest, "image 104", "3.00"]


def test_each_picture_is_in_the_page_once(facts: RunFacts, site: dict[str, bytes], small: ConceptResults) -> None:
    twice = replace(small, pictures={**small.pictures, "p2": small.pictures["p1"]})
    assert site[PAGE].count(b"data:image/png") == 3
    assert site_of(facts, twice)[PAGE].count(b"data:image/png") == 2


def test_without_pictures_the_explorer_names_images_and_says_why(facts: RunFacts, small: ConceptResults) -> None:
    site = site_of(facts, replace(small, pictures={}))
    assert b"data:image" not in site[PAGE]
    assert small.facts.privacy in text_of(site)
    images = json_in(site, "explorer-data")["images"]
    assert isinstance(images, dict)
    assert images["1:4"][0] == ["", "image 104", "3.00"]
    hidden = site_of(facts, replace(small, pictures={}, exemplars=small.exemplars.assign(sample_id=-1)))
    assert json_in(hidden, "explorer-data")["images"] == {}
    assert all(b"p1" not in content for path, content in hidden.items() if path.startswith("data/"))


def test_caps_are_said(facts: RunFacts, small: ConceptResults, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explorer, "MAX_NEURONS", 4)
    monkeypatch.setattr(exemplars, "MAX_THUMBNAIL_BYTES", len(thumbnail(small.pictures["p0"]).uri) + 10)
    site = site_of(facts, small)
    assert "At most 4 neurons of a layer under one detector are in the explorer, evenly spread: 16 of 24." in text_of(
        site
    )
    assert "2 images are left out to keep the page small." in text_of(site)
    groups = json_in(site, "explorer-data")["groups"]
    assert isinstance(groups, list)
    assert [neuron["n"] for neuron in groups[0]["neurons"]] == [0, 2, 3, 5]


def test_words_cannot_leave_their_element(facts: RunFacts, small: ConceptResults) -> None:
    word = '</script><b title="\'">&'
    words = {name: getattr(small, name).assign(word=word) for name in ("words", "concepts", "common", "plane")}
    site = site_of(facts, replace(small, **words, anchors=small.anchors.assign(word=word)))
    page = site[PAGE].decode()
    assert "</script><b" not in page
    assert "<b title" not in page
    assert json_in(site, "explorer-data")["words"] == [word]


def test_detectors_are_side_by_side_with_their_null(site: dict[str, bytes], small: ConceptResults) -> None:
    text = text_of(site)
    cells = []
    for detector in ("soft_wpmi", "network-dissection"):
        monitor = small.monitor
        row = monitor[(monitor["detector"] == detector) & (monitor["layer"] == "conv2") & (monitor["snapshot"] == 2)]
        held, distinct, d_anchor = (row[name].iloc[0] for name in ("interpretable", "distinct", "d_anchor"))
        cells.append(f"conv2 {detector} {held} of 6 2 {distinct} {d_anchor:.3f}")
    assert " ".join(cells) in text  # a row for each layer and detector
    assert "planted top-1 soft_wpmi – – – 0.740 0.042 96" in text
    assert "detectors soft_wpmi small 0 conv1 12 2 24" in text


def test_the_public_tables_have_the_columns_of_the_contract(small: ConceptResults) -> None:
    files = lay_out_concepts(small, {"figures/own.png": b"x"}).files
    read = {name: pd.read_parquet(io.BytesIO(files[f"tables/{name}.parquet"])) for name in ("concepts", "monitor")}
    contract = "network, seed, snapshot, layer, neuron, detector, word, category, similarity, interpretable"
    assert ", ".join(read["concepts"].columns) == contract
    contract = "network, seed, snapshot, step, layer, detector, d_anchor, mean_pairwise, interpretable, distinct"
    assert ", ".join(read["monitor"].columns).startswith(f"{contract}, ")
    pd.testing.assert_frame_equal(read["concepts"], small.concepts)
    assert files["figures/own.png"] == b"x"
    stills = [path for path in files if path.endswith("-small-0.png")]
    assert stills == ["figures/concepts-small-0.png", "figures/concept-plane-small-0.png"]
    assert all(files[path].startswith(b"\x89PNG") for path in stills)
    assert not any("exemplars" in path for path in files)


def test_further_observations_and_verdicts_are_listed(facts: RunFacts, small: ConceptResults) -> None:
    page = lay_out_concepts(replace(small, observations=(Finding("Robust", "Further numbers."),)), {})
    assert [title for title, _ in page.sections] == [
        "small, seed 0, soft_wpmi",
        "small, seed 0, network-dissection",
        "Detectors",
    ]
    assert page.sections[-1][1][-1] == Finding("Robust", "Further numbers.")
    assert [finding.about for finding in page.sections[0][1]] == [
        "Concepts",
        "Complexity",
        "Depth",
        "Early",
        "Ablations",
    ]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([False, False, False], "It does not hold a concept at any snapshot."),
        ([True, True, True], "It holds a concept at every snapshot."),
        ([False, True, True], "It holds a concept from b to the end."),
        ([True, False, True], "It holds a concept at a only, and again from c to the end."),
        ([True, True, False], "It holds a concept from a to b."),
        ([True], "It holds a concept."),
        ([False], "It does not hold a concept."),
    ],
)
def test_when_a_neuron_held_a_concept(flags: list[bool], expected: str) -> None:
    assert when_held(flags, ["a", "b", "c"][: len(flags)]) == expected
