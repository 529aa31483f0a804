"""Warnings where results mean little: on numbers worked by hand, and on the pages."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.report.cautions import MAX_CAUTIONS, at_chance, network_cautions, outputs_without_images, shortened
from tasks.report.concepts.results import ConceptResults
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.interpretation.cautions import interpretation_cautions
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.pages import RunFacts
from tasks.report.tracing.results import TracingResults
from tests.tasks.report.site_pages import site_of, text_of

NAN = float("nan")


@pytest.mark.parametrize(
    ("accuracy", "chance", "n", "warned"),
    [
        # chance 0.1 of 100 images: a standard error of 0.03, so up to 0.16 may be chance
        (0.10, 0.1, 100, True),
        (0.16, 0.1, 100, True),
        (0.17, 0.1, 100, False),
        (0.05, 0.1, 100, True),  # worse than chance is no better
        (0.12, 0.1, 10_000, False),  # a standard error of 0.003
        (0.50, 0.5, 400, True),
        (1.00, 1.0, 50, True),  # one class only: any answer is right
        (NAN, 0.1, 100, False),
        (0.10, NAN, 100, False),
        (0.10, 0.1, 0, False),
    ],
)
def test_a_network_at_chance_is_one_that_two_standard_errors_do_not_lift_above_the_most_frequent_class(
    accuracy: float, chance: float, n: int, *, warned: bool
) -> None:
    assert bool(at_chance("net", accuracy, chance, n)) == warned


def test_the_warning_has_both_numbers() -> None:
    assert at_chance("net", 0.103, 0.1, 1350) == (
        "net is right on 10.3 % of the 1,350 images of its evaluation; always the most frequent class would be right "
        "on 10.0 %. So its answers mean little, and all below too."
    )


def test_outputs_without_images_are_counted_and_the_key_is_named() -> None:
    said = outputs_without_images("resnet50", 1000, 10)
    assert said.startswith("resnet50 has 1,000 outputs, and the images are of 10 of them: 990 have no images")
    assert "`data.NAME.classes`" in said
    assert "1 has no images, so nothing can be said of it." in outputs_without_images("net", 11, 10)
    assert outputs_without_images("net", 10, 10) == ""
    assert outputs_without_images("net", 10, 0) == ""  # not known


def test_each_network_is_warned_of_once_and_seeds_are_named_where_there_are_several() -> None:
    rows = pd.DataFrame(
        {
            "network": ["a", "a", "b"],
            "seed": [0, 1, 0],
            "top1": [0.1, 0.9, 0.1],
            "n": 100,
            "chance": 0.1,
            "n_outputs": [20, 20, 10],
            "n_classes": 10,
        }
    )
    found = list(network_cautions(rows, "top1", "n"))
    assert [text.split(" is ")[0].split(" has ")[0] for text in found] == ["a (seed 0)", "b (seed 0)", "a"]
    assert list(network_cautions(rows.drop(columns=["chance", "n_outputs"]), "top1", "n")) == []


def test_a_page_has_a_few_warnings_and_says_how_many_more_there_are() -> None:
    texts = [f"warning {i}" for i in range(MAX_CAUTIONS + 3)]
    assert shortened(iter([*texts, *texts])) == (*texts[:MAX_CAUTIONS], "And 3 more of these warnings.")


def distances(results: InterpretationResults, phi: float, std: float, null: float) -> InterpretationResults:
    """Return results whose coresets below all data have this distance, spread and null."""
    rows = results.over_repeats
    small = rows["budget"] < 1
    changed = {
        name: rows[name].astype(float).mask(small, value)
        for name, value in (("phi_0_mean", phi), ("phi_0_std", std), ("null_0_mean", null))
    }
    return replace(results, over_repeats=rows.assign(**changed))


@pytest.mark.parametrize(
    ("phi", "std", "null", "warned"),
    [
        (1.2, 0.0, 1.2, True),
        (1.19, 0.02, 1.2, True),
        (1.17, 0.02, 1.2, False),
        (1.19, NAN, 1.2, False),
        (1.2, 0.0, 0.0, False),
    ],
)
def test_a_distance_within_its_null_is_warned_of(
    page: InterpretationResults, phi: float, std: float, null: float, *, warned: bool
) -> None:
    found = interpretation_cautions(distances(page, phi, std, null))
    assert bool(found) == warned
    if warned:
        assert found[0].startswith("small, ice: with ")
        assert f"({phi:.3f} rad, unrelated {null:.3f} rad)" in found[0]
        assert "and 2 more" in found[0]  # two selectors at three budgets, of which four are named


@pytest.mark.parametrize(
    ("what", "said"), [("features", "features are learned"), ("network", "the network is trained")]
)
def test_images_that_are_not_held_out_are_warned_of(page: InterpretationResults, what: str, said: str) -> None:
    (found,) = interpretation_cautions(replace(distances(page, 0.1, 0.0, 1.2), seen={"small": what}))
    assert found.startswith(f"small: {said} ")
    assert "so none of these is held out" in found


def test_every_page_and_the_overview_show_the_warnings(
    facts: RunFacts,
    page: InterpretationResults,
    decomposition: DecompositionResults,
    concepts: ConceptResults,
    tracing: TracingResults,
) -> None:
    at, of = {"chance": 0.5}, {"n_outputs": 1000, "n_classes": 10}
    first = (concepts.monitor["layer"] == concepts.monitor["layer"].iloc[0]).astype(int)
    bad = (
        replace(page, networks=page.networks.assign(top1=0.5, **at, **of)),
        replace(decomposition, networks=decomposition.networks.assign(a_full=0.5, **at, **of)),
        replace(
            concepts,
            accuracies=pd.DataFrame({"network": ["small"], "seed": 0, "accuracy": 0.5, "n_evaluate": 360, **at}),
            monitor=concepts.monitor.assign(interpretable=first, null_interpretable=concepts.monitor["neurons"]),
        ),
        replace(tracing, networks=tracing.networks.assign(accuracy=0.5, n_evaluate=360, explained=4, **at, **of)),
    )
    site = site_of(facts, *bad)
    for name in ("interpretation", "decomposition", "concepts", "tracing"):
        text = text_of(site, f"{name}.html")
        assert "Warning: " in text
        assert "images of its evaluation; always the most frequent class would be right on 50.0 %" in text
        assert ("990 have no images" in text) == (name != "concepts")
        assert site[f"{name}.html"].index(b'class="warning"') < site[f"{name}.html"].index(b'<nav class="toc"')
    assert re.search(
        r": 1 neuron holds a concept, and by chance alone \d+ would. More than half of the words may be chance.",
        text_of(site, "concepts.html"),
    )
    overview = text_of(site, "index.html")
    assert "always the most frequent class" in overview
    assert "990 have no images" in overview
    good = site_of(facts, page, decomposition, tracing)
    assert not any(b'class="warning"' in data for path, data in good.items() if path.endswith(".html"))


def test_examples_that_are_of_any_class_are_warned_of(facts: RunFacts, tracing: TracingResults) -> None:
    n = tracing.shares["label"].nunique()
    known = tracing.networks.assign(n_classes=n, explained=10)
    seldom = replace(tracing, networks=known, layers=tracing.layers.assign(agreement_10=1 / n))
    assert "So the examples say little about the answers." in text_of(site_of(facts, seldom), "tracing.html")
    often = replace(tracing, networks=known, layers=tracing.layers.assign(agreement_10=0.9))
    assert "say little about the answers" not in text_of(site_of(facts, often), "tracing.html")
    unknown = replace(seldom, layers=seldom.layers.assign(agreement_10=np.nan))
    assert "say little about the answers" not in text_of(site_of(facts, unknown), "tracing.html")
