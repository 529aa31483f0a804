"""Concepts pages of results with parts that are missing."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tasks.report.concepts.results import ConceptResults
from tasks.report.pages import RunFacts
from tests.tasks.report.concepts.concept_tables import invented_concepts
from tests.tasks.report.site_pages import site_of, text_of

Change = Callable[[ConceptResults], ConceptResults]


def dead(results: ConceptResults) -> ConceptResults:
    """Kill every neuron."""
    monitor = results.monitor.assign(interpretable=0, distinct=0, dead=results.monitor["neurons"], d_anchor=np.nan)
    none = {name: getattr(results, name)[:0] for name in ("categories", "common", "changes", "tau_curves")}
    concepts = results.concepts.assign(interpretable=False, similarity=0.0)
    return replace(results, monitor=monitor, concepts=concepts, plane=results.plane.assign(interpretable=False), **none)


def without_course(results: ConceptResults) -> ConceptResults:
    """Forget accuracy, loss and steps."""
    labels = [f"epoch_{snapshot}" for snapshot in results.monitor["snapshot"]]
    return replace(results, monitor=results.monitor.assign(accuracy=np.nan, loss=np.nan, step=-1, label=labels))


def without_categories(results: ConceptResults) -> ConceptResults:
    """Forget what kind each word is."""
    names = ("concepts", "categories", "common", "plane", "words")
    return replace(results, **{name: getattr(results, name).assign(category=None) for name in names})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (dead, "None of the 12 neurons holds a concept at the end of training; 12 of them are dead."),
        (without_course, " at epoch_0, "),
        (without_categories, "fewer than two snapshots have neurons with a concept of a known category"),
        (lambda r: ConceptResults(r.facts, r.monitor), "No neuron's words are in these results."),
        (lambda r: ConceptResults(r.facts, r.monitor[:0]), "No network was looked at."),
        (lambda r: replace(r, plane=r.plane.assign(x=np.nan)), "hold a concept at the end of training"),
        (lambda r: replace(r, anchors=r.anchors[:0], truth=r.truth[:0]), "The results have no checks."),
        (lambda r: replace(r, tau_curves=r.tau_curves[:0], temperatures=r.temperatures[:0]), "Neither was varied."),
    ],
)
def test_what_is_missing_is_said_or_left_out(facts: RunFacts, change: Change, expected: str) -> None:
    results = invented_concepts(layers=("conv1", "conv2"), steps=(0, 50, 100), n_neurons=6, n_pictures=1)
    assert expected in text_of(site_of(facts, change(results)), "concepts.html")


@pytest.mark.parametrize(
    ("steps", "layers", "expected"),
    [
        ((100,), ("conv1", "conv2"), "there is one snapshot only"),
        ((0, 100), ("conv1", "conv2"), "there are fewer than three snapshots"),
        ((0, 50, 100), ("fc",), "there is one layer only"),
    ],
)
def test_few_snapshots_and_layers(
    facts: RunFacts, steps: tuple[int, ...], layers: tuple[str, ...], expected: str
) -> None:
    results = invented_concepts(layers=layers, steps=steps, n_neurons=6, detectors=("cos",), n_pictures=1)
    site = site_of(facts, results)
    assert expected in text_of(site, "concepts.html")
    slider = b'type="range"' in site["concepts.html"]
    assert slider == (len(steps) > 1)


def test_accuracy_under_attack_stands_with_the_attack_and_the_snapshots(facts: RunFacts) -> None:
    results = invented_concepts(layers=("conv1", "conv2"), steps=(0, 50), n_neurons=6, n_pictures=1)
    rows = {
        "network": "small",
        "seed": 0,
        "snapshot": [0, 1],
        "clean": [0.125, 0.75],
        "robust": [0.25, 0.5],
        "images": 16,
    }
    shown = replace(
        results, attacked=pd.DataFrame(rows), facts=replace(results.facts, attack="2 attacks of 50 steps of 2/255")
    )
    text = text_of(site_of(facts, shown), "concepts.html")
    assert "Accuracy under attack An image counts as robust" in text
    assert "2 attacks of 50 steps of 2/255" in text
    assert "under attack images small 0 step 0 12.5 % 25.0 % 16 small 0 step 50 75.0 % 50.0 % 16" in text
    assert "Accuracy under attack" not in text_of(site_of(facts, results), "concepts.html")
