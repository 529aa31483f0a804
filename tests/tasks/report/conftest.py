"""Tables of an invented run, as the steps would hand them over."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tasks.figures.ridges import Ridges
from tasks.metrics.summary import by_budget, over_repeats, robustness_table
from tasks.report.pages import Gallery, GalleryRow, InterpretationPage, RunFacts
from tasks.report.pages_decomposition import COLUMNS, DecompositionPage, FeatureMapRow, Histogram, Overlap
from tasks.report.pages_tracing import Query, QueryLayer, TracingPage

Classes = Callable[..., pd.DataFrame]
Build = Callable[..., InterpretationPage]
Pictures = Callable[..., Gallery]
Traces = Callable[..., TracingPage]
Decompositions = Callable[..., DecompositionPage]


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


def invented_page(classes: pd.DataFrame, galleries: tuple[Gallery, ...] = ()) -> InterpretationPage:
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
    return InterpretationPage(networks, classes, budgets, over_repeats(budgets), robustness_table(budgets), galleries)


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
    return Gallery("small", "small: features of the full data and of coresets", rows)


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


@pytest.fixture
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
def page() -> InterpretationPage:
    """Three classes, two selectors, four budgets, a gallery of two images."""
    classes = invented_classes(("zero", "one", "two"), {"random": 3, "moderate": 1}, (0.1, 0.2, 0.5, 1.0))
    return invented_page(classes, (invented_gallery(2, ("full data", "random 10 %")),))


def invented_examples(rng: np.random.Generator, ids: list[int], names: tuple[str, ...], sign: int) -> pd.DataFrame:
    """Draw influential examples, strongest first."""
    share = sign * np.sort(rng.uniform(0.0002, 0.02, len(ids)))[::-1]
    classes = [names[i % len(names)] for i in ids]
    columns = {"sample_id": np.array(ids, np.int64), "class_name": classes, "sum": 40 * share, "share": share}
    return pd.DataFrame(columns | {"cosine_sum": rng.normal(0, 1, len(ids))})


def invented_ridges(rng: np.random.Generator, names: tuple[str, ...], predicted: int, shift: float) -> Ridges:
    """Bell curves around 0, that of the predicted class moved to the right."""
    grid = np.linspace(-1.5, 1.5, 301)
    centre, width = rng.normal(-0.05, 0.04, len(names)), rng.uniform(0.1, 0.2, len(names))
    order = [predicted, *(i for i in range(len(names)) if i != predicted)]
    centre[0] = shift
    densities = np.exp(-0.5 * ((grid - centre[:, None]) / width[:, None]) ** 2) / (width[:, None] * np.sqrt(2 * np.pi))
    probabilities = 0.9 * 0.1 ** np.arange(len(names))
    totals = rng.uniform(5, 50, len(names))
    return Ridges(grid, tuple(names[i] for i in order), probabilities, densities, totals, 0, "0.1, absolute")


def invented_query(
    number: int, names: tuple[str, ...], layers: tuple[str, ...], n_examples: int, split: str, size: int
) -> Query:
    """Draw a query with ids of its own: 100 * number and on for what adds, 50 more for what takes away."""
    rng = np.random.default_rng([2, number])
    predicted = (number + (number % 3 == 2)) % len(names)
    traced = []
    for depth, layer in enumerate(layers):
        ids = [100 * number + (len(names) if depth == 0 else 1) * i for i in range(n_examples)]
        negative = [100 * number + 50 + i for i in range(n_examples)]
        positive = invented_examples(rng, ids, names, 1)
        ridges = invented_ridges(rng, names[:10], predicted % len(names[:10]), 0.3 * depth)
        taken = invented_examples(rng, negative, names, -1)
        traced.append(QueryLayer(layer, positive, taken, ridges, 0.6 / (depth + 1), 12.5))
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    true = names[number % len(names)]
    return Query("small", 0, 7000 + number, split, true, names[predicted], 0.9, image, tuple(traced))


def invented_shares(layers: tuple[str, ...], names: tuple[str, ...], n_epochs: int) -> pd.DataFrame:
    """Gamma that falls with the epochs, the faster the earlier the layer; odd classes take a little away at the end."""
    rows = []
    for (depth, layer), epoch, (label, name) in itertools.product(enumerate(layers), range(n_epochs), enumerate(names)):
        gamma = 0.05 * np.exp(-epoch / (1 + depth)) * (1 + label % 3) - (0.002 if label % 2 else 0)
        row = {"network": "small", "seed": 0, "layer": layer, "epoch": epoch, "label": label, "class_name": name}
        rows.append(row | {"gamma": gamma})
    return pd.DataFrame(rows)


def invented_tracing(
    names: tuple[str, ...] = ("zero", "one", "two"),
    layers: tuple[str, ...] = ("conv1", "conv2", "fc"),
    n_queries: int = 3,
    *,
    n_examples: int = 4,
    n_epochs: int = 6,
    size: int = 8,
) -> TracingPage:
    """One network: later layers agree more with the class, the first holds most of its initial weights."""
    queries = tuple(invented_query(i, names, layers, n_examples, "val", size) for i in range(n_queries))
    depth = np.linspace(0, 1, len(layers))
    table = pd.DataFrame({"network": "small", "seed": 0, "layer": layers, "kind": "Conv2d", "weights": 12345})
    table = table.assign(init_share=0.8 - 0.7 * depth, decay_share=-0.05, examples_share=0.25 + 0.7 * depth)
    table = table.assign(residual_max=3.1e-7, residual_median=4e-8, agreement_1=0.2 + 0.75 * depth)
    table = table.assign(agreement_10=0.15 + 0.7 * depth, cardinality=0.9 - 0.3 * depth)
    network = {"network": "small", "seed": 0, "model": "small-cnn", "accuracy": 0.975, "loss": 0.0812, "steps": 1200}
    network |= {"layers": len(layers), "archive_bytes": 2_345_000_000, "recorder_waited_seconds": 1.25}
    networks = pd.DataFrame([network | {"explain_seconds": 75.0, "anchor": "final"}])
    blank = {"network": "small", "seed": 0, "layer": "", "spread": np.nan, "baseline": np.nan, "baseline_name": ""}
    mislabel = {"measure": "mislabel detection, AUC", "value": 0.91, "baseline": 0.953, "n": 143}
    lds = {"measure": "LDS", "value": 0.31, "spread": 0.02, "baseline": 0.62, "n": 32}
    permuted = {"measure": "randomisation check", "layer": layers[0], "value": 0.03, "n": 8, "note": "near 0 is right"}
    evaluation = [mislabel | {"baseline_name": "summed loss"}, lds | {"baseline_name": "retraining ceiling"}, permuted]
    rng = np.random.default_rng(3)
    ids = {
        int(i) for q in queries for layer in q.layers for t in (layer.positive, layer.negative) for i in t["sample_id"]
    }
    images = {("", i): rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for i in ids}
    shares = invented_shares(layers, names, n_epochs)
    rows = pd.DataFrame([blank | {"note": ""} | row for row in evaluation])
    return TracingPage(networks, table, shares, rows, queries, images)


@pytest.fixture
def build_tracing() -> Traces:
    """Give `invented_tracing` to tests."""
    return invented_tracing


@pytest.fixture
def tracing() -> TracingPage:
    """Three classes, three layers, three queries, the last of them misclassified."""
    return invented_tracing()


def invented_sets(rng: np.random.Generator, n_classes: int, d: int, k: int) -> np.ndarray:
    """Draw k different features for each class, (n_classes, k), most of them from the first quarter."""
    return np.stack([np.sort(rng.choice(max(d // 4, k) if i % 3 else d, k, replace=False)) for i in range(n_classes)])


def invented_decomposition(
    names: tuple[str, ...] = ("zero", "one", "two"),
    networks: tuple[tuple[str, str, int], ...] = (
        ("resnet20", "cifar-resnet20", 20),
        ("resnet56", "cifar-resnet56", 56),
    ),
    d: int = 64,
    *,
    k: int = 5,
    n_maps: int = 2,
    n_histograms: int = 2,
    size: int = 8,
) -> DecompositionPage:
    """Networks given as (name, model, depth): the deeper the better, Algorithm 1 better than all but one control."""
    tables: dict[str, list[dict[str, object]]] = {name: [] for name in COLUMNS}
    histograms, overlaps, maps = [], [], []
    for order, (network, model, depth) in enumerate(networks):
        rng = np.random.default_rng([4, order])
        key: dict[str, object] = {"network": network, "seed": 0}
        full, ratio = 0.91 + 0.01 * min(order, 3), 0.96 + 0.008 * min(order, 3)
        fit, sets = full * ratio, invented_sets(rng, len(names), d, k)
        about = {"model": model, "depth": depth, "n_classes": len(names), "n_outputs": len(names)}
        about |= {"n_features": d, "k1": str(k), "k2": k}
        about |= {"rank_by": "abs", "group_by": "label", "n_learn": 50_000, "n_evaluate": 10_000, "learn": "train"}
        about |= {"evaluate": "val", "a_full": full, "a_decomposed": fit, "ratio": ratio, "agreement": 0.93}
        about |= {"ties": order, "signed": False, "overlap_mean": 0.3 - 0.02 * order, "union": len(np.unique(sets))}
        about |= {"preprocessing": "of the weights", "head_share": 1.6e-5, "macs_full": len(names) * d}
        tables["networks"].append(key | about | {"macs_decomposed": len(names) * k})
        for k1, k2 in itertools.product(("1", str(k), str(2 * k), "coverage 0.9"), (1, 3, k, 2 * k)):
            first = int(k1) if k1.isdigit() else 4 * k
            value = full * (1 - 0.04 * np.exp(-(min(k2, k) / k)) - 0.02 * abs(k2 - first) / (k2 + first))
            cell = {"k1": k1, "k2": k2, "accuracy": value, "ratio": value / full, "agreement": value + 0.02}
            tables["grid"].append(key | (cell if (first, k2) != (k, k) else cell | {"accuracy": fit, "ratio": ratio}))
        ways = {"histogram": fit, "class-mean": fit - 0.004, "class-mean-minus-overall": fit + 0.012, "weight": 0.7}
        ways |= {
            "abs-weight": 0.61,
            "mean-times-weight": fit - 0.02,
            "histogram-and-weight": fit - 0.01,
            "random": 0.35,
        }
        for method, value in ways.items():
            draws, std = (20, 0.042) if method == "random" else (1, 0.0)
            row = {"method": method, "k": k, "draws": draws, "accuracy": value, "accuracy_std": std}
            tables["controls"].append(key | row | {"agreement": value, "ratio": value / full})
        for label, name in enumerate(names):
            held = 0.6 + 0.25 * rng.random()
            shares = {"l1_share": held - 0.1, "histogram_share": held + 0.1, "logit_share": held - 0.05}
            tables["coverage"].append(key | {"class_name": name, "n": 5000, "own_top_share": held} | shares)
            row = {"class_name": name, "a_full": full, "a_decomposed": fit + 0.05 * rng.normal(), "tie": label < order}
            row |= {"indices": ", ".join(map(str, sets[label])), "counts": ", ".join(["4,012"] * k)}
            tables["classes"].append(key | row)
        for n_images, found in ((1, 0.5), (10, 0.81), (100, 0.93), (1000, 0.99)):
            tables["sample_need"].append(key | {"n_images": n_images, "overlap": found, "accuracy": fit * found**0.2})
        noises = itertools.product(("standard", "zero", "feature_moments"), ("label", "predicted", "union"))
        for (noise, scope), (which, value) in itertools.product(
            noises, {"influential": 0.49, "others": 0.82, "equal-size": 0.88}.items()
        ):
            value = 0.6 if (noise, which) == ("feature_moments", "others") else value + 0.2 * (noise != "standard")
            row = {"noise": noise, "scope": scope, "which": which, "draws": 1 if noise == "zero" else 5}
            tables["ablation"].append(key | row | {"accuracy": min(value, full), "accuracy_std": 0.004})
        for (scope, gain), epoch in itertools.product((("head", 0.015), ("network", 0.03)), range(6)):
            loss = np.nan if epoch == 0 else 0.2 / epoch
            row = {"scope": scope, "epoch": epoch, "accuracy": fit + gain * (1 - 0.4**epoch), "loss": loss}
            tables["retraining"].append(key | row)
        for batch, dense, few in ((1, 0.05, 0.09), (32, 0.8, 0.16), (256, 6.1, 1.2)):
            tables["head_times"].append(key | {"batch": batch, "dense_ms": dense, "decomposed_ms": few})
        row = {"split": "train", "std_accuracy": 0.88, "csg_accuracy": 0.881, "mean_gate": 0.21, "overlap": 0.4}
        tables["gates"].append(key | row | {"a_decomposed": fit - 0.1})
        for label in range(min(n_histograms, len(names))):
            weight = rng.exponential(size=d)
            weight[sets[label]] += 6
            histograms.append(Histogram(network, 0, names[label], weight / weight.sum(), sets[label]))
        member = np.zeros((len(names), d))
        np.put_along_axis(member, sets, 1, axis=1)
        overlaps.append(Overlap(network, 0, names, member @ member.T / k))
        for i in range(n_maps):
            pictures = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(4)]
            true, predicted = names[i % len(names)], names[(i + i % 2) % len(names)]
            maps.append(FeatureMapRow(network, pictures[0], 4000 + i, "val", true, predicted, *pictures[1:]))
    frames = {name: pd.DataFrame(rows, columns=list(COLUMNS[name])) for name, rows in tables.items()}
    return DecompositionPage(
        **frames, histograms=tuple(histograms), overlaps=tuple(overlaps), gallery=tuple(maps), refused=()
    )


@pytest.fixture
def build_decomposition() -> Decompositions:
    """Give `invented_decomposition` to tests."""
    return invented_decomposition


@pytest.fixture
def decomposition() -> DecompositionPage:
    """Two networks of one family, three classes, everything asked for."""
    return invented_decomposition()
