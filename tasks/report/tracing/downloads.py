"""The tables of the tracing question in the site's data folder."""

from collections.abc import Iterator, Sequence

import pandas as pd

from tasks.report.pages import MAX_CSV_ROWS
from tasks.report.tracing.privacy import EXAMPLE_COLUMNS, HIDDEN
from tasks.report.tracing.results import EveryQuery, Query, QueryLayer, TracingResults, numbered

KEYS = ("query", "network", "seed")
COLUMNS = {  # of the files in data/; whatever else a table may hold stays out of the site
    "networks": (
        *("network", "seed", "model", "accuracy", "loss", "steps", "layers", "archive_bytes"),
        *("recorder_waited_seconds", "explain_seconds", "anchor"),
    ),
    "layers": (
        *("network", "seed", "layer", "kind", "weights", "init_share", "decay_share", "examples_share"),
        *(
            "unrecorded_share",
            "batch_share",
            "ghosts_share",
            "residual_max",
            "residual_median",
            "agreement_1",
            "agreement_10",
            "cardinality",
        ),
    ),
    "shares": ("network", "seed", "layer", "epoch", "label", "class_name", "gamma"),
    "evaluation": (
        *("network", "seed", "measure", "layer", "score", "value", "spread", "baseline", "baseline_name", "n", "note"),
    ),
    "growth": ("network", "seed", "step", "growth"),
}


def tracing_csv(results: TracingResults) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Return the data files of the page.

    Parameters
    ----------
    results : as `redacted` leaves it

    Returns
    -------
    tables by path, and a sentence on each that is too long for the site
    """
    frames = {name: getattr(results, name) for name in COLUMNS}
    frames = {name: frame[[c for c in COLUMNS[name] if c in frame]] for name, frame in frames.items()}
    frames["queries"] = every_table(results.every) if results.every else query_table(results.queries)
    frames["examples"] = example_table(results.queries)
    frames["classes"] = class_contributions(results.queries)
    files, notes = {}, []
    for name, frame in frames.items():
        if len(frame) > MAX_CSV_ROWS:
            notes.append(f"The {len(frame):,} rows of the table of {name} are too many for this site.")
        elif len(frame) or name in COLUMNS:
            files[f"data/tracing_{name}.csv"] = frame
    return files, tuple(notes)


def example_table(queries: Sequence[Query]) -> pd.DataFrame:
    """List every query's influential examples: a row per query, layer, end and rank."""
    frames = []
    for keys, layer in _layers(queries):
        for end, table in (("positive", layer.positive), ("negative", layer.negative)):
            if len(table):
                rows = table.reindex(columns=EXAMPLE_COLUMNS).assign(rank=range(1, len(table) + 1))
                frames.append(rows.assign(**keys, layer=layer.layer, end=end))
    columns = [*KEYS, "layer", "end", "rank", *EXAMPLE_COLUMNS]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def class_contributions(queries: Sequence[Query]) -> pd.DataFrame:
    """List what each class contributed to each query and layer, where it is known."""
    columns = ["class_name", "sum", "share", "examples"]
    frames = [
        layer.classes.reindex(columns=columns).assign(**keys, layer=layer.layer)
        for keys, layer in _layers(queries)
        if layer.classes is not None and len(layer.classes)
    ]
    columns = [*KEYS, "layer", *columns]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)


def query_table(queries: Sequence[Query]) -> pd.DataFrame:
    """List the queries; the id of one that may not be named is missing."""
    rows = [
        {
            **_keys(number, query),
            "sample_id": None if query.sample_id == HIDDEN else query.sample_id,
            "key": query.key or None,
            "split": query.split,
            "true_class": query.true_class,
            "predicted": query.predicted,
            "probability": query.probability,
        }
        for number, query in numbered(queries)
    ]
    names = [*KEYS, "sample_id", "key", "split", "true_class", "predicted", "probability"]
    return pd.DataFrame(rows, columns=names).astype({"sample_id": "Int64"})


def every_table(books: Sequence[EveryQuery]) -> pd.DataFrame:
    """List all queries, as `query_table` does those of the page."""
    tables = [
        book.table.assign(query=range(len(book.table)), network=book.network, seed=book.seed, split=book.split)
        for book in books
    ]
    table = pd.concat(tables, ignore_index=True).astype({"sample_id": "Int64"})
    table.loc[table["sample_id"] == HIDDEN, "sample_id"] = pd.NA
    return table[[*KEYS, "sample_id", "key", "split", "true_class", "predicted", "probability"]]


def _layers(queries: Sequence[Query]) -> Iterator[tuple[dict[str, str | int], QueryLayer]]:
    """Yield what names the query, and the layer, of every layer of every query."""
    for number, query in numbered(queries):
        for layer in (*query.layers, *query.scores):
            yield _keys(number, query), layer


def _keys(number: int, query: Query) -> dict[str, str | int]:
    """Return what names a query: its number counts within its network and seed."""
    return dict(zip(KEYS, (number, query.network, query.seed), strict=True))
