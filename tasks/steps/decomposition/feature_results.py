"""The features of each class for the page of question 2: a table, and the images that activate them most."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from storage.stages import open_finished
from storage.stores import Store
from tasks.report.decomposition.results import TopImages
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.plan import Decomposed

EDGES = ("top", "left", "bottom", "right")


def feature_rows(store: Store, answer: Decomposed, names: Mapping[str, str]) -> Iterator[dict[str, object]]:
    """Yield a row for each class and each of its features; none for seeds without pictures."""
    if answer.pictures is None:
        return
    spec = answer.pictures.inputs["images"]
    images, histogram = open_finished(store, spec), open_finished(store, answer.histogram)
    sets, weight = read_sets(store, answer.histogram, int(spec.parameters["k2"])), images.read("weight")
    counts, n_images = histogram.read("counts").astype(np.int64), histogram.read("images").astype(np.int64)
    present = np.flatnonzero(n_images).tolist()
    users: dict[int, list[str]] = {}
    for label in present:
        for feature in sets[label].tolist():
            users.setdefault(feature, []).append(names.get(str(label), str(label)))
    ids = dict(zip(images.read("feature").tolist(), images.read("sample_id").tolist(), strict=True))
    for label in present:
        for rank, feature in enumerate(sets[label].tolist()):
            yield {
                "label": label,
                "class_name": names.get(str(label), str(label)),
                "rank": rank + 1,
                "feature": feature,
                "count": int(counts[label, feature]),
                "share": counts[label, feature] / n_images[label],
                "weight": float(weight[label, rank]),
                "n_classes": len(users[feature]),
                "classes": ", ".join(users[feature]),
                "sample_ids": ", ".join(map(str, ids.get(feature, []))),
            }


def top_images(store: Store, answer: Decomposed, names: Mapping[str, str]) -> Iterator[TopImages]:
    """Yield the most activating images of a network's features; none for seeds without pictures."""
    if answer.pictures is None:
        return
    pictures, spec = open_finished(store, answer.pictures), answer.pictures.inputs["images"]
    images = open_finished(store, spec)
    position, box = images.read("position").astype(np.int64), pictures.read("box").reshape(-1, len(EDGES))
    labels, (n_features, count) = images.read("label").ravel().tolist(), position.shape
    rows = pd.DataFrame(
        {
            "feature": np.repeat(images.read("feature").astype(np.int64), count),
            "rank": np.tile(np.arange(1, count + 1), n_features),
            "sample_id": images.read("sample_id").ravel(),
            "class_name": [names.get(str(label), str(label)) for label in labels],
            "value": images.read("value").ravel(),
            "picture": np.searchsorted(pictures.read("position"), position.ravel()),
            **dict(zip(EDGES, box.T, strict=True)),
        }
    )
    yield TopImages(
        network=answer.network,
        seed=answer.seed,
        split=str(spec.inputs["features"].parameters["split"]),
        held_out=answer.held_out,
        rows=rows,
        pictures=tuple(pictures.read("picture").astype(np.uint8)),
    )
