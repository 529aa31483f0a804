"""The queries on question 4's page: the results of each layer, and the images of their examples."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.stages import open_finished
from storage.stores import Store
from tasks.figures.views import spread_out
from tasks.report.pages import Image
from tasks.report.tracing.queries import MAX_QUERIES
from tasks.report.tracing.results import EveryQuery, Query, QueryLayer, Ridges
from tasks.steps.common.manifest import positions
from tasks.steps.common.networks import preprocessing_of
from tasks.steps.common.pictures import shown_images
from tasks.steps.common.samples import read_positions
from tasks.steps.tracing.explain import Influence, class_name, keys_of, read_influence
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.suspects import read_suspects
from tasks.steps.tracing.teachers import read_teachers
from tasks.steps.tracing.whole import WholeScores

MOST_IMAGES = 4000  # largest number of training images of a data set on the page
UNKNOWN = -1  # in place of an unknown label
BATCH = 256  # number of images that are read at a time


def shown_queries(store: Store, traces: Sequence[Trace]) -> tuple[tuple[Query, ...], int]:
    """Return queries spread evenly over those of all networks and seeds, and the number of all queries."""
    counts = [int(open_finished(store, trace.queries).summary["queries"]) for trace in traces]
    kept = np.array(spread_out(sum(counts), MAX_QUERIES))
    first = np.concatenate([[0], np.cumsum(counts)])
    queries = tuple(
        query
        for i, trace in enumerate(traces)
        for query in _queries(store, trace, kept[(kept >= first[i]) & (kept < first[i + 1])] - first[i])
    )
    return queries, sum(counts)


def shown_suspects(store: Store, traces: Sequence[Trace]) -> pd.DataFrame:
    """Return the suspects of all networks and seeds, as the page's results describe them."""
    tables = []
    for trace in traces:
        if trace.suspects is None:
            continue
        table = read_suspects(store, trace.suspects)
        names = open_finished(store, trace.training.inputs["data"]).summary["class_names"]

        for column, source in {"given": "label_given", "truth": "label_true", "says": "predicted"}.items():
            labels = table[source].astype("Int64").fillna(UNKNOWN).tolist()
            table[column] = [None if label == UNKNOWN else class_name(names, label) for label in labels]
        rows = table.assign(data=data_name(trace), shown=table["rank"] <= trace.n_suspects)
        tables.append(rows.assign(network=trace.network, seed=trace.seed))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["network", "seed", "shown"])


def shown_teachers(store: Store, traces: Sequence[Trace]) -> pd.DataFrame:
    """Return what taught the suspects of all networks and seeds otherwise, as the page's results describe it."""
    tables = []
    for trace in traces:
        if trace.teachers is None:
            continue
        table = read_teachers(store, trace.teachers)
        names = open_finished(store, trace.training.inputs["data"]).summary["class_names"]
        named = {
            "class_name": [class_name(names, label) for label in table["example_label"].tolist()],
            "other_class": [class_name(names, label) for label in table["other"].tolist()],
        }
        table = table.assign(**named, data=data_name(trace), shown=table["sample_id"].isin(_first(store, trace)))
        tables.append(table.assign(network=trace.network, seed=trace.seed))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["network", "seed", "shown"])


def _first(store: Store, trace: Trace) -> list[int]:
    """Return the ids of the suspects on the page."""
    assert trace.suspects is not None
    found: list[int] = read_suspects(store, trace.suspects)["sample_id"].head(trace.n_suspects).tolist()
    return found


def example_images(
    store: Store,
    traces: Sequence[Trace],
    queries: tuple[Sequence[Query], Sequence[EveryQuery]],
    suspects: tuple[pd.DataFrame, pd.DataFrame],
) -> dict[tuple[str, int], Image]:
    """Return the training images of the queries' examples, of suspects and their teachers, by data set and sample id.

    Parameters
    ----------
    queries : those to be shown at once, and all; of the latter those of highest rank, as far as there is room
    suspects : the suspects, and what taught them otherwise
    """
    wanted: dict[str, set[int]] = {}
    for listed, column in zip(suspects, ("sample_id", "example_id"), strict=True):
        for _, row in listed[listed["shown"].astype(bool)].iterrows():
            wanted.setdefault(str(row["data"]), set()).add(int(row[column]))
    for query in queries[0]:
        for table in (t for layer in (*query.layers, *query.scores) for t in (layer.positive, layer.negative)):
            wanted.setdefault(query.data, set()).update(table["sample_id"].tolist())
    found: dict[tuple[str, int], Image] = {}
    for data, trace in {data_name(trace): trace for trace in traces}.items():
        ids = sorted(_with_others(data, wanted.get(data, set()), queries[1]))
        found |= {(data, sample): image for sample, image in training_images(store, trace, ids).items()}
    return found


def training_images(store: Store, trace: Trace, ids: Sequence[int]) -> dict[int, Image]:
    """Return small pictures of images that a network was trained on, by id."""
    settings, (_, split) = preprocessing_of(trace.training.parameters["network"]), trained_on(trace)
    rows = positions(store, trace.training.inputs["data"].path, split)
    places, found = pd.Series(np.arange(len(rows)), index=rows["id"]), dict[int, Image]()
    for start in range(0, len(ids), BATCH):
        part = list(ids[start : start + BATCH])
        inputs = read_positions(store, trace.training, split, places.loc[part].to_numpy(np.int64))
        found.update(zip(part, shown_images(inputs, settings), strict=True))
    return found


def _with_others(data: str, shown: set[int], every: Sequence[EveryQuery]) -> set[int]:
    """Return ids that are shown at once, and those of other queries by rank, at most `MOST_IMAGES`."""
    found = dict.fromkeys(sorted(shown))
    ends = [end.ids for book in every if book.data == data for rank in book.rankings for end in (rank.top, rank.bottom)]
    for rank in range(max((ids.shape[1] for ids in ends), default=0)):
        for ids in ends:
            found |= dict.fromkeys(ids[:, rank].tolist() if ids.shape[1] > rank else ())
    return set(list(found)[:MOST_IMAGES])


def data_name(trace: Trace) -> str:
    """Return the name of a network's training data set."""
    return str(trace.training.inputs["data"].place["name"])


def trained_on(trace: Trace) -> tuple[str, str]:
    """Return the training data set and split of a network."""
    return data_name(trace), str(trace.training.place["train"]["split"])


def _queries(store: Store, trace: Trace, numbers: NDArray[np.int64]) -> Iterator[Query]:
    """Yield some of the queries with the results of each layer."""
    stage, manifest = open_finished(store, trace.queries), trace.queries.inputs["data"].path
    read = read_influence(open_finished(store, trace.influence), keys_of(store, trace.training.inputs["data"].path))
    keys = keys_of(store, manifest)
    names, whole = stage.summary["class_names"], WholeScores(store, trace)
    ids, labels, logits, images = (stage.read(name) for name in ("sample_id", "label", "logits", "image"))
    chances = np.exp(logits - logits.max(axis=1, keepdims=True)).astype(np.float64)
    chances /= chances.sum(axis=1, keepdims=True)
    for number in numbers.tolist():
        predicted = int(chances[number].argmax())
        yield Query(
            network=trace.network,
            seed=trace.seed,
            sample_id=int(ids[number]),
            split=str(trace.queries.parameters["split"]),
            true_class=class_name(names, int(labels[number])),
            predicted=class_name(names, predicted),
            probability=float(chances[number, predicted]),
            image=images[number],
            layers=(*_query_layers(read, names, number, chances[number]), *whole.panels(names, number)),
            data=data_name(trace),
            source=str(trace.queries.inputs["data"].place["name"]),
            number=number,
            key=str(keys.loc[int(ids[number])]),
            scores=tuple(_logit(read, names, number)),
        )


def _query_layers(
    read: Influence, names: dict[str, str], number: int, chances: NDArray[np.float64]
) -> Iterator[QueryLayer]:
    """Yield the results of each layer for a query."""
    examples = read.examples(names, np.array([number]))
    square, init = read.arrays["square"][:, number], read.parts(number)["init"]
    for index, layer in enumerate(read.summary["layers"]):
        mine = examples[(examples["layer"] == layer) & (examples["score"] == "gamma")]
        yield QueryLayer(
            layer=layer,
            positive=_ranked(mine[(mine["end"] == "top") & (mine["sum"] > 0)]),
            negative=_ranked(mine[(mine["end"] == "bottom") & (mine["sum"] < 0)]),
            ridges=ridges_of(read, names, index, number, chances),
            init_share=float(init.iloc[index]),
            preactivation_norm=float(np.sqrt(square[index])),
            classes=_by_class(read, names, index, number),
        )


def _logit(read: Influence, names: dict[str, str], number: int) -> Iterator[QueryLayer]:
    """Yield the contributions to the logit of a query's predicted class, where they are ranked."""
    for index, (layer, score) in enumerate(read.summary["rankings"]):
        if score == "logit":
            examples = read.examples(names, np.array([number]))
            mine = examples[(examples["layer"] == layer) & (examples["score"] == score)]
            yield QueryLayer(
                layer=score,
                positive=_ranked(mine[(mine["end"] == "top") & (mine["sum"] > 0)]),
                negative=_ranked(mine[(mine["end"] == "bottom") & (mine["sum"] < 0)]),
                ridges=None,
                init_share=float("nan"),
                preactivation_norm=float(read.arrays["reference"][index, number]),
                score=score,
            )


def _by_class(read: Influence, names: dict[str, str], layer: int, query: int) -> pd.DataFrame:
    """Return each class's contribution to a layer's representation of a query."""
    sums, square = read.arrays["class_gamma"][layer, query].sum(axis=0), float(read.arrays["square"][layer, query])
    labels = [class_name(names, label) for label in read.summary["classes"]]
    return pd.DataFrame({"class_name": labels, "sum": sums, "share": sums / square if square else np.nan})


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the page's table of examples."""
    return rows[["sample_id", "key", "class_name", "sum", "share"]].assign(cosine_sum=np.nan).reset_index(drop=True)


def ridges_of(
    read: Influence, names: dict[str, str], layer: int, query: int, chances: NDArray[np.float64]
) -> Ridges | None:
    """Return the ridge plot of a layer and a query, None if steps mix classes."""
    if "ridge" not in read.arrays:
        return None
    classes, settings = read.arrays["ridge_class"][query].tolist(), read.summary["ridges"]
    return Ridges(
        grid=np.asarray(settings["grid"]),
        classes=tuple(class_name(names, label) for label in classes),
        probabilities=chances[classes],
        densities=read.arrays["ridge"][layer, query].astype(np.float64),
        totals=read.arrays["ridge_total"][layer, query],
        highlighted=0,
        bandwidth=f"{settings['kind']} {settings['bandwidth']:g}",
    )
