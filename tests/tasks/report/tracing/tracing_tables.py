"""Tables of an invented tracing, as the steps would hand them over."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from tasks.figures.tracing.ridges import Ridges
from tasks.report.tracing.results import Query, QueryLayer, TracingResults

Traces = Callable[..., TracingResults]


def invented_tracing(
    names: tuple[str, ...] = ("zero", "one", "two"),
    layers: tuple[str, ...] = ("conv1", "conv2", "fc"),
    n_queries: int = 3,
    *,
    n_examples: int = 4,
    n_epochs: int = 6,
    size: int = 8,
) -> TracingResults:
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
    return TracingResults(networks, table, shares, rows, queries, images)


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


def invented_examples(rng: np.random.Generator, ids: list[int], names: tuple[str, ...], sign: int) -> pd.DataFrame:
    """Draw influential examples, in order of rank."""
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


def invented_shares(layers: tuple[str, ...], names: tuple[str, ...], n_epochs: int) -> pd.DataFrame:
    """Gamma that falls with the epochs, the faster the earlier the layer; odd classes take a little away at the end."""
    rows = []
    for (depth, layer), epoch, (label, name) in itertools.product(enumerate(layers), range(n_epochs), enumerate(names)):
        gamma = 0.05 * np.exp(-epoch / (1 + depth)) * (1 + label % 3) - (0.002 if label % 2 else 0)
        row = {"network": "small", "seed": 0, "layer": layer, "epoch": epoch, "label": label, "class_name": name}
        rows.append(row | {"gamma": gamma})
    return pd.DataFrame(rows)
