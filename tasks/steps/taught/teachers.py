"""The neuron-teachers stage: the training images and classes that taught the neurons of a layer, over the training.

Gamma of each neuron's unit is summed over its images and divided by the sum of its squared preactivations, so that
initial weights, decay and examples together give 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from configs.concepts import Teaching
from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.figures.overlay import THUMBNAIL, shrink
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.pictures import shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.concepts.plan import Monitored
from tasks.steps.concepts.taught import CLASSES_FILE, EXAMPLES_FILE, NEURONS_FILE, OTHERS
from tasks.steps.taught.projected import with_units
from tasks.steps.tracing.series import Contributions, window_of, window_parameters

VERSION = 1
SHOWN_CLASSES = 10  # of each neuron, those with the largest contributions; the rest is one row
SUM_BYTES = 64 * 2**20  # bytes of sums in memory; more examples read the contributions again

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]


def neuron_teachers_spec(answer: Monitored, contributions: StageSpec, asked: Teaching, traced: Tracing) -> StageSpec:
    """Return the spec of what taught the neurons of a layer.

    Parameters
    ----------
    answer : of question 3, for its snapshots, at which the training is divided
    """
    training = contributions.inputs["network"]
    own = [each.stage for each in answer.snapshots if each.stage is not None]
    divided = [spec for spec in own if spec.inputs.get("training") == training]
    inputs = {"contributions": contributions}
    inputs |= {f"snapshot {index}": spec for index, spec in enumerate(divided)}
    parameters = {"examples": asked.examples, **window_parameters(traced)}
    return NEURON_TEACHERS.spec(
        parameters, inputs, place={"layer": contributions.parameters["layer"]}, label=contributions.label
    )


def _layout(store: Store, spec: StageSpec) -> Layout:
    """Return the layout: pictures of the training images, each once; `sample_id` is -1 after the last."""
    found = _Taught(store, spec)
    n = min(len(found.rows), 2 * len(found.names) * int(spec.parameters["examples"]))
    if not n:
        return Layout(1)
    size = found.pictures(found.rows["id"].to_numpy(np.int64)[:1]).shape[1:]
    arrays = {
        "sample_id": ArrayLayout((n,), "int64", ("image",), n, n),
        "image": ArrayLayout((n, *size), "uint8", ("image", "row", "column", "colour"), n, n),
    }
    return Layout(1, arrays)


class _Taught:
    """The sums of a layer's neurons over examples, and over classes by part of the training.

    Attributes
    ----------
    names : of the neurons' units
    rows : the training examples, as in the manifest
    """

    def __init__(self, store: Store, spec: StageSpec) -> None:
        self.store, self.spec = store, spec
        self.stage = open_finished(store, spec.inputs["contributions"])
        self.summary = self.stage.summary
        operation = self.summary["operation"]
        self.names = [f"{operation}:{neuron}" for neuron in self.summary["neurons"]]
        self.training = spec.inputs["contributions"].inputs["network"]
        split = training_of(self.training).split
        self.rows = positions(store, self.training.inputs["data"].path, split)

    def pictures(self, ids: Ids) -> NDArray[np.uint8]:
        """Return small pictures of training images, (n, h, w, 3)."""
        places = pd.Series(np.arange(len(self.rows)), index=self.rows["id"])
        split = training_of(self.training).split
        inputs = read_positions(self.store, self.training, split, places.loc[ids.tolist()].to_numpy(np.int64))
        shown = shown_images(inputs, preprocessing_of(self.training.parameters["network"]))
        return np.stack([shrink(image, THUMBNAIL) for image in shown])

    def tables(self) -> dict[str, pd.DataFrame]:
        """Return the tables by the names of their files; without neurons they do not have columns."""
        made: dict[str, list[pd.DataFrame]] = {name: [] for name in (NEURONS_FILE, EXAMPLES_FILE, CLASSES_FILE)}
        if not self.names:
            return {name: pd.DataFrame() for name in made}
        contributions = with_units(self.spec.inputs["contributions"], self.names)
        found = Contributions(self.store, contributions, window_of(self.spec), self.stage)
        edges = self._edges(found)
        for name, neuron in zip(self.names, self.summary["neurons"], strict=True):
            tables = self._neuron(found, name, edges)
            for file, table in zip(made, tables, strict=True):
                table.insert(0, "neuron", neuron)
                made[file].append(table)
        return {name: pd.concat(tables, ignore_index=True) for name, tables in made.items()}

    def _edges(self, found: Contributions) -> Ids:
        """Return the first steps of the parts of the training, and the number of steps.

        A part ends with an epoch, or where a snapshot is taken.
        """
        epochs = found.source.ledger["epoch"].to_numpy(np.int64)
        starts = np.flatnonzero(np.diff(epochs)) + 1
        taken = [
            int(open_finished(self.store, spec).summary["step"])
            for role, spec in self.spec.inputs.items()
            if role.startswith("snapshot")
        ]
        inside = {step for step in (*starts.tolist(), *taken) if 0 < step < found.steps}
        return np.array([0, *sorted(inside), found.steps], np.int64)

    def _neuron(self, found: Contributions, name: str, edges: Ids) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return the tables of a neuron: what made it, its examples, and its classes by part of the training."""
        init, square = found.whole(name, "gamma")
        whole = float(square.sum()) or np.nan
        decay = unrecorded = 0.0
        for steps, values, decayed in found.chunks(name):
            decay += float(decayed.sum())
            unrecorded += float(values[~found.recorded[steps]].sum())
        parts = {"init": float(init.sum()), "decay": decay, "unrecorded": unrecorded}
        facts = {
            "square": float(square.sum()),
            "images": len(square),
            **{key: value / whole for key, value in parts.items()},
        }
        own = pd.DataFrame([facts | {"outside": self._outside(found, name) / whole}])
        return own, self._examples(found, name, whole), self._classes(found, name, whole, edges)

    def _outside(self, found: Contributions, name: str) -> float:
        """Return what recorded steps without credit contributed: those outside the window."""
        return sum(
            float(values[found.recorded[steps] & ~found.counted[steps]].sum())
            for steps, values, _ in found.chunks(name)
        )

    def _examples(self, found: Contributions, name: str, whole: float) -> pd.DataFrame:
        """Return the examples at both ends: those that taught most, and those that pushed against it."""
        count = int(self.spec.parameters["examples"])
        labels = self.rows.set_index("id")
        tables = []
        size = max(count, SUM_BYTES // (8 * found.n_queries))
        for start in range(0, len(found.examples), size):
            sums = found.sums(found.examples[start : start + size], name, "gamma")
            tables.append(pd.DataFrame({"sample_id": sums.ids, "gamma": sums.sums.sum(axis=1)}))
        ranked = pd.concat(tables, ignore_index=True).sort_values(
            ["gamma", "sample_id"], ascending=[False, True], kind="stable"
        )
        ends = []
        for end, rows in (("for", ranked[ranked["gamma"] > 0]), ("against", ranked[ranked["gamma"] < 0][::-1])):
            chosen = rows.head(count).reset_index(drop=True)
            ends.append(chosen.assign(end=end, rank=np.arange(len(chosen))))
        table = pd.concat(ends, ignore_index=True)
        of = labels.loc[table["sample_id"].tolist()]
        return table.assign(
            key=of["key"].astype(str).to_numpy(),
            label=of["label_given"].to_numpy(np.int64),
            share=table["gamma"] / whole,
        )[["end", "rank", "sample_id", "key", "label", "gamma", "share"]]

    def _classes(self, found: Contributions, name: str, whole: float, edges: Ids) -> pd.DataFrame:
        """Return the contributions of each class in each part of the training."""
        classes, label_of = np.unique(self.rows["label_given"].to_numpy(np.int64), return_inverse=True)
        order = np.argsort(self.rows["id"].to_numpy(np.int64), kind="stable")
        ids, index = self.rows["id"].to_numpy(np.int64)[order], label_of[order]
        sums = np.zeros((len(edges) - 1, len(classes)))
        for steps, values, members in found.credits(name, "gamma"):
            part = np.searchsorted(edges, steps, side="right") - 1
            for at, value, given in zip(part.tolist(), values.sum(axis=1).tolist(), members, strict=True):
                np.add.at(sums[at], index[np.searchsorted(ids, given)], value / max(1, len(given)))
        return self._listed(found, classes, sums / whole, edges)

    def _listed(self, found: Contributions, classes: Ids, sums: Doubles, edges: Ids) -> pd.DataFrame:
        """Return a row for each part of the training and class; classes with little are one row together."""
        most = np.argsort(-np.abs(sums).sum(axis=0), kind="stable")
        kept = np.sort(most[:SHOWN_CLASSES])
        rest = np.setdiff1d(np.arange(len(classes)), kept)
        columns, labels = sums[:, kept], classes[kept].tolist()
        if len(rest):
            columns, labels = np.column_stack([columns, sums[:, rest].sum(axis=1)]), [*labels, OTHERS]
        n, epochs = len(labels), found.source.ledger["epoch"].to_numpy(np.int64)
        return pd.DataFrame(
            {
                "start": np.repeat(edges[:-1], n),
                "end": np.repeat(edges[1:], n),
                "epoch": np.repeat(epochs[edges[1:] - 1] + 1, n),
                "label": np.tile(labels, len(edges) - 1),
                "share": columns.ravel(),
            }
        )


def _partition(work: Work, number: int) -> None:
    """Sum over examples, classes and parts of the training."""
    stage = work.stage
    found = _Taught(stage.store, stage.spec)
    with stage.partition(number) as part:
        tables = found.tables()
        if stage.layout.arrays:
            layout = stage.layout.arrays["image"]
            ids, images = np.full(layout.shape[0], OTHERS, np.int64), np.zeros(layout.shape, np.uint8)
            shown = np.unique(tables[EXAMPLES_FILE]["sample_id"].to_numpy(np.int64))
            if len(shown):
                ids[: len(shown)], images[: len(shown)] = shown, found.pictures(shown)
            part.write("sample_id", ids)
            part.write("image", images)
        for name, table in tables.items():
            part.write_file(name, table_bytes(table))
        part.numbers.update(measured(neurons=len(found.names)))


def _summary(stage: Stage) -> Document:
    """Return the names of the classes, and what is to be said of the layer."""
    contributions = stage.spec.inputs["contributions"]
    summary: Mapping[str, object] = open_finished(stage.store, contributions).summary
    training = contributions.inputs["network"]
    names = open_finished(stage.store, training.inputs["data"]).summary["class_names"]
    kept: Sequence[str] = ("operation", "left_out", "why")
    return {**{key: summary[key] for key in kept}, "class_names": names, "layer": stage.spec.place["layer"]}


def _size(spec: StageSpec, survey: Survey) -> Size:
    contributions = spec.inputs["contributions"]
    training = contributions.inputs["network"]
    train, neurons = training_of(training), int(contributions.parameters["neurons"])
    images = 2 * neurons * int(spec.parameters["examples"])
    labels = len(survey.data(training.inputs["data"]).split(train.split)["labels"])
    written = images * 3 * THUMBNAIL**2 + 64 * neurons * train.epochs * min(labels, SHOWN_CLASSES + 1)
    rows = 32 * int(contributions.parameters["images"]) * train.checkpoint_every * train.batches.most
    return Size(written, 4 * SUM_BYTES + rows + MEMORY_SAMPLES + 8 * written)


NEURON_TEACHERS = Step("neuron-teachers", VERSION, _layout, _partition, _size, summary=_summary)
