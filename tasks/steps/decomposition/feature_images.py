"""The `feature-images` stage: the images of a split that activate each influential feature most.

It also holds the weights of each class's features in the head, so that the report need not open the network.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.decomposition.most_activating import MostActivating, features_in_use
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.common.activations import ranges_by_class
from tasks.steps.decomposition.features import chosen_head, open_head, read_features
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.partials import CHUNK_VALUES, chunks, n_ranges

VERSION = 1
IMAGES = 4  # of each feature
FEATURES = 256  # with images, at most
BLOCK = 20  # classes that the page shows at a time: their features come before those of later classes

Ids = NDArray[np.int64]


def feature_images_spec(features: StageSpec, histogram: StageSpec, k2: int) -> StageSpec:
    """Return the spec of the most activating images of the features in the sets of all classes.

    Parameters
    ----------
    features : penultimate features of the split that the images come from
    histogram : where the sets come from
    k2 : features in the set of a class
    """
    return FEATURE_IMAGES.spec({"k2": k2}, {"features": features, "sets": histogram}, label=features.label)


def _used(store: Store, spec: StageSpec) -> Ids:
    """Return the features in the sets of the classes that have images."""
    images = open_finished(store, spec.inputs["sets"]).read("images").astype(np.int64)
    return features_in_use(_sets(store, spec)[images > 0], BLOCK)


def _sets(store: Store, spec: StageSpec) -> Ids:
    """Return the features of every class, (C, k2)."""
    return read_sets(store, spec.inputs["sets"], int(spec.parameters["k2"]))


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition, since the arrays are small."""
    n_features = min(len(_used(store, spec)), FEATURES)
    count = _count(store, spec.inputs["features"])

    def array(shape: tuple[int, ...], dtype: str, *axes: str) -> ArrayLayout:
        return ArrayLayout((n_features, *shape), dtype, ("feature", *axes), n_features, n_features)

    arrays = {name: array((count,), "int64", "rank") for name in ("position", "sample_id", "label")}
    arrays |= {"value": array((count,), "float32", "rank"), "feature": array((), "int64")}
    sets = _sets(store, spec).shape
    return Layout(1, {**arrays, "weight": ArrayLayout(sets, "float32", ("class", "rank"), sets[0], sets[0])})


def _partition(work: Work, number: int) -> None:
    """Read the features chunk by chunk and keep the images with the largest values."""
    import torch

    stage, spec, store = work.stage, work.stage.spec, work.stage.store
    finished, shown = open_finished(store, spec.inputs["features"]), _used(store, spec)[:FEATURES]
    with stage.partition(number) as part:
        found = most_activating(store, spec, shown)
        ids, labels = finished.read("sample_id").astype(np.int64), _labels(ranges_by_class(finished))
        head = open_head(store, spec.inputs["features"], torch.device("cpu"))
        weight = head.weight.detach().float().numpy()
        part.write("weight", np.take_along_axis(weight, _sets(store, spec), axis=1))
        part.write("feature", shown)
        part.write("position", found.positions)
        part.write("value", found.values)
        part.write("sample_id", ids[found.positions])
        part.write("label", labels[found.positions])
        part.numbers.update(measured(features=len(shown)))


def most_activating(store: Store, spec: StageSpec, shown: Ids) -> MostActivating:
    """Return the images with the largest values of the features `shown`; of |x| where sets are ranked by it."""
    features, by_size = spec.inputs["features"], spec.inputs["sets"].place["rank_by"] == "abs"
    finished = open_finished(store, features)
    found = MostActivating.empty(len(shown), _count(store, features))
    for index in range(n_ranges(store, features)):
        for start, stop in chunks(finished, index):
            values = read_features(finished, start, stop)[:, shown]
            found.update(start, np.abs(values) if by_size else values)
    return found


def _count(store: Store, features: StageSpec) -> int:
    """Return the number of images of each feature."""
    return min(IMAGES, int(open_finished(store, features).summary["samples"]))


def _labels(class_ranges: dict[int, tuple[int, int]]) -> Ids:
    """Return the label of each position."""
    return np.concatenate([np.full(stop - start, label, np.int64) for label, (start, stop) in class_ranges.items()])


def _summary(stage: Stage) -> Document:
    """Return the number of features in the sets, whether they have images here or not."""
    return {"in_use": len(_used(stage.store, stage.spec))}


def n_most(spec: StageSpec, survey: Survey) -> int:
    """Return a bound on the number of features with images."""
    head, k2 = chosen_head(spec, survey, "k2"), int(spec.parameters["k2"])
    return min(FEATURES, head.features, k2 * head.outputs)


def _size(spec: StageSpec, survey: Survey) -> Size:
    features = spec.inputs["features"]
    n, head = survey.data(features.inputs["data"]).count(features.parameters["split"]), chosen_head(spec, survey, "k2")
    written = n_most(spec, survey) * (8 + IMAGES * 28) + 4 * head.outputs * int(spec.parameters["k2"])
    return Size(written, 16 * CHUNK_VALUES + 16 * n + 8 * head.outputs * head.features)


FEATURE_IMAGES = Step("feature-images", VERSION, _layout, _partition, _size, summary=_summary)
