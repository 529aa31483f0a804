"""The coverage stage: the share of its images that a class's few features hold."""

import numpy as np

from storage.layouts import Layout
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.decomposition import Coverage
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.steps.decomposition.features import chosen_head, open_head, read_features
from tasks.steps.decomposition.histogram import DIGITS, features_of, read_classes, read_sets
from tasks.steps.decomposition.partials import (
    CHUNK_VALUES,
    chunks,
    count_ranges,
    n_ranges,
    pack_sums,
    read_sums,
    sums_file,
)

VERSION = 2


def coverage_spec(histogram: StageSpec, k2: int) -> StageSpec:
    """Return the spec of the coverage of the k2 features of each class, on the images behind the histogram.

    If k1 is a count, the share of an image's l1 norm in its top-k1 features is measured too.
    """
    inputs = {"features": features_of(histogram), "sets": histogram}
    return COVERAGE.spec({"k2": k2}, inputs, label=f"{histogram.label} k2 {k2}")


def read_coverage(store: Store, spec: StageSpec) -> Coverage:
    """Return the coverage of a finished stage."""
    stage, found = open_finished(store, spec), _empty(store, spec)
    for number in range(stage.layout.partitions):
        found.merge(_empty(store, spec).restore(read_sums(stage, number)))
    return found


def _empty(store: Store, spec: StageSpec) -> Coverage:
    """Return the coverage before the first image."""
    import torch

    head = open_head(store, spec.inputs["features"], torch.device("cpu"))
    sets = read_sets(store, spec.inputs["sets"], int(spec.parameters["k2"]))
    k1 = spec.inputs["sets"].place["k1"]
    tops = [k1] if isinstance(k1, int) else []
    return Coverage(sets, head.weight.detach().double().numpy(), tops=tops)


def _layout(store: Store, spec: StageSpec) -> Layout:
    return Layout(n_ranges(store, spec.inputs["features"]))


def _partition(work: Work, number: int) -> None:
    """Measure the coverage on a range of positions."""
    stage, spec = work.stage, work.stage.spec
    finished, group_by = open_finished(stage.store, spec.inputs["features"]), str(spec.inputs["sets"].place["group_by"])
    with stage.partition(number) as part:
        found = _empty(stage.store, spec)
        for start, stop in chunks(finished, number):
            found.update(read_features(finished, start, stop), read_classes(finished, start, stop, group_by))
        part.write_file(sums_file(number), pack_sums(found.state()))
        part.numbers.update(measured(images=int(np.asarray(found.images)[:, 0].sum())))


def _size(spec: StageSpec, survey: Survey) -> Size:
    head = chosen_head(spec, survey, "k2")
    written = 8 * head.outputs * 3 * (DIGITS + 1) * count_ranges(spec.inputs["features"], survey)
    return Size(written, 12 * 8 * CHUNK_VALUES + 3 * 8 * head.features * head.outputs)


COVERAGE = Step("coverage", VERSION, _layout, _partition, _size)
