"""The tracing page of the report, from finished stages."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.results import table_bytes
from storage.specs import StageSpec
from storage.stages import open_finished, read_marker
from storage.stores import Store
from tasks.figures.still_tracing import class_share_plot, ridge_plot
from tasks.figures.views import spread_out
from tasks.report.pages import Image
from tasks.report.pages_tracing import Query, QueryLayer, Ridges, TracingPage
from tasks.report.tracing_queries import MAX_QUERIES
from tasks.steps.gallery import shown_images
from tasks.steps.manifest import positions
from tasks.steps.networks import preprocessing_of
from tasks.steps.samples import read_positions
from tasks.steps.tracing.explain import Influence, class_name, read_influence, residual_of, shares_of, unknown_decay
from tasks.steps.tracing.plan import Trace
from tasks.tracing.evaluation import cardinality, class_agreement

RANKS = (1, 10)  # at which class agreement is stated
MOST_IMAGES = 2000  # training images of a data set read for the page
BATCH = 256  # images read at a time


def tracing_page(store: Store, traces: Sequence[Trace], training_images: str) -> TracingPage:
    """Return what the page is made of; training images only with `show`."""
    counts = [int(open_finished(store, trace.queries).summary["queries"]) for trace in traces]
    kept = np.array(spread_out(sum(counts), MAX_QUERIES))
    first = np.concatenate([[0], np.cumsum(counts)])
    queries = tuple(
        query
        for i, trace in enumerate(traces)
        for query in _queries(store, trace, kept[(kept >= first[i]) & (kept < first[i + 1])] - first[i])
    )
    return TracingPage(
        networks=pd.DataFrame([_network(store, trace) for trace in traces]),
        layers=pd.concat([_layers(store, trace) for trace in traces], ignore_index=True),
        shares=pd.concat([_shares(store, trace) for trace in traces], ignore_index=True),
        evaluation=pd.DataFrame([row for trace in traces for row in _evaluation(store, trace)], columns=EVALUATION),
        queries=queries,
        n_queries=sum(counts),
        images=_images(store, traces, queries) if training_images == "show" else {},
        held_out=tuple({(q.source, q.split) for q in queries} - {_trained_on(trace) for trace in traces}),
    )


def tracing_files(store: Store, traces: Sequence[Trace], page: TracingPage, training_images: str) -> dict[str, bytes]:
    """Return the page's tables as Parquet, and a few pictures for papers, by path below the report."""
    tables = {"networks": page.networks, "layers": page.layers, "shares": page.shares, "evaluation": page.evaluation}
    if training_images != "none":
        tables["examples"] = pd.concat([_examples(store, trace) for trace in traces], ignore_index=True)
    files = {f"tables/tracing_{name}.parquet": table_bytes(table) for name, table in tables.items() if len(table)}
    for (network, seed), rows in page.shares.groupby(["network", "seed"], sort=False):
        layer = str(rows["layer"].iloc[-1])
        title = f"{network}, seed {seed}: {layer}"
        files[f"figures/class-share-{network}-{seed}.png"] = class_share_plot(rows, layer, title=title)
    for query in page.queries[:1]:
        last = query.layers[-1]
        if last.ridges is not None:
            title = f"{query.network}, {last.layer}: sample {query.sample_id}"
            files[f"figures/ridges-{query.network}-{query.seed}.png"] = ridge_plot(last.ridges, title=title)
    return files


def _examples(store: Store, trace: Trace) -> pd.DataFrame:
    """Return the influential examples of all queries as one table."""
    queries = open_finished(store, trace.queries)
    ids, names = queries.read("sample_id"), queries.summary["class_names"]
    table = read_influence(open_finished(store, trace.influence)).examples(names, np.arange(len(ids)))
    return table.assign(network=trace.network, seed=trace.seed, query_id=ids[table["query"].to_numpy()])


EVALUATION = ["network", "seed", "measure", "layer", "value", "spread", "baseline", "baseline_name", "n", "note"]


def _numbers(store: Store, spec: StageSpec) -> list[dict[str, float]]:
    """Return the numbers of a stage's markers."""
    stage = open_finished(store, spec)
    return [read_marker(store, spec.path, number)["numbers"] for number in range(stage.layout.partitions)]


def _network(store: Store, trace: Trace) -> dict[str, object]:
    """Return the row of a network: what was recorded and what it cost."""
    training, influence = open_finished(store, trace.training), open_finished(store, trace.influence)
    recorded = _numbers(store, trace.training)
    spent = [*_numbers(store, trace.contributions), *_numbers(store, trace.influence)]
    return {
        "network": trace.network,
        "seed": trace.seed,
        "model": trace.queries.parameters["network"]["model"],
        "accuracy": training.summary["accuracy"],
        "loss": recorded[-1]["epochs"][-1]["loss"],  # type: ignore[index]  # a document
        "steps": influence.summary["steps"],
        "layers": len(influence.summary["layers"]),
        "archive_bytes": sum(marker["recording"]["bytes"] for marker in recorded),  # type: ignore[index]  # a document
        "recorder_waited_seconds": sum(marker["recording"]["waited_seconds"] for marker in recorded),  # type: ignore[index]
        "explain_seconds": sum(marker["cpu_seconds"] for marker in spent),
        "anchor": influence.summary["anchor"],
    }


def _layers(store: Store, trace: Trace) -> pd.DataFrame:
    """Return a row per layer: what ||z||^2 is made of, and how class-specific the influential examples are."""
    influence = open_finished(store, trace.influence)
    summary, square = influence.summary, influence.read("square")
    values = influence.read("parts")
    parts = dict(zip(summary["parts"], np.moveaxis(shares_of(values, square), -1, 0), strict=True))
    residual = np.abs(residual_of(summary, values, square))
    predicted = open_finished(store, trace.queries).read("logits").argmax(1)
    rows = []
    for index, layer in enumerate(summary["layers"]):
        ids, labels = influence.read("top_id", index, index + 1)[0], influence.read("top_label", index, index + 1)[0]
        agreement = {
            f"agreement_{k}": class_agreement(labels[:, :k], predicted) if labels.shape[1] >= k else np.nan
            for k in RANKS
        }
        rows.append(
            {
                "network": trace.network,
                "seed": trace.seed,
                "layer": layer,
                "kind": summary["kinds"][index],
                "weights": summary["weights"][index],
                **{f"{name}_share": float(shares[index].mean()) for name, shares in parts.items()},
                **({"decay_share": np.nan} if layer in unknown_decay(summary) else {}),
                "residual_max": float(residual[index].max()),
                "residual_median": float(np.median(residual[index])),
                **agreement,
                "cardinality": cardinality(ids),
            }
        )
    return pd.DataFrame(rows)


def _shares(store: Store, trace: Trace) -> pd.DataFrame:
    """Return gamma by layer, epoch and class, a part of ||z||^2, mean over queries."""
    influence = open_finished(store, trace.influence)
    names = open_finished(store, trace.training.inputs["data"]).summary["class_names"]
    classes = influence.summary["classes"]
    tables = []
    for index, layer in enumerate(influence.summary["layers"]):
        square = influence.read("square", index, index + 1)
        mean = shares_of(influence.read("class_gamma", index, index + 1), square)[0].mean(axis=0)
        epochs, columns = np.meshgrid(np.arange(len(mean)), np.arange(len(classes)), indexing="ij")
        table = pd.DataFrame({"epoch": epochs.ravel() + 1, "label": np.take(classes, columns.ravel())})
        tables.append(table.assign(layer=layer, gamma=mean.ravel()))
    found = pd.concat(tables, ignore_index=True).assign(network=trace.network, seed=trace.seed)
    return found.assign(class_name=[class_name(names, label) for label in found["label"]])


def _evaluation(store: Store, trace: Trace) -> Iterator[dict[str, object]]:
    """Yield the rows of the checks that were asked for."""
    common = {"network": trace.network, "seed": trace.seed, "spread": np.nan, "baseline": np.nan, "baseline_name": ""}
    if trace.mislabel is not None:
        found = open_finished(store, trace.mislabel).summary
        note = f"{found['flipped']} of {found['examples']} labels flipped; low self-attribution marks them"
        if found["decay_unknown_from"] is not None:
            note += f"; what weight decay did from step {found['decay_unknown_from']} on is in it"
        # A dense ledger has the mean loss of a batch, not each example's own.
        name = "summed loss of its batches" if found["shared"] else "summed loss"
        beside = {"baseline": found["loss_auc"], "baseline_name": name, "n": found["examples"], "note": note}
        depth = open_finished(store, trace.influence).summary["layers"]
        for layer in sorted(found["auc"], key=depth.index):  # a stored mapping has lost its order
            yield {**common, "measure": "mislabel AUC", "layer": layer, "value": found["auc"][layer], **beside}
    if trace.randomisation is not None:
        found = open_finished(store, trace.randomisation).summary
        for row in found["rows"]:
            note = f"{row['score']}; Spearman against a network trained on permuted labels, {row['constant']} constant"
            beside = {"n": found["queries"], "note": note, "spread": row["spread"]}
            yield {**common, "measure": "randomisation", "layer": row["layer"], "value": row["value"], **beside}
    if trace.datamodelling is not None:
        found = open_finished(store, trace.datamodelling).summary
        for row in found["rows"]:
            note = f"{row['score']}; {found['subsets']} subsets x {found['retrainings']}, {row['constant']} constant"
            beside = {"n": found["queries"], "note": note, "spread": row["spread"]}
            ceiling = {"baseline": found["ceiling"] or np.nan, "baseline_name": "noise ceiling"}
            yield {**common, "measure": "LDS", "layer": row["layer"], "value": row["value"], **ceiling, **beside}


def _queries(store: Store, trace: Trace, numbers: NDArray[np.int64]) -> Iterator[Query]:
    """Yield some of the queries with what each layer says of them."""
    stage, read = open_finished(store, trace.queries), read_influence(open_finished(store, trace.influence))
    names = stage.summary["class_names"]
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
            layers=tuple(_query_layers(read, names, number, chances[number])),
            data=_data_name(trace),
            source=str(trace.queries.inputs["data"].place["name"]),
            number=number,
        )


def _query_layers(
    read: Influence, names: dict[str, str], number: int, chances: NDArray[np.float64]
) -> Iterator[QueryLayer]:
    """Yield what each layer says of a query."""
    examples = read.examples(names, np.array([number]))
    square, init = read.arrays["square"][:, number], read.parts(number)["init"]
    for index, layer in enumerate(read.summary["layers"]):
        mine = examples[(examples["layer"] == layer) & (examples["score"] == "gamma")]
        yield QueryLayer(
            layer=layer,
            positive=_ranked(mine[(mine["end"] == "top") & (mine["sum"] > 0)]),
            negative=_ranked(mine[(mine["end"] == "bottom") & (mine["sum"] < 0)]),
            ridges=_ridges(read, names, index, number, chances),
            init_share=float(init.iloc[index]),
            preactivation_norm=float(np.sqrt(square[index])),
            classes=_by_class(read, names, index, number),
        )


def _by_class(read: Influence, names: dict[str, str], layer: int, query: int) -> pd.DataFrame:
    """Return what each class contributed to a layer's representation of a query."""
    sums, square = read.arrays["class_gamma"][layer, query].sum(axis=0), float(read.arrays["square"][layer, query])
    labels = [class_name(names, label) for label in read.summary["classes"]]
    return pd.DataFrame({"class_name": labels, "sum": sums, "share": sums / square if square else np.nan})


def _data_name(trace: Trace) -> str:
    """Return the name of the data set that a network was trained on."""
    return str(trace.training.inputs["data"].place["name"])


def _trained_on(trace: Trace) -> tuple[str, str]:
    """Return the data set and the split that a network was trained on."""
    return _data_name(trace), str(trace.training.place["train"]["split"])


def _ranked(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the columns that the page shows."""
    return rows[["sample_id", "class_name", "sum", "share"]].assign(cosine_sum=np.nan).reset_index(drop=True)


def _ridges(
    read: Influence, names: dict[str, str], layer: int, query: int, chances: NDArray[np.float64]
) -> Ridges | None:
    """Return the ridge plot of a layer and a query, None where steps mix classes."""
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


def _images(store: Store, traces: Sequence[Trace], queries: Sequence[Query]) -> dict[tuple[str, int], Image]:
    """Return the training images that the queries' examples need, by data set and sample id."""
    wanted: dict[str, set[int]] = {}
    for query in queries:
        for table in (table for layer in query.layers for table in (layer.positive, layer.negative)):
            wanted.setdefault(query.data, set()).update(table["sample_id"].tolist())
    found: dict[tuple[str, int], Image] = {}
    for data, trace in {_data_name(trace): trace for trace in traces}.items():
        settings, (_, split) = preprocessing_of(trace.training.parameters["network"]), _trained_on(trace)
        rows = positions(store, trace.training.inputs["data"].path, split)
        places = pd.Series(np.arange(len(rows)), index=rows["id"])
        ids = sorted(wanted.get(data, ()))[:MOST_IMAGES]
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            inputs = read_positions(store, trace.training, split, places.loc[part].to_numpy(np.int64))
            found.update(zip(((data, sample) for sample in part), shown_images(inputs, settings), strict=True))
    return found
