"""The `strongest` and `histogram` stages: Algorithm 1 over stored features, by ranges and then summed.

All histograms of one ranking are made together, in one pass over the features.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.partitions import Partition
from storage.specs import StageSpec, without_defaults
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.decomposition.histogram import Cell, FeatureHistogram
from tasks.decomposition.influential import pick_sets
from tasks.engine.life import Clock, measured
from tasks.engine.step import MOST_TOGETHER, Size, Step, Work
from tasks.engine.survey import Survey
from tasks.engine.writing import write_each
from tasks.steps.common.activations import ranges_by_class
from tasks.steps.decomposition.features import head_shapes, open_head, read_features
from tasks.steps.decomposition.partials import (
    CHUNK_VALUES,
    chunks,
    count_ranges,
    features_read,
    n_ranges,
    pack_sums,
    read_sums,
    sums_file,
)

VERSION = 2  # of the first images of each class, also the sums are of these alone
DIGITS = 8  # largest number of 64-bit arrays in one exact sum
DEFAULTS: Document = {"limit": None, "rank_by": "abs", "group_by": "label"}

Ids = NDArray[np.int64]


def histogram_spec(
    features: StageSpec, k1: int | float, *, limit: int | None = None, rank_by: str = "abs", group_by: str = "label"
) -> StageSpec:
    """Return the spec of the histogram: how often each feature is in the top-k1 of a class's images.

    Parameters
    ----------
    features : spec of a penultimate stage
    k1 : features counted per image; a float is the share of its l1 norm that they hold
    limit : number of images per class, the first ones; None for all
    """
    settings: Document = {"limit": limit, "rank_by": rank_by, "group_by": group_by}
    kept: Document = {"k1": k1, **without_defaults(settings, DEFAULTS)}
    counted = f"k1 {k1:g}" + ("" if limit is None else f" of {limit} images")
    label = f"{features.label} {counted}"
    place = {"k1": k1, **settings}
    strongest = STRONGEST.spec(kept, {"features": features}, place=place, label=label)
    return HISTOGRAM.spec({}, {"strongest": strongest}, place=place, label=label)


def features_of(histogram: StageSpec) -> StageSpec:
    """Return the spec of the features behind a histogram."""
    return histogram.inputs["strongest"].inputs["features"]


def read_sets(store: Store, histogram: StageSpec, k2: int) -> Ids:
    """Return the k2 influential features of each class, (C, k2) int64, most frequent first."""
    order: Ids = open_finished(store, histogram).read("order")[:, :k2].astype(np.int64)
    return order


def _cell(spec: StageSpec) -> Cell:
    """Return the setting of the count of a `strongest` stage."""
    return Cell(spec.parameters["k1"])


def _ranges(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition per range of positions, with files only."""
    return Layout(n_ranges(store, spec.inputs["features"]))


def _ranking(spec: StageSpec) -> Hashable:
    """Return the parameters that decide on the images, the top features of each and its class."""
    return features_read(spec), spec.place["limit"], spec.place["rank_by"], spec.place["group_by"]


def _count(work: Work, number: int) -> None:
    """Count a range of positions for every stage in the work."""
    clock, found = Clock(), _histogram(work.stages, number)
    state, spent = found.state(), clock.share(len(work.stages))

    def write(index: int, part: Partition) -> None:
        part.write_file(sums_file(number), pack_sums({**state, "counts": state["counts"][index : index + 1]}))
        part.numbers.update(measured(images=int(found.images.sum()), signed=found.signed, **spent))

    write_each(work.stages, number, write)


def _histogram(stages: Sequence[Stage], number: int) -> FeatureHistogram:
    """Return the histogram of a range of positions, a cell per stage; all stages have one ranking."""
    import torch

    store, place, features = stages[0].store, stages[0].spec.place, features_read(stages[0].spec)
    finished = open_finished(store, features)
    head = open_head(store, features, torch.device("cpu"))
    found = FeatureHistogram(
        head.out_features,
        head.in_features,
        [_cell(stage.spec) for stage in stages],
        rank_by=place["rank_by"],
        weight=head.weight.detach().double().numpy() if place["rank_by"] == "contribution" else None,
    )
    within = np.concatenate([np.arange(b - a) for a, b in ranges_by_class(finished).values()])
    counted = np.full(len(within), True) if place["limit"] is None else within < place["limit"]
    for start, stop in chunks(finished, number):
        if (rows := counted[start:stop]).any():
            classes = read_classes(finished, start, stop, str(place["group_by"]))
            found.update(read_features(finished, start, stop)[rows], classes[rows])
    return found


def read_classes(features: FinishedStage, start: int, stop: int, group_by: str) -> Ids:
    """Return the class (n,) of each sample in the count: its label, or the network's prediction."""
    if group_by == "prediction":
        found: Ids = features.read("logits", start, stop).argmax(1)
        return found
    return features.read("label", start, stop).astype(np.int64)


def _whole(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: one partition, since all sums fit in memory."""
    features = open_finished(store, features_of(spec))
    n_classes, d = int(features.summary["outputs"]), int(features.summary["features"])

    def array(shape: tuple[int, ...], dtype: str, *axes: str) -> ArrayLayout:
        return ArrayLayout(shape, dtype, axes, shape[0], shape[0])

    arrays = {name: array((n_classes, d), "int64", "class", "feature") for name in ("counts", "order")}
    arrays |= {name: array((n_classes, d), "float64", "class", "feature") for name in ("absolute", "mean")}
    arrays |= {name: array((d,), "float64", "feature") for name in ("overall_mean", "overall_std")}
    return Layout(1, {**arrays, "images": array((n_classes,), "int64", "class")})


def _add(work: Work, number: int) -> None:
    """Sum the ranges, and order each class's features."""
    stage, spec = work.stage, work.stage.spec.inputs["strongest"]
    strongest = open_finished(stage.store, spec)
    with stage.partition(number) as part:
        total = FeatureHistogram.of_state([_cell(spec)], read_sums(strongest, 0))
        for index in range(1, strongest.layout.partitions):
            total.merge(FeatureHistogram.of_state([_cell(spec)], read_sums(strongest, index)))
        counts, absolute, moments = total.counts[0], total.absolute_sums(), total.moments()
        part.write("counts", counts)
        part.write("order", pick_sets(counts, absolute, counts.shape[1])[0])
        part.write("absolute", absolute)
        part.write("mean", total.class_means())
        part.write("overall_mean", moments.mean)
        part.write("overall_std", moments.std)
        part.write("images", total.images)
        part.numbers.update(measured(signed=total.signed))


def _summary(stage: Stage) -> dict[str, Json]:
    """Return whether some feature is negative."""
    record = stage.marker(0)
    assert record is not None
    return {"signed": record["numbers"]["signed"]}


def _size_of_ranges(spec: StageSpec, survey: Survey) -> Size:
    features = spec.inputs["features"]
    head, k1 = head_shapes(features, survey), spec.parameters["k1"]
    if isinstance(k1, int) and k1 > head.features:
        raise ValueError(
            f"decomposition.k1: expected at most the {head.features} features of {features.label}, found {k1}"
        )
    labels = survey.data(features.inputs["data"]).split(features.parameters["split"])["labels"]
    one = (
        8 * head.features * min(head.outputs, len(labels)) * (DIGITS + 1)
    )  # other classes are zeros, which compress well
    table = 8 * head.features * head.outputs
    written = one + count_ranges(features, survey) * table // 100
    return Size(written, 12 * 8 * CHUNK_VALUES + table * (MOST_TOGETHER + 3 * DIGITS))


def _size_of_whole(spec: StageSpec, survey: Survey) -> Size:
    head = head_shapes(features_of(spec), survey)
    table = 8 * head.features * head.outputs
    return Size(4 * table, table * (8 + 4 * DIGITS))


STRONGEST = Step("strongest", VERSION, _ranges, _count, _size_of_ranges, group=_ranking)
HISTOGRAM = Step("histogram", VERSION, _whole, _add, _size_of_whole, summary=_summary)
