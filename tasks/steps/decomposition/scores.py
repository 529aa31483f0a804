"""The head-scores stage: the scores of a decomposed head with one choice of features, on a split.

Stages of all choices are made together, in one pass over the features.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.decomposition import CONTROLS, HeadScores, Statistics
from tasks.engine.life import Clock, measured
from tasks.engine.step import MOST_TOGETHER, Size, Step, Work
from tasks.engine.survey import Survey
from tasks.engine.writing import write_each
from tasks.steps.common.networks import choose_device
from tasks.steps.decomposition.features import chosen_head, open_head, read_features
from tasks.steps.decomposition.histogram import read_sets
from tasks.steps.decomposition.partials import CHUNK_VALUES, chunks, count_ranges, features_read, n_ranges

if TYPE_CHECKING:
    import torch

    from tasks.decomposition.linear import DecomposedLinear

VERSION = 1
FULL, HISTOGRAM, GATES = "full", "histogram", "gates"  # names of choices besides the controls

Indices = NDArray[np.int64]


def full_spec(features: StageSpec) -> StageSpec:
    """Return the spec of the full head's scores."""
    return SCORES.spec({"method": FULL}, {"features": features}, label=f"{features.label} full")


def scores_spec(features: StageSpec, histogram: StageSpec, method: str, k: int, *, draws: int = 1) -> StageSpec:
    """Return the spec of the scores of k features per class, chosen by a method.

    Parameters
    ----------
    features : features of the scored split
    histogram : histogram of Algorithm 1, which has the means for the controls
    method : "histogram", or a name of `CONTROLS`
    draws : number of draws of a random method
    """
    kept: dict[str, Json] = {"method": method, "k": k, **({"draws": draws} if method == "random" else {})}
    inputs = {"features": features, "sets": histogram}
    return SCORES.spec(kept, inputs, label=f"{features.label} {method} k {k}")


def gates_scores_spec(features: StageSpec, gates: StageSpec, k: int) -> StageSpec:
    """Return the spec of the scores of the features with the largest class-specific gates."""
    inputs = {"features": features, "sets": gates}
    return SCORES.spec({"method": GATES, "k": k}, inputs, label=f"{features.label} gates k {k}")


def read_scores(stage: FinishedStage) -> list[HeadScores]:
    """Return the scores of each draw."""
    correct, agreeing, images = (stage.read(name).sum(axis=0) for name in ("correct", "agreeing", "images"))
    pairs = zip(correct, agreeing, strict=True)
    return [HeadScores.of_state({"correct": one, "agreeing": other, "images": images}) for one, other in pairs]


def read_statistics(store: Store, histogram: StageSpec, head: torch.nn.Linear) -> Statistics:
    """Return the statistics that the controls pick from."""
    stage = open_finished(store, histogram)
    weight = head.weight.detach().double().cpu().numpy()
    mean, overall = stage.read("mean").astype(np.float64), stage.read("overall_mean").astype(np.float64)
    return Statistics(mean, overall, weight, read_sets(store, histogram, weight.shape[1]))


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition and a row per range of positions."""
    n_classes = int(open_finished(store, spec.inputs["features"]).summary["outputs"])
    rows = n_ranges(store, spec.inputs["features"])
    draws = int(spec.parameters.get("draws", 1))

    def array(*more: int) -> ArrayLayout:
        return ArrayLayout((rows, *more), "int64", ("range", "draw", "class")[: 1 + len(more)], 1, 1)

    images = ArrayLayout((rows, n_classes), "int64", ("range", "class"), 1, 1)
    return Layout(rows, {"correct": array(draws, n_classes), "agreeing": array(draws, n_classes), "images": images})


def _choices(stage: Stage, head: torch.nn.Linear) -> Iterator[Indices]:
    """Yield the indices (C, k) of each draw."""
    spec = stage.spec
    method, sets = spec.parameters["method"], spec.inputs["sets"]
    k = int(spec.parameters["k"])
    if method == HISTOGRAM:
        yield read_sets(stage.store, sets, k)
    elif method == GATES:
        gates = open_finished(stage.store, sets)
        channels = gates.layout.arrays["gates"].shape[0]
        if channels != head.in_features:
            raise ValueError(f"gates: expected a gate for each of {head.in_features} features, found {channels}")
        yield gates.read("indices")[:, :k].astype(np.int64)
    else:
        statistics = read_statistics(stage.store, sets, head)
        for draw in range(int(spec.parameters.get("draws", 1))):
            yield CONTROLS[method](statistics, k, seed=draw)


def _partition(work: Work, number: int) -> None:
    """Score a range of positions for every choice in the work."""
    import torch

    device = choose_device(work.device)
    stages, features = work.stages, features_read(work.stage.spec)
    clock, head = Clock(), open_head(stages[0].store, features, device)
    found = {stage.spec: _tallies(stage, head) for stage in stages}
    finished = open_finished(stages[0].store, features)
    for start, stop in chunks(finished, number):
        values = torch.from_numpy(read_features(finished, start, stop)).to(device)
        full = finished.read("logits", start, stop).astype(np.float32, copy=False)
        labels = finished.read("label", start, stop).astype(np.int64)
        for tallies in found.values():
            for layer, scores in tallies:
                scores.update(full if layer is None else _logits(layer, values), full, labels)
    spent = clock.share(len(stages))

    def write(index: int, part: Partition) -> None:
        states = [scores.state() for _, scores in found[stages[index].spec]]
        part.write("correct", np.stack([state["correct"] for state in states])[None])
        part.write("agreeing", np.stack([state["agreeing"] for state in states])[None])
        part.write("images", states[0]["images"][None])
        part.numbers.update(measured(together=len(stages), **spent))

    write_each(stages, number, write)


def _tallies(stage: Stage, head: torch.nn.Linear) -> list[tuple[DecomposedLinear | None, HeadScores]]:
    """Return each draw's layer with its scores; None is the full head, which has stored logits."""
    from tasks.decomposition.linear import DecomposedLinear

    if stage.spec.parameters["method"] == FULL:
        return [(None, HeadScores(head.out_features))]
    choices = _choices(stage, head)
    return [(DecomposedLinear.from_linear(head, one).eval(), HeadScores(head.out_features)) for one in choices]


def _logits(layer: DecomposedLinear, values: torch.Tensor) -> NDArray[np.float32]:
    """Return the logits of a decomposed head."""
    import torch

    with torch.inference_mode():
        found: NDArray[np.float32] = layer(values).float().cpu().numpy()
        return found


def _summary(stage: Stage) -> dict[str, Json]:
    """Return the parameters, so that the folder can be read alone."""
    return dict(stage.spec.parameters)


def _size(spec: StageSpec, survey: Survey) -> Size:
    head, k = chosen_head(spec, survey, "k"), int(spec.parameters.get("k", 1))
    if spec.parameters["method"] == GATES and head.channels != head.features:
        raise ValueError(
            f"networks: train.gates of {spec.inputs['sets'].label}: expected a channel for each of the head's "
            f"{head.features} features, found {head.channels} channels; use a network where each feature is the mean "
            "of one channel"
        )
    draws, ranges = int(spec.parameters.get("draws", 1)), count_ranges(spec.inputs["features"], survey)
    layers = 12 * head.outputs * k * (draws + MOST_TOGETHER)  # bytes of the decomposed layers in memory at a time
    tables = 4 * 8 * head.features * head.outputs
    return Size(8 * ranges * head.outputs * (2 * draws + 1), 12 * 4 * CHUNK_VALUES + tables + layers)


SCORES = Step("head-scores", VERSION, _layout, _partition, _size, summary=_summary, group=features_read, network=True)
