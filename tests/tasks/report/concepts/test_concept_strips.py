"""Pages of one snapshot: pictures and words instead of a course, by hand and as bytes."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.report.concepts.groups import Group
from tasks.report.concepts.results import ConceptResults
from tasks.report.concepts.strips import MAX_IMAGES, MAX_NEURONS, strip_of
from tasks.report.pages import RunFacts
from tests.tasks.report import site_pages
from tests.tasks.report.concepts.concept_tables import invented_concepts
from tests.tasks.report.site_pages import site_of

PAGE = "concepts.html"
ONCE = "There is one snapshot, so when the concepts came is not known."
ROW = {"snapshot": 0, "label": "given weights", "layer": "fc", "neurons": 8, "null_interpretable": 1}
BEST = [  # neuron, word, similarity, interpretable
    (0, "car", 0.5, True),
    (1, "car", 0.9, True),
    (2, "dog", 0.7, True),
    (3, "red", 0.95, False),
    (4, "sky", -1.5, True),
]


def group(best: list[tuple[int, str, float, bool]] = BEST, n_snapshots: int = 1) -> Group:
    """Make the tables of one layer."""
    concepts = pd.DataFrame(best, columns=["neuron", "word", "similarity", "interpretable"])
    concepts = concepts.assign(layer="fc", snapshot=n_snapshots - 1)
    held = int(concepts["interpretable"].sum())
    monitor = pd.DataFrame([ROW | {"snapshot": s, "interpretable": held} for s in range(n_snapshots)])
    return Group("net", "0", "cos", {"monitor": monitor, "concepts": concepts})


def images(*neurons: int) -> dict[tuple[tuple[str, str, str], int], list[list[str]]]:
    """Give some neurons six images."""
    return {(("net", "0", "fc"), n): [[f"d{n}{i}", f"image {i}", "2.00"] for i in range(6)] for n in neurons}


def test_every_word_comes_once_before_one_comes_twice() -> None:
    strip = strip_of(group(), {})
    assert [(held.neuron, held.word, held.similarity) for held in strip.neurons] == [
        *((1, "car", "0.900"), (2, "dog", "0.700"), (4, "sky", "−1.50"), (0, "car", "0.500")),
    ]
    assert strip.caption == f"The most interpretable neurons of fc. {ONCE}"
    assert ONCE not in strip_of(group(n_snapshots=2), {}).caption
    many = [(n, f"w{n}", 1.0, True) for n in range(20)]
    assert [held.neuron for held in strip_of(group(many), {}).neurons] == list(range(MAX_NEURONS))


def test_neurons_with_pictures_come_alone_and_the_page_says_so() -> None:
    strip = strip_of(group(), images(0, 2, 3))
    assert [held.neuron for held in strip.neurons] == [2, 0]
    assert [shown.digest for shown in strip.neurons[0].images] == [f"d2{i}" for i in range(MAX_IMAGES)]
    assert strip.neurons[0].images[1].alt == "image 1, activation 2.00"
    assert strip.caption.startswith("The most interpretable neurons of fc, of the 2 whose images are here. The images")
    assert "whose images" not in strip_of(group(), images(0, 1, 2, 4)).caption
    nameless = {key: [["", name, amount] for _, name, amount in listed] for key, listed in images(2).items()}
    assert [held.neuron for held in strip_of(group(), nameless).neurons] == [1, 2, 4, 0]


def test_no_neuron_or_no_word() -> None:
    nothing = [(n, word, value, False) for n, word, value, _ in BEST]
    assert strip_of(group(nothing), {}).caption == f"No neuron holds a concept. {ONCE}"
    known = group()
    bare = replace(known, tables={**known.tables, "concepts": known.tables["concepts"][:0]})
    assert strip_of(bare, {}) == replace(
        strip_of(bare, {}), neurons=(), caption=f"The results do not name the words of the neurons. {ONCE}"
    )


def mixed() -> ConceptResults:
    """A network that was trained, and two of given weights."""
    trained = invented_concepts(("trained",), ("conv1", "conv2"), steps=(0, 9, 20), n_neurons=12, n_pictures=3)
    names = ("monitor", "concepts", "words", "exemplars", "categories")
    other = one_snapshot()
    return replace(trained, **{name: pd.concat([getattr(r, name) for r in (trained, other)]) for name in names})


def one_snapshot(n_pictures: int = 3) -> ConceptResults:
    """Two networks of given weights."""
    results = invented_concepts(("left", "right"), ("conv1", "conv2"), steps=(0,), n_neurons=12, n_pictures=n_pictures)
    given = results.monitor.assign(step=-1, label="given weights", accuracy=np.nan, loss=np.nan)
    held = results.concepts.assign(interpretable=results.concepts["neuron"] < 8)
    return replace(results, monitor=given.assign(interpretable=8), concepts=held)


@pytest.fixture(scope="module")
def single(facts: RunFacts) -> dict[str, bytes]:
    """The site of networks with one snapshot each."""
    return site_of(facts, one_snapshot())


def test_one_snapshot_has_pictures_and_no_course(single: dict[str, bytes]) -> None:
    page, text = single[PAGE].decode(), site_pages.text_of(single, PAGE)
    assert 'id="course"' not in page
    strips = re.findall(r'<figure class="chart panel( chosen)?" data-panel="(\d)"', page)
    assert strips == [(" chosen", "0"), ("", "1"), ("", "2"), ("", "3")]
    shown = set(re.findall(r'<use href="#t-(\w+)"', page))
    assert shown
    assert shown <= set(re.findall(r'<symbol id="t-(\w+)"', page))
    assert text.count(ONCE) == 4
    assert "neurons of layer conv2 of left hold a concept (by chance 2)" in text
    assert "8 of 12 (by chance 2)." in text
    assert "cannot be tested on these results" in text
    assert "observations of standard training." not in text  # a table of nothing
    assert "trails" not in text


def test_one_snapshot_without_pictures_names_words(facts: RunFacts) -> None:
    site = site_of(facts, one_snapshot(0))
    assert b'<ol class="held-words">' in site[PAGE]
    assert b"<use href" not in site[PAGE]


def test_the_course_is_there_for_those_that_have_one(facts: RunFacts) -> None:
    page = site_of(facts, mixed())[PAGE].decode()
    panels = re.findall(r'<figure class="chart panel( chosen)?" data-panel="([\d ]+)"', page)
    assert panels == [(" chosen", "0 1"), ("", "2"), ("", "3"), ("", "4"), ("", "5")]
    assert "Accuracy and loss are the network&#39;s." in page


@pytest.mark.parametrize(
    ("unknown", "said", "columns"),
    [
        ((), "Accuracy and loss are the network's.", "accuracy loss"),
        (("accuracy",), "Loss is the network's.", "mean pairwise loss small"),
        (("accuracy", "loss"), "cover more anchors. A neuron", "mean pairwise small"),
    ],
)
def test_what_is_unknown_of_the_training_is_not_mentioned(
    facts: RunFacts, unknown: tuple[str, ...], said: str, columns: str
) -> None:
    results = invented_concepts(layers=("conv1", "conv2"), steps=(0, 50, 100), n_neurons=6, n_pictures=1)
    known = replace(results, monitor=results.monitor.assign(**dict.fromkeys(unknown, np.nan)))
    site = site_of(facts, known)
    text = site_pages.text_of(site, PAGE)
    assert said in text
    assert columns in text
    assert ("dead accuracy" in text) == ("accuracy" not in unknown)
    drawn = {str(part["name"]) for parts in site_pages.views_of(site, PAGE, "course").values() for part in parts}
    assert drawn == {"conv1", "conv2", *({"accuracy", "loss"} - set(unknown))}


def test_a_course_of_nothing_known_is_not_drawn(facts: RunFacts) -> None:
    results = invented_concepts(layers=("conv1",), steps=(0, 50, 100), n_neurons=6, n_pictures=1)
    names = ("accuracy", "loss", "d_anchor")
    site = site_of(facts, replace(results, monitor=results.monitor.assign(**dict.fromkeys(names, np.nan))))
    assert b'id="course"' not in site[PAGE]
    assert ONCE not in site_pages.text_of(site, PAGE)
