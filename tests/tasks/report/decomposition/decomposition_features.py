"""Invented features of classes with their most activating images, as the steps would hand them over."""

import numpy as np
import pandas as pd

from tasks.report.decomposition.results import TopImages

IMAGES = 4


def invented_features(key: dict[str, object], names: tuple[str, ...], sets: np.ndarray) -> list[dict[str, object]]:
    """List every class's features: the count falls with the rank, and the last one speaks against the class."""
    rows = []
    using: dict[int, list[str]] = {int(feature): [] for feature in np.unique(sets)}
    for name, features in zip(names, sets.tolist(), strict=True):
        for feature in features:
            using[feature].append(name)
    for label, features in enumerate(sets.tolist()):
        for rank, feature in enumerate(features):
            users = using[feature]
            row = {"label": label, "class_name": names[label], "rank": rank + 1, "feature": feature}
            row |= {"count": 5000 - 100 * rank, "share": 1 - 0.02 * rank, "n_classes": len(users)}
            row |= {"weight": 0.5 if rank + 1 < len(features) else -0.25, "classes": ", ".join(users)}
            ids = ", ".join(str(sample_id(feature, i)) for i in range(IMAGES))
            rows.append({**key, **row, "sample_ids": ids})
    return rows


def sample_id(feature: int, rank: int) -> int:
    """Return the id of the image at a rank (from 0) of a feature."""
    return 98_765_000 + 10 * feature + rank


def invented_images(
    key: dict[str, object], names: tuple[str, ...], sets: np.ndarray, size: int, *, limit: int = 8
) -> TopImages:
    """Draw a picture for each image of at most `limit` features; a feature is active in the upper left quarter."""
    rng, features = np.random.default_rng(6), np.unique(sets)[:limit].tolist()
    ranks = [(feature, i) for feature in features for i in range(IMAGES)]
    rows = pd.DataFrame(
        {
            "feature": [feature for feature, _ in ranks],
            "rank": [i + 1 for _, i in ranks],
            "sample_id": [sample_id(feature, i) for feature, i in ranks],
            "class_name": [names[feature % len(names)] for feature, _ in ranks],
            "value": [9.0 - i for _, i in ranks],
            "picture": range(len(ranks)),
            **{"top": 0.0, "left": 0.0, "bottom": 0.5, "right": 0.5},
        }
    )
    pictures = tuple(rng.integers(0, 256, (len(ranks), size, size, 3), dtype=np.uint8))
    return TopImages(str(key["network"]), 0, "train", held_out=False, rows=rows, pictures=pictures)
