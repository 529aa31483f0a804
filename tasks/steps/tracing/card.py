"""The part of question 4 in a card of one image: who taught the network its answer, and when.

A query of the run is read from its stages. For another image the archive is read once, for one layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import pandas as pd

from storage.stages import open_finished
from tasks.report.cards.results import Taught
from tasks.report.tracing.scores import VALID, VALIDITY
from tasks.steps.common.networks import choose_device, load_network
from tasks.steps.common.subject import Look, class_names_of
from tasks.steps.tracing.explain import Influence, class_name, keys_of, read_influence, shares_of
from tasks.steps.tracing.influence import GRID, ridge_arrays, single_class
from tasks.steps.tracing.layers import unit_of
from tasks.steps.tracing.ondemand import Followed, from_archive, influence_now
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.projection import contributions_spec
from tasks.steps.tracing.scores import COUNTERFACTUAL_SCORE
from tasks.steps.tracing.shown import ridges_of, training_images
from tasks.steps.tracing.subjects import read_suspects
from tasks.steps.tracing.whole import WholeScores

COLUMNS = ["score", "end", "rank", "sample_id", "key", "class_name", "sum", "share"]
SCORES = ("gamma", "logit")  # of one layer


def tracing_card(look: Look, trace: Trace) -> Taught:
    """Return the training images that taught a network its answer to an image, as far as the report may show them."""
    found = _Found(look, trace)
    read, names, number = found.read, found.names, found.number
    index = read.summary["layers"].index(found.layer)
    ridges = ridges_of(read, names, index, number, look.subject.chances)
    examples, allowed = _examples(found), look.training_images
    ids = sorted(set(examples["sample_id"].tolist())) if allowed == "show" else []
    return Taught(
        layer=found.layer,
        output=found.layer == found.output,
        examples=_marked(found, examples) if allowed != "none" else _marked(found, examples.iloc[:0]),
        classes=_of_layer(read.classes(names, number), found.layer)[["class_name", "sum", "share"]],
        course=_course(found, index),
        parts=_parts(read, number, index),
        ridges=ridges,
        images=training_images(look.store, trace, ids),
        query=found.query,
        steps=int(read.summary["steps"]),
        n_suspects=trace.n_suspects if trace.suspects is not None else 0,
        missing=_missing(found),
        rough=_rough(found),
    )


@dataclass(frozen=True)
class _Found:
    """An image among the queries of a network, or on its own."""

    look: Look
    trace: Trace

    @cached_property
    def query(self) -> int | None:
        """The image's number among the run's queries, None where it is not one."""
        sample = self.look.subject.is_of(self.trace.queries.inputs["data"])
        at = np.flatnonzero(open_finished(self.look.store, self.trace.queries).read("sample_id") == sample)
        return int(at[0]) if sample is not None and len(at) else None

    @property
    def number(self) -> int:
        """The image's number in `read`."""
        return self.query or 0

    @cached_property
    def names(self) -> dict[str, str]:
        """Names of the training's classes."""
        return class_names_of(self.look.store, self.trace.training.inputs["data"])

    @cached_property
    def stored(self) -> Influence:
        """The finished influence of the run's queries."""
        keys = keys_of(self.look.store, self.trace.training.inputs["data"].path)
        return read_influence(open_finished(self.look.store, self.trace.influence), keys)

    @cached_property
    def output(self) -> str | None:
        """The network's output layer."""
        from tasks.capture import find_output_layer

        model = load_network(self.look.store, self.trace.queries, choose_device("cpu"))
        return find_output_layer(model, self.look.subject.inputs)

    @cached_property
    def layer(self) -> str:
        """The traced layer that the card divides: the output layer, else the deepest one."""
        layers: list[str] = self.stored.summary["layers"]
        whole = [layer for layer in layers if unit_of(layer)[1] is None] or layers
        return self.output if self.output in whole else whole[-1]

    @cached_property
    def read(self) -> Influence:
        """The influence on the image: of the run, or from one pass over the archive."""
        return self.stored if self.query is not None else self._now()

    def _now(self) -> Influence:
        """Read the archive for this image and this layer."""
        look, trace, asked = self.look, self.trace, self.look.config.tracing
        assert asked is not None
        unit = unit_of(self.layer)[1] is not None
        only = {"layers": () if unit else (self.layer,), "units": (self.layer,) if unit else ()}
        asked = asked.model_copy(update=only)
        model, subject = load_network(look.store, trace.queries, choose_device("cpu")), look.subject
        label = None if subject.sample is None else subject.sample.label
        known = label is not None and label < len(subject.logits)
        followed = [subject.predicted, label if known else subject.predicted]
        spec = contributions_spec(trace.training.label, trace.training, trace.queries, asked)
        query = Followed(subject.inputs, np.array([followed]))
        made, read = influence_now(look.store, spec, asked, model, query, partial(from_archive, watch=look.watch))
        if not single_class(made):
            return read
        settings = asked.ridges.model_dump(mode="json")
        ridges = ridge_arrays(look.store, made, self.layer, subject.logits[None], settings)
        arrays = {name: values if name == "ridge_class" else values[None] for name, values in ridges.items()}
        said = {**read.summary, "ridges": {**settings, "grid": GRID.tolist()}}
        return replace(read, summary=said, arrays={**read.arrays, **arrays})


def _examples(found: _Found) -> pd.DataFrame:
    """Return the examples at both ends by each score that is known for the image."""
    number = np.array([found.number])
    listed = _of_layer(found.read.examples(found.names, number), found.layer)
    tables = [listed[listed["score"].isin(SCORES)][COLUMNS], *_counterfactual(found)]
    whole = pd.concat(tables, ignore_index=True)
    right_end = (whole["sum"] > 0) == (whole["end"] == "top")
    return whole[right_end & (whole["sum"] != 0)].reset_index(drop=True)


def _counterfactual(found: _Found) -> Iterator[pd.DataFrame]:
    """Yield the examples by counterfactual influence, where the run knows it."""
    if found.query is None:
        return
    for panel in WholeScores(found.look.store, found.trace).panels(found.names, found.query):
        if panel.score == COUNTERFACTUAL_SCORE:
            for end, table in (("top", panel.positive), ("bottom", panel.negative)):
                ranks = np.arange(1, len(table) + 1)
                yield table.assign(score=panel.score, end=end, rank=ranks)[COLUMNS]


def _marked(found: _Found, examples: pd.DataFrame) -> pd.DataFrame:
    """Add the rank of examples among the suspects, missing where they are none."""
    trace, rank = found.trace, pd.Series(dtype="Int64")
    if trace.suspects is not None:
        table = read_suspects(found.look.store, trace.suspects).head(trace.n_suspects)
        rank = table.set_index("sample_id")["rank"].astype("Int64")
    return examples.assign(suspect=examples["sample_id"].map(rank).astype("Int64"))


def _course(found: _Found, index: int) -> pd.DataFrame:
    """Return the share of each class in each epoch."""
    read, number = found.read, found.number
    gamma, square = read.arrays["class_gamma"][index, number], read.arrays["square"][index, number]
    shares = shares_of(gamma[None], square[None])[0]  # (epoch, class)
    epochs, classes = np.meshgrid(np.arange(len(shares)), np.arange(shares.shape[1]), indexing="ij")
    names = [class_name(found.names, label) for label in read.summary["classes"]]
    columns = {"epoch": epochs.ravel() + 1, "class_name": np.array(names, object)[classes.ravel()]}
    return pd.DataFrame({**columns, "share": shares.ravel()})


def _parts(read: Influence, number: int, index: int) -> dict[str, float]:
    """Return the parts of ||z||^2 as shares."""
    row = read.parts(number).iloc[index]
    return {name: float(row[name]) for name in read.summary["parts"]}


def _of_layer(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """Return the rows of a layer."""
    return table[table["layer"] == layer].reset_index(drop=True)


def _missing(found: _Found) -> str:
    """Say why there is no counterfactual influence, and how to ask for it."""
    comparison = found.trace.comparison
    if comparison is None or COUNTERFACTUAL_SCORE not in comparison.inputs:
        return "set `tracing.counterfactual: {}` to ask what the answer would be without an image"
    if found.query is None:
        sample = found.look.subject.sample
        named = "" if sample is None else f", as with `tracing.queries.samples: [{sample.id}]`"
        return f"only queries of the run have counterfactual influence{named}"
    return ""


def _rough(found: _Found) -> bool:
    """Say whether counterfactual influence does not predict retrainings of this network."""
    comparison = found.trace.comparison
    if comparison is None:
        return False
    summary = open_finished(found.look.store, comparison).summary
    checks = [row["checks"][VALIDITY] for row in summary["rows"] if VALIDITY in row["checks"]]
    stated = [check["value"] for check in checks if check["constant"] < summary["queries"]]
    return bool(stated) and not all(value is not None and value >= VALID for value in stated)
