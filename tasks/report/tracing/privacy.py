"""What of the training set may leave the store: everything else is taken out before a page is laid out."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.report.tracing.results import End, EveryQuery, Query, QueryLayer, Ranking, TracingResults

HIDDEN = -1  # in place of a sample id
EXAMPLE_COLUMNS = ("sample_id", "key", "class_name", "sum", "share", "cosine_sum")


def redacted(results: TracingResults, training_images: str) -> TracingResults:
    """Take out what the config's `report.training_images` does not allow.

    Parameters
    ----------
    results : the whole results
    training_images : "show" leaves everything; "ids" takes out training images; anything else ("none") takes out
        their ids as well and leaves sums by class

    Returns
    -------
    what may be shown; layers without ids have empty tables of examples
    """
    if training_images == "show":
        return results
    with_ids = training_images == "ids"
    queries = tuple(
        _query(query, (query.source, query.split) in results.held_out, with_ids) for query in results.queries
    )
    suspects = results.suspects if with_ids else results.suspects.iloc[:0]
    every = tuple(_every(book, (book.source, book.split) in results.held_out, with_ids) for book in results.every)
    return replace(results, queries=queries, every=every, images={}, suspects=suspects)


def by_class(layer: QueryLayer) -> pd.DataFrame:
    """Sum a layer's listed examples up by class: columns class_name, sum, share, examples, most first."""
    tables = [table for table in (layer.positive, layer.negative) if len(table)]
    listed = pd.concat([table[["class_name", "sum", "share"]] for table in tables or [_nothing()]])
    summed = listed.groupby("class_name", sort=False).agg(
        sum=("sum", "sum"), share=("share", "sum"), examples=("share", "size")
    )
    return summed.sort_values("sum", ascending=False, kind="stable").reset_index()


def _query(query: Query, held_out: bool, with_ids: bool) -> Query:
    """Take training images and, where asked, training ids out of one query."""
    if not with_ids:
        layers, scores = (tuple(map(_without_ids, panels)) for panels in (query.layers, query.scores))
        query = replace(query, layers=layers, scores=scores)
    if held_out:
        return query
    return replace(query, image=None) if with_ids else replace(query, image=None, sample_id=HIDDEN, key="")


def _every(book: EveryQuery, held_out: bool, with_ids: bool) -> EveryQuery:
    """Take training images and, where asked, training ids out of all queries of a network."""
    if not with_ids:
        bare = tuple(_bare(ranking) for ranking in book.rankings if ranking.classes is not None)
        book = replace(book, rankings=bare, keys={})
    if held_out:
        return book
    return replace(book, images=None, table=book.table if with_ids else book.table.assign(sample_id=HIDDEN, key=""))


def _bare(ranking: Ranking) -> Ranking:
    """Return a ranking without examples."""
    none = np.empty((len(ranking.whole), 0), np.int64)
    nothing = End(none, none.astype(np.float64), none)
    return replace(ranking, top=nothing, bottom=nothing)


def _without_ids(layer: QueryLayer) -> QueryLayer:
    """Put sums by class in place of the examples."""
    classes = by_class(layer) if layer.classes is None else layer.classes
    return replace(layer, positive=_nothing(), negative=_nothing(), classes=classes)


def _nothing() -> pd.DataFrame:
    """A table of examples without any."""
    return pd.DataFrame({name: pd.Series(dtype="float64") for name in EXAMPLE_COLUMNS})
