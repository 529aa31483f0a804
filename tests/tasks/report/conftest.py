"""Tables of an invented run, as the steps would hand them over."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tasks.metrics.comparisons import against_random, with_budget
from tasks.metrics.summary import by_budget, over_repeats, robustness_table
from tasks.report.concepts.results import ConceptResults
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.interpretation.results import Gallery, GalleryRow, InterpretationResults
from tasks.report.pages import RunFacts
from tasks.report.tracing.results import TracingResults
from tests.tasks.report.concepts.concept_tables import invented_concepts
from tests.tasks.report.decomposition.decomposition_tables import Decompositions, invented_decomposition
from tests.tasks.report.tracing.tracing_tables import Traces, invented_tracing

Classes = Callable[..., pd.DataFrame]
Build = Callable[..., InterpretationResults]
Pictures = Callable[..., Gallery]


def invented_classes(
    names: tuple[str, ...], selectors: dict[str, int], budgets: tuple[float, ...], network: str = "small"
) -> pd.DataFrame:
    """Draw a long table: distance falls and accuracy rises with the budget; `selectors` gives repeats by name."""
    rng = np.random.default_rng(0)
    rows = []
    for (selector, n_repeats), budget, (label, name) in itertools.product(selectors.items(), budgets, enumerate(names)):
        for repeat in range(n_repeats):
            noise = rng.normal(0, 0.04, 3)
            distance = {"0": 0.9, "05": 0.6, "1": 0.4}
            row: dict[str, object] = {"network": network, "seed": 0, "interpreter": "ice", "selector": selector}
            row |= {"repeat": repeat, "budget": budget, "label": label, "class_name": name, "n_class": 140}
            row |= {"n_kept": round(140 * budget), "n_rows": round(140 * budget) * 64, "rank_reference": 6, "rank": 6}
            for suffix, scale in distance.items():
                lost = scale * (1 - budget) ** 2
                row |= {f"distance_{suffix}": abs(lost * (1 + noise[0])), f"null_{suffix}": 1.3, f"self_{suffix}": 0.0}
            accuracy = 0.96 - 0.1 * (1 - budget) ** 3 + noise[1] * 0.2 * (1 - budget)
            row |= {"accuracy": accuracy, "accuracy_top5": 0.5 + accuracy / 2, "agreement": accuracy - 0.01}
            row |= {"accuracy_plain": 0.975, "accuracy_plain_top5": 0.999, "error_fit": 0.2, "error_val": 0.25}
            row |= {"fidelity": 0.1, "seconds": 0.3 * budget + 0.05, "n_val": 36}
            rows.append(row)
    return pd.DataFrame(rows)


def invented_page(classes: pd.DataFrame, galleries: tuple[Gallery, ...] = ()) -> InterpretationResults:
    """Summarise a long table as the step does."""
    budgets = by_budget(classes)
    names = list(dict.fromkeys(classes["network"]))
    networks = pd.DataFrame(
        {
            "network": names,
            "seed": 0,
            "model": "small-cnn",
            "layer": "last-map (relu_3)",
            "top1": 0.975,
            "top5": 0.999,
            "n_val": 360,
            "n_train": 1437,
            "map_shape": "8 x 8 x 64",
        }
    )
    return InterpretationResults(
        networks,
        classes,
        budgets,
        over_repeats(budgets),
        robustness_table(budgets),
        galleries,
        against_random=against_random(classes),
        with_budget=with_budget(classes),
    )


def invented_gallery(n_rows: int, titles: tuple[str, ...], size: int = 8) -> Gallery:
    """Draw noise images; every second one is misclassified."""
    rng = np.random.default_rng(1)
    rows = tuple(
        GalleryRow(
            image=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
            sample_id=1000 + i,
            true_class=str(i),
            predicted=str(i + i % 2),
            overlays={title: rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for title in titles},
        )
        for i in range(n_rows)
    )
    return Gallery("small: features of the full data and of coresets", rows)


@pytest.fixture
def build_classes() -> Classes:
    """Give `invented_classes` to tests."""
    return invented_classes


@pytest.fixture
def build_page() -> Build:
    """Give `invented_page` to tests."""
    return invented_page


@pytest.fixture
def build_gallery() -> Pictures:
    """Give `invented_gallery` to tests."""
    return invented_gallery


@pytest.fixture(scope="session")
def facts() -> RunFacts:
    """A run of four stages with training curves."""
    stages = pd.DataFrame(
        {
            "stage": ["manifest", "training", "activations", "features", "features"],
            "key": ["a1b2c3d4e5f60718", "b2", "c3", "d4", "e5"],
            "label": ["digits", "small", "small train", "small ice random 0.1", "small ice moderate 0.1"],
            "partitions": [1, 1, 12, 10, 10],
            "seconds": [0.42, 31.5, 7.25, 200.4, 3800.0],
            "peak_mb": [180.0, 640.0, 1210.0, 512.0, np.nan],
            "reused": [True, False, False, False, False],
        }
    )
    curves = pd.DataFrame(
        {
            "network": "small",
            "seed": 0,
            "epoch": range(1, 7),
            "loss": [1.9, 0.9, 0.5, 0.31, 0.22, 0.17],
            "accuracy": [0.61, 0.86, 0.92, 0.955, 0.969, 0.975],
        }
    )
    return RunFacts(
        name="digits",
        created="2026-01-02 03:04 UTC",
        config_yaml="name: digits\nstore: lore/\n",
        store="lore/",
        versions={"python": "3.11.9", "torch": "2.9.0", "zarr": "3.1.5"},
        stages=stages,
        curves=curves,
    )


@pytest.fixture
def page() -> InterpretationResults:
    """Three classes, two selectors, four budgets, a gallery of two images."""
    classes = invented_classes(("zero", "one", "two"), {"random": 3, "moderate": 1}, (0.1, 0.2, 0.5, 1.0))
    return invented_page(classes, (invented_gallery(2, ("full data", "random 10 %")),))


@pytest.fixture
def build_tracing() -> Traces:
    """Give `invented_tracing` to tests."""
    return invented_tracing


@pytest.fixture
def tracing() -> TracingResults:
    """Three classes, three layers, three queries, the last of them misclassified."""
    return invented_tracing()


@pytest.fixture
def build_decomposition() -> Decompositions:
    """Give `invented_decomposition` to tests."""
    return invented_decomposition


@pytest.fixture
def decomposition() -> DecompositionResults:
    """Two networks of one family, three classes, everything asked for."""
    return invented_decomposition()


@pytest.fixture(scope="session")
def concepts() -> ConceptResults:
    """One network, three layers, two detectors, six snapshots, everything asked for."""
    return invented_concepts()
