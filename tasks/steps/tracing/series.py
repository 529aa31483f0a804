"""Finished contributions with the ledger of their training, read by chunks of steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from configs.tracing import Tracing
from storage.documents import Document
from storage.layouts import ArrayLayout, Layout
from storage.specs import StageSpec
from storage.stages import Stage, open_finished
from storage.stores import Store
from tasks.engine.step import Size
from tasks.engine.survey import Survey
from tasks.steps.common.courses import MEMORY_SAMPLES, training_of
from tasks.steps.common.recording import recorded_layers
from tasks.steps.tracing.layers import traced_layers
from tasks.steps.tracing.projection import GIVEN, PREDICTED
from tasks.steps.tracing.queries import count_queries

if TYPE_CHECKING:
    from tasks.tracing import DecaySeries, InfluenceSums
    from tasks.tracing.evaluation import RankCorrelation

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]
Ranking = tuple[str, str]  # layer, score

FOLLOWED = {"logit": PREDICTED, "given": GIVEN}  # scores of the output layer and the logit they follow


def window_parameters(asked: Tracing) -> Document:
    """Return the steps that count, as a stage's key has them."""
    return {} if asked.window is None else {"window": list(asked.window)}


def window_of(spec: StageSpec) -> tuple[int, int] | None:
    """Return the steps that count in a stage; None for all."""
    window = spec.parameters.get("window")
    return None if window is None else (int(window[0]), int(window[1]))


def checked_rankings(found: Contributions) -> list[Ranking]:
    """Return what checks look at: gamma of each layer, and the logit of the given class."""
    return found.rankings(["gamma"]) + ([] if found.output is None else [(found.output, "given")])


def correlation_layout(found: Contributions) -> Layout:
    """Return the layout of ranks compared: a partition per checked ranking, a correlation per query."""
    shape = (len(checked_rankings(found)), found.n_queries)
    return Layout(shape[0], {"correlation": ArrayLayout(shape, "float64", ("ranking", "query"), 1, 1)})


def correlation_numbers(found: RankCorrelation) -> Document:
    """Return what the marker of a partition with an array `correlation` states."""
    return {"value": found.mean, "spread": float(found.per_query.std()), "constant": found.n_constant}


def correlation_summary(stage: Stage, found: Contributions) -> Document:
    """Return what the markers state of the array `correlation`, a row per checked ranking."""
    rows = []
    for number, (layer, score) in enumerate(checked_rankings(found)):
        marker = stage.marker(number)
        assert marker is not None, number
        stated = {key: marker["numbers"][key] for key in ("value", "spread", "constant")}
        rows.append({"layer": layer, "score": "logit" if score == "given" else score, **stated})
    return {"rows": rows, "queries": found.n_queries}


class Contributions:
    """The contributions of one training to its queries.

    Parameters
    ----------
    spec : of a finished contributions stage
    window : first and past-the-end step whose examples count; None for all
    """

    def __init__(self, store: Store, spec: StageSpec, window: tuple[int, int] | None = None) -> None:
        from tasks.recording.sources import recorded_source

        self.spec = spec
        self.stage = open_finished(store, spec)
        self.source = recorded_source(store, spec.inputs["network"])
        self.layers = traced_layers(self.source, spec)
        self.steps = self.source.steps
        self.window = (0, self.steps) if window is None else window
        self.n_queries = int(open_finished(store, spec.inputs["queries"]).summary["queries"])
        self.train = training_of(spec.inputs["network"])
        self.optimizer: Document = self.train.optimizer.model_dump(mode="json")

    @cached_property
    def output(self) -> str | None:
        """The layer that puts out the logits, if it is traced."""
        return next((layer for layer in self.layers if f"logit.{layer}" in self.stage.layout.arrays), None)

    @cached_property
    def recorded(self) -> NDArray[np.bool_]:
        """Whether each step was recorded by itself."""
        return np.asarray(self.source.recorded, bool)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Whether each step's examples are credited: recorded, and within the window."""
        steps = np.arange(self.steps)
        return self.recorded & (steps >= self.window[0]) & (steps < self.window[1])

    @cached_property
    def members(self) -> list[Ids]:
        """The ids of each step's examples; none where they are not credited."""
        none = np.empty(0, np.int64)
        return [ids if kept else none for ids, kept in zip(self.source.examples, self.counted, strict=True)]

    @cached_property
    def examples(self) -> Ids:
        """The ids of all examples that are credited with anything, (N,) rising."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *self.members]))

    def rankings(self, scores: list[str]) -> list[Ranking]:
        """Return what is ranked: gamma of each layer first, then the other scores."""
        found = [(layer, score) for score in ("gamma", "cosine") if score in scores for layer in self.layers]
        return found + ([(self.output, "logit")] if "logit" in scores and self.output else [])

    def constant(self, name: str, layer: str) -> Doubles:
        """Return a number per query: `init` or `preactivation` (Q,), `logit_init` (Q, 2)."""
        return self.stage.read(f"{name}.{layer}").astype(np.float64)

    def norms(self, layer: str, start: int, stop: int) -> Doubles:
        """Return ||D_t f|| (t, Q)."""
        return self.stage.read(f"norm.{layer}", start, stop).astype(np.float64)

    def whole(self, layer: str, score: str) -> tuple[Doubles, Doubles]:
        """Return what the initial weights contribute and what all sum to (Q,); cosines sum to nothing: NaN."""
        if score in FOLLOWED:
            init = self.constant("logit_init", layer)[:, FOLLOWED[score]]
            total = init.copy()
            for _, values, decay in self.chunks(layer, score):
                total += (values + decay).sum(axis=0)
            return init, total
        if score == "cosine":
            return np.full(self.n_queries, np.nan), np.full(self.n_queries, np.nan)
        return self.constant("init", layer), self.constant("preactivation", layer) ** 2

    def chunks(self, layer: str, score: str = "gamma") -> Iterator[tuple[slice, Doubles, Doubles]]:
        """Yield (steps, what the examples, what the decay contributed (t, Q)) in order.

        Scores are gamma, cosine, logit (of the predicted class) and given (the logit of the given class). Decay is 0 in
        steps that were not recorded, and from `decay_unknown_from` on, where it stays with the examples.
        """
        size = self.stage.layout.arrays[f"gamma.{layer}"].rows
        name = "logit" if score in FOLLOWED else "gamma"
        series, rates = self._decay(layer, score), self.source.ledger["lr"].to_numpy(np.float64)
        unknown = self.decay_unknown_from(layer, score)
        told = self.recorded & (np.arange(self.steps) < (self.steps if unknown is None else unknown))
        z = self.constant("preactivation", layer)
        for start in range(0, self.steps, size):
            stop = min(start + size, self.steps)
            values = self.stage.read(f"{name}.{layer}", start, stop).astype(np.float64)
            values = values[..., FOLLOWED[score]] if score in FOLLOWED else values
            decay = np.zeros_like(values) if series is None else series.update(values, rates[start:stop])
            decay[~told[start:stop]] = 0
            if score == "cosine":  # Eq. 7 is of the whole update
                scale = z * self.norms(layer, start, stop)
                yield slice(start, stop), np.divide(values, scale, out=np.zeros_like(values), where=scale > 0), decay
            else:
                yield slice(start, stop), values - decay, decay

    def sums(self, ids: Ids, layer: str, score: str) -> InfluenceSums:
        """Return a score summed over the steps of each of the examples `ids`."""
        from tasks.tracing import InfluenceSums

        found = InfluenceSums(ids, self.n_queries)
        for steps, values, _ in self.chunks(layer, score):
            found.update(values.T, self.members[steps])
        return found

    def decay_unknown_from(self, layer: str, score: str = "gamma") -> int | None:
        """Return the first step in which what decay contributed cannot be told; None where it always can."""
        from tasks.tracing import decay_known, decay_series

        known = decay_known(self.optimizer, self.recorded)
        if known < self.steps and any(self._moved(layer, score)):
            return known
        decays = decay_series(self.optimizer, np.zeros(1)) is not None
        return 0 if decays and len(set(self._moved(layer, score))) == 2 else None

    def _moved(self, layer: str, score: str) -> list[bool]:
        """Say of the weight, and of the bias if it counts, whether training changed it; not of one that is all 0.

        What no update ever changed was frozen or got no gradient, and optimisers leave it alone, decay too.
        """
        import torch

        ends = [(self.source.initial(layer), self.source.final(layer))]
        initial, final = self.source.initial_bias(layer), self.source.final_bias(layer)
        if initial is not None and final is not None and (score in FOLLOWED or self.spec.place["bias"]):
            ends.append((initial, final))
        return [not torch.equal(first, last) for first, last in ends if first.any() or last.any()]

    def _decay(self, layer: str, score: str) -> DecaySeries | None:
        """Return the recurrence of weight decay; None where there is none, or none that can be told."""
        from tasks.tracing import decay_series

        moved = self._moved(layer, score)
        if not moved or not all(moved) or self.decay_unknown_from(layer, score) == 0:
            return None
        followed = score in FOLLOWED
        init = self.constant("logit_init", layer)[:, FOLLOWED[score]] if followed else self.constant("init", layer)
        return decay_series(self.optimizer, init)


def size_compared(spec: StageSpec, survey: Survey) -> Size:
    """Return the size of a stage that compares the influence of every training example on every query."""
    contributions = spec.inputs["contributions"]
    training = contributions.inputs["network"]
    n = survey.data(training.inputs["data"]).count(training_of(training).split)
    queries = count_queries(contributions.inputs["queries"], survey)
    return Size(8 * queries * (len(recorded_layers(training, survey)) + 1), 8 * 8 * n * queries + MEMORY_SAMPLES)
