"""What of the training set may leave the store: everything else is taken out before a page is laid out."""

from dataclasses import replace

import pandas as pd

from tasks.report.tracing.results import Query, QueryLayer, TracingResults

HIDDEN = -1  # in place of a sample id
EXAMPLE_COLUMNS = ("sample_id", "class_name", "sum", "share", "cosine_sum")


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
    kept = {name: getattr(results, name).iloc[: None if with_ids else 0] for name in ("suspects", "teachers")}
    return replace(results, queries=queries, images={}, **kept)


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
    layers = query.layers if with_ids else tuple(_without_ids(layer) for layer in query.layers)
    if held_out:
        return replace(query, layers=layers)
    return replace(query, layers=layers, image=None, sample_id=query.sample_id if with_ids else HIDDEN)


def _without_ids(layer: QueryLayer) -> QueryLayer:
    """Put sums by class in place of the examples."""
    classes = by_class(layer) if layer.classes is None else layer.classes
    return replace(layer, positive=_nothing(), negative=_nothing(), classes=classes)


def _nothing() -> pd.DataFrame:
    """A table of examples without any."""
    return pd.DataFrame({name: pd.Series(dtype="float64") for name in EXAMPLE_COLUMNS})
