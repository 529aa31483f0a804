"""Tables of invented decompositions, as the steps would hand them over."""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd

from tasks.report.decomposition.results import COLUMNS, DecompositionResults, FeatureMapRow, Histogram, Overlap
from tests.tasks.report.decomposition.decomposition_features import invented_features, invented_images

Decompositions = Callable[..., DecompositionResults]


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
) -> DecompositionResults:
    """Networks given as (name, model, depth): the deeper the better, Algorithm 1 better than all but one control."""
    tables: dict[str, list[dict[str, object]]] = {name: [] for name in COLUMNS}
    histograms, overlaps, maps, images = [], [], [], []
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
        by_method = {
            "histogram": fit,
            "class-mean": fit - 0.004,
            "class-mean-minus-overall": fit + 0.012,
            "weight": 0.7,
        }
        by_method |= {
            "abs-weight": 0.61,
            "mean-times-weight": fit - 0.02,
            "histogram-and-weight": fit - 0.01,
            "random": 0.35,
        }
        for method, value in by_method.items():
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
        tables["features"] += invented_features(key, names, sets)
        images.append(invented_images(key, names, sets, size))
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
    return DecompositionResults(
        **frames,
        histograms=tuple(histograms),
        overlaps=tuple(overlaps),
        gallery=tuple(maps),
        top_images=tuple(images),
        refused=(),
    )


def invented_sets(rng: np.random.Generator, n_classes: int, d: int, k: int) -> np.ndarray:
    """Draw k different features for each class, (n_classes, k), most of them from the first quarter."""
    return np.stack([np.sort(rng.choice(max(d // 4, k) if i % 3 else d, k, replace=False)) for i in range(n_classes)])
