"""Finished contributions with their training's ledger, read by chunks of steps."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

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
from tasks.steps.common.replays import open_archive
from tasks.steps.tracing.layers import traced_names, unit_of
from tasks.steps.tracing.members import known_parts, members_array
from tasks.steps.tracing.projection import GIVEN, PREDICTED
from tasks.steps.tracing.queries import count_queries

if TYPE_CHECKING:
    from tasks.tracing import DecaySeries, InfluenceSums
    from tasks.tracing.evaluation import RankCorrelation

Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]
Ranking = tuple[str, str]  # layer, score

FOLLOWED = {"logit": PREDICTED, "given": GIVEN}  # scores of the output layer, with the index of their logit


def window_parameters(asked: Tracing) -> Document:
    """Return the window of steps, as in a stage's key."""
    return {} if asked.window is None else {"window": list(asked.window)}


def window_of(spec: StageSpec) -> tuple[int, int] | None:
    """Return the window of steps in a stage; None for all."""
    window = spec.parameters.get("window")
    return None if window is None else (int(window[0]), int(window[1]))


def checked_rankings(found: Contributions) -> list[Ranking]:
    """Return what checks look at: gamma of each layer, and the logit of the given class."""
    layers = [ranking for ranking in found.rankings(["gamma"]) if unit_of(ranking[0])[1] is None]
    return layers + ([] if found.output is None else [(found.output, "given")])


def correlation_layout(found: Contributions) -> Layout:
    """Return the layout of ranks compared: a partition per checked ranking, a correlation per query."""
    shape = (len(checked_rankings(found)), found.n_queries)
    return Layout(shape[0], {"correlation": ArrayLayout(shape, "float64", ("ranking", "query"), 1, 1)})


def correlation_numbers(found: RankCorrelation) -> Document:
    """Return the metrics of a partition with an array `correlation`."""
    return {"value": found.mean, "spread": float(found.per_query.std()), "constant": found.n_constant}


def correlation_summary(stage: Stage, found: Contributions) -> Document:
    """Return the metrics of the array `correlation` in all partitions, a row per ranking."""
    rows = []
    for number, (layer, score) in enumerate(checked_rankings(found)):
        record = stage.marker(number)
        assert record is not None, number
        stated = {key: record["numbers"][key] for key in ("value", "spread", "constant")}
        rows.append({"layer": layer, "score": "logit" if score == "given" else score, **stated})
    return {"rows": rows, "queries": found.n_queries}


class Stored(Protocol):
    """The arrays of contributions: those of a finished stage, or others of the same layout."""

    @property
    def layout(self) -> Layout: ...

    @property
    def summary(self) -> Document: ...

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]: ...  # Any: floats


class Contributions:
    """The contributions of one training to its queries.

    Parameters
    ----------
    spec : spec of a contributions stage
    window : first and past-the-end step whose examples count; None for all
    stored : its arrays; None reads those of the finished stage

    Attributes
    ----------
    layers : names of the traced layers and units
    """

    def __init__(
        self, store: Store, spec: StageSpec, window: tuple[int, int] | None = None, stored: Stored | None = None
    ) -> None:
        self.spec = spec
        self.stage: Stored = open_finished(store, spec) if stored is None else stored
        self.source = open_archive(store, spec.inputs["network"])
        self.layers = traced_names(self.source, spec)
        self.steps = self.source.steps
        self.window = (0, self.steps) if window is None else window
        self.n_queries = self.stage.layout.arrays[f"init.{self.layers[0]}"].shape[0]
        self.train = training_of(spec.inputs["network"])
        self.optimizer: Document = self.train.optimizer.model_dump(mode="json")

    @cached_property
    def output(self) -> str | None:
        """Return the traced layer with the logits as output, if any."""
        return next((layer for layer in self.layers if f"logit.{layer}" in self.stage.layout.arrays), None)

    @cached_property
    def recorded(self) -> NDArray[np.bool_]:
        """Return whether each step is recorded by itself."""
        return np.asarray(self.source.recorded, bool)

    @cached_property
    def counted(self) -> NDArray[np.bool_]:
        """Return whether each step's examples are credited: the step is recorded and within the window."""
        steps = np.arange(self.steps)
        return self.recorded & (steps >= self.window[0]) & (steps < self.window[1])

    @cached_property
    def members(self) -> list[Ids]:
        """Return the ids of each step's examples, empty where they are not credited."""
        none = np.empty(0, np.int64)
        return [ids if kept else none for ids, kept in zip(self.source.examples, self.counted, strict=True)]

    @cached_property
    def examples(self) -> Ids:
        """Return the ids of all credited examples, (N,) rising."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *self.members]))

    def rankings(self, scores: list[str]) -> list[Ranking]:
        """Return the rankings: gamma of each layer first, then the other scores."""
        found = [(layer, score) for score in ("gamma", "cosine") if score in scores for layer in self.layers]
        return found + ([(self.output, "logit")] if "logit" in scores and self.output else [])

    def constant(self, name: str, layer: str) -> Doubles:
        """Return a number per query: `init` or `preactivation` (Q,), `logit_init` (Q, 2)."""
        return self.stage.read(f"{name}.{layer}").astype(np.float64)

    def norms(self, layer: str, start: int, stop: int) -> Doubles:
        """Return ||D_t f|| (t, Q)."""
        return self.stage.read(f"norm.{layer}", start, stop).astype(np.float64)

    def whole(self, layer: str, score: str) -> tuple[Doubles, Doubles]:
        """Return the initial weights' contribution and the sum of all (Q,); NaN for cosines, which have no sum."""
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
        """Yield (steps, contributions of examples (t, Q), contributions of decay (t, Q)) in order.

        Scores are gamma, cosine, logit (of the predicted class) and given (the logit of the given class). Decay is 0 in
        steps that are not recorded. It is also 0 from `decay_unknown_from` on: there it stays with the examples.
        """
        size = self.stage.layout.arrays[f"gamma.{layer}"].rows
        name = "logit" if score in FOLLOWED else "gamma"
        series, rates = self._decay(layer, score), self.source.ledger["lr"].to_numpy(np.float64)
        unknown = self.decay_unknown_from(layer, score)
        separable = self.recorded & (np.arange(self.steps) < (self.steps if unknown is None else unknown))
        z = self.constant("preactivation", layer)
        for start in range(0, self.steps, size):
            stop = min(start + size, self.steps)
            values = self.stage.read(f"{name}.{layer}", start, stop).astype(np.float64)
            values = values[..., FOLLOWED[score]] if score in FOLLOWED else values
            decay = np.zeros_like(values) if series is None else series.update(values, rates[start:stop])
            decay[~separable[start:stop]] = 0
            if score == "cosine":  # Eq. 7 uses the whole update
                scale = z * self.norms(layer, start, stop)
                yield slice(start, stop), np.divide(values, scale, out=np.zeros_like(values), where=scale > 0), decay
            else:
                yield slice(start, stop), values - decay, decay

    def sums(self, ids: Ids, layer: str, score: str) -> InfluenceSums:
        """Return the sums of a score over the steps of each of the examples `ids`."""
        from tasks.tracing import InfluenceSums

        found = InfluenceSums(ids, self.n_queries)
        for _, values, members in self.credits(layer, score):
            found.update(values.T, members)
        return found

    def credits(self, layer: str, score: str) -> Iterator[tuple[Ids, Doubles, list[Ids]]]:
        """Yield (steps (m,), contributions (m, Q), ids that share each equally, m arrays) in order.

        Where the archive splits gamma, each example of a step has a contribution of its own: that of its gradient, in
        this step and through momentum in later ones. A step that it cannot split is shared equally.
        """
        own = members_array(layer) if score == "gamma" and self.splits(layer) else None
        for steps, values, _ in self.chunks(layer, score):
            members, numbers = self.members[steps], np.arange(steps.start, steps.stop)
            if own is None:
                yield numbers, values, members
                continue
            parts = self.stage.read(own, steps.start, steps.stop).astype(np.float64)
            split = known_parts(parts)
            if not split.all():
                rest = np.flatnonzero(~split)
                yield numbers[rest], values[rest], [members[index] for index in rest]
            chosen = np.flatnonzero(split)
            counts = [len(members[index]) for index in chosen]
            rows = [parts[index, :count] for index, count in zip(chosen, counts, strict=True)]
            none = np.empty((0, self.n_queries))
            flat = np.concatenate([np.empty(0, np.int64), *(members[index] for index in chosen)])
            yield np.repeat(numbers[chosen], counts), np.concatenate([none, *rows]), list(flat[:, None])

    def step_bytes(self, layer: str) -> int:
        """Return the bytes of gamma that class sums need of a layer: the parts of ||z||^2, then those of examples."""
        return 2 * self.stage.layout.arrays[f"gamma.{layer}"].bytes

    def splits(self, layer: str) -> bool:
        """Return whether the archive splits a layer's gamma by the examples' own gradients."""
        return members_array(layer) in self.stage.layout.arrays

    def decays(self, layer: str) -> bool:
        """Return whether weight decay has a part of gamma of its own."""
        return self._decay(layer, "gamma") is not None

    def decay_unknown_from(self, layer: str, score: str = "gamma") -> int | None:
        """Return the first step with unknown contribution of decay; None if it is always known."""
        from tasks.tracing import decay_known, decay_series

        known = decay_known(self.optimizer, self.recorded)
        if known < self.steps and any(self._moved(layer, score)):
            return known
        decays = decay_series(self.optimizer, np.zeros(1)) is not None
        return 0 if decays and len(set(self._moved(layer, score))) == 2 else None

    def _moved(self, layer: str, score: str) -> list[bool]:
        """Return whether training changed the weight, and the bias if it counts; parameters of zeros are skipped.

        A parameter that no update changed was frozen or got no gradient. Optimisers then do not apply decay either.
        """
        import torch

        whole, _ = unit_of(layer)
        ends = [(self.source.initial(whole), self.source.final(whole))]
        initial, final = self.source.initial_bias(whole), self.source.final_bias(whole)
        if initial is not None and final is not None and (score in FOLLOWED or self.spec.place["bias"]):
            ends.append((initial, final))
        return [not torch.equal(first, last) for first, last in ends if first.any() or last.any()]

    def _decay(self, layer: str, score: str) -> DecaySeries | None:
        """Return the recurrence of weight decay; None without decay, or where it cannot be separated."""
        from tasks.tracing import decay_series

        moved = self._moved(layer, score)
        if not moved or not all(moved) or self.decay_unknown_from(layer, score) == 0:
            return None
        followed = score in FOLLOWED
        init = self.constant("logit_init", layer)[:, FOLLOWED[score]] if followed else self.constant("init", layer)
        return decay_series(self.optimizer, init)


def size_compared(spec: StageSpec, survey: Survey) -> Size:
    """Return the size of a stage with the influence of every training example on every query."""
    contributions = spec.inputs["contributions"]
    training = contributions.inputs["network"]
    n = survey.data(training.inputs["data"]).count(training_of(training).split)
    queries = count_queries(contributions.inputs["queries"], survey)
    return Size(8 * queries * (len(recorded_layers(training, survey)) + 1), 8 * 8 * n * queries + MEMORY_SAMPLES)
