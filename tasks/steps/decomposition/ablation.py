"""The ablation stage: the full head's accuracy with noise in place of features, over all classes (Table 8).

Stages of several noises and scopes are made together, from the same draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, get_args

import numpy as np
from numpy.typing import NDArray

from storage.documents import Json
from storage.layouts import ArrayLayout, Layout
from storage.partitions import Partition
from storage.specs import StageSpec
from storage.stages import FinishedStage, Stage, open_finished
from storage.stores import Store
from tasks.decomposition import NOISES, FeatureMoments, choose_replaced, classes_of_scope, draw_normals, perturb
from tasks.decomposition.ablation import Which
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

VERSION = 2

Masks = NDArray[np.bool_]
Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

WHICHES: tuple[Which, ...] = get_args(Which)  # order of the array's axis


def ablation_spec(
    features: StageSpec, histogram: StageSpec, k2: int, *, noise: str, scope: str, draws: int
) -> StageSpec:
    """Return the spec of the full head's accuracy with noise in the influential, in other, and in all other features.

    Parameters
    ----------
    features : features of the perturbed split
    histogram : gives the sets of k2 features, and the moments of a noise
    """
    kept: dict[str, Json] = {"k2": k2, "noise": noise, "scope": scope, "draws": draws}
    inputs = {"features": features, "sets": histogram}
    return ABLATION.spec(kept, inputs, label=f"{features.label} {noise} {scope}")


def read_accuracies(stage: FinishedStage) -> dict[str, NDArray[np.float64]]:
    """Return the accuracy of each draw, by the features that noise replaced."""
    correct, images = stage.read("correct").sum(axis=0), stage.read("images").sum()
    return {which: correct[index] / images for index, which in enumerate(WHICHES)}


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: a partition and a row per range of positions."""
    rows, draws = n_ranges(store, spec.inputs["features"]), int(spec.parameters["draws"])
    correct = ArrayLayout((rows, len(WHICHES), draws), "int64", ("range", "which", "draw"), 1, 1)
    return Layout(rows, {"correct": correct, "images": ArrayLayout((rows,), "int64", ("range",), 1, 1)})


def _partition(work: Work, number: int) -> None:
    """Perturb a range of positions for every stage in the work."""
    device = choose_device(work.device)
    stages, features = work.stages, features_read(work.stage.spec)
    clock, head = Clock(), open_head(stages[0].store, features, device)
    finished = open_finished(stages[0].store, features)
    counts = {stage.spec: np.zeros(stage.layout.arrays["correct"].shape[1:], np.int64) for stage in stages}
    for draw in range(max(int(stage.spec.parameters["draws"]) for stage in stages)):
        ablations = [_Ablation.of(stage, draw) for stage in stages if draw < int(stage.spec.parameters["draws"])]
        for start, stop in chunks(finished, number):
            chunk = _Chunk.of(finished, start, stop)
            normals = draw_normals(chunk.ids, chunk.values.shape[1], seed=0, draw=draw)
            for ablation in ablations:
                for index, changed in enumerate(ablation.perturbed(chunk, normals)):
                    counts[ablation.spec][index, draw] += int((_logits(head, changed).argmax(1) == chunk.labels).sum())
    images = sum(stop - start for start, stop in chunks(finished, number))
    spent = clock.share(len(stages))

    def write(index: int, part: Partition) -> None:
        part.write("correct", counts[stages[index].spec][None])
        part.write("images", np.array([images], np.int64))
        part.numbers.update(measured(together=len(stages), **spent))

    write_each(stages, number, write)


@dataclass(frozen=True)
class _Chunk:
    """Some images: features (n, d), ids, labels and predictions of the full head (n,)."""

    values: Floats
    ids: Ids
    labels: Ids
    predicted: Ids

    @classmethod
    def of(cls, stage: FinishedStage, start: int, stop: int) -> Self:
        """Read the images of a range of positions."""
        ids, labels = (stage.read(name, start, stop).astype(np.int64) for name in ("sample_id", "label"))
        return cls(read_features(stage, start, stop), ids, labels, stage.read("logits", start, stop).argmax(1))


@dataclass(frozen=True)
class _Ablation:
    """One noise and scope: the features that a draw replaces, a mask (C, d) for each of `WHICHES`."""

    spec: StageSpec
    replaced: tuple[Masks, ...]
    moments: FeatureMoments

    @classmethod
    def of(cls, stage: Stage, draw: int) -> Self:
        """Return the noise and masks of a stage in a draw."""
        spec, sets = stage.spec, read_sets(stage.store, stage.spec.inputs["sets"], int(stage.spec.parameters["k2"]))
        moments = _moments(stage)
        d, scope = len(moments.mean), spec.parameters["scope"]
        there = open_finished(stage.store, spec.inputs["sets"]).read("images").astype(np.int64) > 0
        masks = (choose_replaced(sets, d, kind, scope=scope, present=there, seed=0, draw=draw) for kind in WHICHES)
        return cls(spec, tuple(masks), moments)

    def perturbed(self, chunk: _Chunk, normals: Doubles) -> Iterator[Floats]:
        """Yield the features (n, d) with noise in place of some of them."""
        noise = NOISES[self.spec.parameters["noise"]](normals, self.moments)
        classes = classes_of_scope(self.spec.parameters["scope"], chunk.labels, chunk.predicted)
        for replaced in self.replaced:
            yield perturb(chunk.values, classes, replaced, noise)


def _moments(stage: Stage) -> FeatureMoments:
    """Return mean and deviation of each feature over the images behind the sets."""
    histogram = open_finished(stage.store, stage.spec.inputs["sets"])
    mean, std = (histogram.read(f"overall_{name}").astype(np.float64) for name in ("mean", "std"))
    return FeatureMoments(mean, std)


def _logits(head: torch.nn.Linear, values: Floats) -> NDArray[np.float32]:
    """Return the logits of the full head."""
    import torch

    with torch.inference_mode():
        found: NDArray[np.float32] = head(torch.from_numpy(values).to(head.weight)).float().cpu().numpy()
        return found


def _size(spec: StageSpec, survey: Survey) -> Size:
    head = chosen_head(spec, survey, "k2")
    written = 8 * 3 * int(spec.parameters["draws"]) * count_ranges(spec.inputs["features"], survey)
    masks = (3 * MOST_TOGETHER + 8) * head.features * head.outputs
    return Size(written, 8 * 8 * CHUNK_VALUES + masks)


ABLATION = Step("ablation", VERSION, _layout, _partition, _size, group=features_read, network=True)
