"""The topic-scores stage: how far topics suffice for the network's accuracy, and how much each adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document, Json
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec, without_defaults
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.life import Clock, measured
from tasks.engine.step import Size, Step, Work
from tasks.engine.survey import Survey
from tasks.interpreters.shapley import shapley
from tasks.interpreters.topics import completeness, near_duplicates, rebuild, topic_amounts, unit_topics
from tasks.steps.common.activations import map_shapes, open_split
from tasks.steps.common.networks import choose_device
from tasks.steps.common.rows import read_rows
from tasks.steps.interpretation.coreset_maps import read_apart
from tasks.steps.interpretation.fitted_topics import FittedTopics
from tasks.steps.interpretation.method import Maps
from tasks.steps.interpretation.topics import DEFAULTS, SCORED, head_of, read_topics, setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

VERSION = 1
CHUNK_VALUES = 4_000_000  # map values in memory at once


def topic_scores_spec(features: StageSpec, held_out: StageSpec, parameters: Mapping[str, Json]) -> StageSpec:
    """Return the spec of the scores of topics on held-out samples."""
    own = without_defaults({k: v for k, v in parameters.items() if k in SCORED}, DEFAULTS)
    inputs = {"features": features, "activations": held_out}
    return TOPIC_SCORES.spec({"seed": features.parameters["seed"], **own}, inputs, label=features.label)


def topic_tables(
    store: Store, features: StageSpec, evaluation: StageSpec, scores: StageSpec | None
) -> dict[str, pd.DataFrame]:
    """Return the table `topics` of a coreset with scores: each topic's importance and the topic most like it."""
    if scores is None:
        return {}
    stage = open_finished(store, scores)
    cosine = np.array(stage.read("cosine"), np.float64)
    np.fill_diagonal(cosine, -np.inf)
    alone = len(cosine) == 1
    table = pd.DataFrame(
        {
            "topic": np.arange(len(cosine)),
            "shapley": np.asarray(stage.read("shapley"), np.float64),
            "nearest": cosine.argmax(axis=1) if not alone else -1,
            "nearest_cosine": cosine.max(axis=1) if not alone else np.nan,
        }
    )
    names = ("completeness", "accuracy", "accuracy_plain", "accuracy_random")
    found = {name: np.nan if stage.summary[name] is None else float(stage.summary[name]) for name in names}
    return {"topics": table.assign(**found, duplicates=len(stage.summary["duplicates"]))}


def _layout(store: Store, spec: StageSpec) -> Layout:
    m = int(setting(spec.inputs["features"], "topics"))
    arrays = {
        "shapley": ArrayLayout((m,), "float64", ("topic",), m, m),
        "cosine": ArrayLayout((m, m), "float64", ("topic", "other"), m, m),
    }
    return Layout(1, arrays)


def _partition(work: Work, number: int) -> None:
    """Score the topics on all held-out samples, and each topic on some of them."""
    clock, stage, spec = Clock(), work.stage, work.stage.spec
    held_out, device = open_finished(stage.store, spec.inputs["activations"]), choose_device(work.device)
    scorer = _Scorer(read_topics(stage.store, spec.inputs["features"])(0), stage, device)
    labels, plain = held_out.read("label"), held_out.read("logits").argmax(axis=1)
    right, n, random = plain == labels, len(labels), 1 / len(held_out.summary["classes"])
    full, size = float(right.mean()), max(1, CHUNK_VALUES // int(np.prod(held_out.layout.arrays["maps"].shape[1:])))
    spans = [(start, min(start + size, n)) for start in range(0, n, size)]
    correct = sum(scorer.correct(*scorer.read(np.arange(*span)), labels[slice(*span)]) for span in spans)
    wanted = min(n, int(_setting(spec, "shapley_images")))
    few = np.unique(np.linspace(0, n - 1, wanted).astype(np.int64))
    (amounts, apart), full_few = scorer.read(few), float(right[few].mean())

    def value(members: frozenset[int]) -> float:
        accuracy = scorer.correct(amounts, apart, labels[few], members) / len(few)
        found = completeness(accuracy, random, full_few)
        return found if np.isfinite(found) else 0.0  # the network itself is not better than random

    m, unit = scorer.n_topics, scorer.unit()
    gains = shapley(value, m, draws=int(_setting(spec, "shapley_draws")), seed=int(spec.parameters["seed"]))
    with stage.partition(number) as part:
        part.write("shapley", gains)
        part.write("cosine", unit.T @ unit)
        complete = completeness(correct / n, random, full)
        part.numbers.update(
            measured(
                completeness=complete if np.isfinite(complete) else None,
                accuracy=correct / n,
                accuracy_plain=full,
                accuracy_random=random,
                shapley_images=len(few),
                duplicates=[list(pair) for pair in near_duplicates(unit)],
                **clock.share(1),
            )
        )


class _Scorer:
    """Topics, the samples that they are scored on, and the head of their network."""

    def __init__(self, fitted: FittedTopics, stage: Stage, device: torch.device) -> None:
        activations = stage.spec.inputs["activations"]
        self._fitted, self._device = fitted, device
        self._activations = open_finished(stage.store, activations)
        self._head = head_of(open_split(stage.store, activations, device))
        self.n_topics = fitted.topics.shape[1]

    def unit(self) -> NDArray[np.float64]:
        """Return the topics (d, m) at unit length."""
        found: NDArray[np.float64] = unit_topics(self._fitted.topics.double()).numpy()
        return found

    def read(self, rows: NDArray[np.int64]) -> tuple[Tensor, Maps | None]:
        """Return the topics' amounts A (n, h, w, m) of samples, and the tokens set apart (n, k, d)."""
        import torch

        maps = read_rows(self._activations, "maps", rows).astype(np.float32)
        amounts = topic_amounts(torch.from_numpy(maps), self._fitted.topics, self._fitted.threshold)
        return amounts, read_apart(self._activations, rows)

    def correct(
        self,
        amounts: Tensor,
        apart: Maps | None,
        labels: NDArray[np.generic],
        members: frozenset[int] | None = None,
    ) -> int:
        """Return the number of samples that the head classifies correctly from the topics in `members`, or from all."""
        import torch

        kept = torch.ones(self.n_topics)
        if members is not None:
            kept[[topic for topic in range(self.n_topics) if topic not in members]] = 0.0
        with torch.inference_mode():
            rebuilt = rebuild(amounts, self._fitted.r1, self._fitted.r2, kept)
            found = self._head(rebuilt.to(self._device), apart).cpu().numpy().argmax(axis=1)
        return int((found == labels).sum())


def _setting(spec: StageSpec, name: str) -> Json:
    """Return a parameter of the scores, its default where the spec leaves it out."""
    return spec.parameters.get(name, DEFAULTS[name])


def _summary(stage: Stage) -> Document:
    """Return the scores; completeness is None where the network is not better than random."""
    marker = stage.marker(0)
    assert marker is not None
    names = ("completeness", "accuracy", "accuracy_plain", "accuracy_random", "shapley_images", "duplicates")
    return {name: marker["numbers"][name] for name in names}


def _size(spec: StageSpec, survey: Survey) -> Size:
    """Return the size: maps of a chunk, their topics and the layer behind them, and a forward pass of the head."""
    features, shapes = spec.inputs["features"], map_shapes(spec.inputs["activations"], survey)
    m, hidden, values = int(setting(features, "topics")), int(setting(features, "hidden")), int(np.prod(shapes.maps))
    images = max(int(_setting(spec, "shapley_images")), CHUNK_VALUES // values)
    per_image = int(np.prod(shapes.maps[1:])) * (4 * m + 2 * hidden) + 4 * values + 3 * shapes.largest
    return Size(8 * m * (m + 1), 4 * images * per_image)


TOPIC_SCORES = Step("topic-scores", VERSION, _layout, _partition, _size, summary=_summary, network=True)
