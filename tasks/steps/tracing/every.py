"""All queries of question 4, from whole arrays: the page shows a few of them at once and the others on demand."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.stages import FinishedStage, open_finished
from storage.stores import Store
from tasks.figures.views import spread_out
from tasks.report.tracing.queries import MAX_EXAMPLES, MAX_LAYERS
from tasks.report.tracing.results import EveryQuery, Ranking
from tasks.steps.tracing.explain import class_name, keys_of
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.whole import WholeScores, ends_of


def every_query(store: Store, traces: Sequence[Trace]) -> tuple[EveryQuery, ...]:
    """Return the queries of all networks and seeds."""
    return tuple(_of_network(store, trace) for trace in traces)


def _of_network(store: Store, trace: Trace) -> EveryQuery:
    """Return the queries of one network and seed."""
    stage, influence = open_finished(store, trace.queries), open_finished(store, trace.influence)
    names, source = stage.summary["class_names"], trace.queries.inputs["data"]
    ids, labels, logits = (stage.read(name) for name in ("sample_id", "label", "logits"))
    chances = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    predicted = chances.argmax(axis=1)
    table = pd.DataFrame(
        {
            "sample_id": ids,
            "key": keys_of(store, source.path).loc[ids.tolist()].to_numpy(),
            "true_class": [class_name(names, label) for label in labels.tolist()],
            "predicted": [class_name(names, label) for label in predicted.tolist()],
            "probability": (chances.max(axis=1) / chances.sum(axis=1)),
        }
    )
    keys = keys_of(store, trace.training.inputs["data"].path)
    own = open_finished(store, trace.training.inputs["data"]).summary["class_names"]
    return EveryQuery(
        network=trace.network,
        seed=trace.seed,
        data=str(trace.training.inputs["data"].place["name"]),
        source=str(source.place["name"]),
        split=str(trace.queries.parameters["split"]),
        table=table,
        images=stage.read("image").astype(np.uint8),
        rankings=(*_rankings(influence), *WholeScores(store, trace).rankings(MAX_EXAMPLES)),
        keys=dict(zip(keys.index.to_numpy(np.int64).tolist(), keys.astype(str).tolist(), strict=True)),
        names={int(label): str(name) for label, name in own.items()},
        labels=tuple(influence.summary["classes"]),
    )


def _rankings(influence: FinishedStage) -> Iterator[Ranking]:
    """Yield gamma of each layer, of a few layers evenly spread where there are many, and the logit."""
    summary = influence.summary
    layers = [summary["layers"][i] for i in spread_out(len(summary["layers"]), MAX_LAYERS)]
    init = summary["parts"].index("init")
    for index, (layer, score) in enumerate(summary["rankings"]):
        top, bottom = ends_of(influence, index, "sum", MAX_EXAMPLES)
        whole = influence.read("reference", index, index + 1)[0].astype(np.float64)
        if score == "logit":
            yield Ranking(score, score, top, bottom, whole)
        elif score == "gamma" and layer in layers:
            at = summary["layers"].index(layer)
            parts: NDArray[np.float64] = influence.read("parts", at, at + 1)[0, :, init].astype(np.float64)
            share = np.divide(parts, whole, out=np.full(len(whole), np.nan), where=whole > 0)
            classes = influence.read("class_gamma", at, at + 1)[0].astype(np.float64).sum(axis=1)
            yield Ranking(layer, score, top, bottom, whole, share, classes)
