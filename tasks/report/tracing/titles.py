"""Layers called by their titles, such as "11 · Linear 32 → 10, output", in all that the page shows."""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from tasks.report.tracing.results import EveryQuery, Query, TracingResults

Titles = Mapping[tuple[str, str], str]


def titled(results: TracingResults) -> TracingResults:
    """Return the results with each layer called by its title; scores of the whole network keep their names."""
    titles = results.titles
    if not titles:
        return results
    return replace(
        results,
        layers=_table(results.layers, titles),
        shares=_table(results.shares, titles),
        evaluation=_table(results.evaluation, titles),
        queries=tuple(_query(query, titles) for query in results.queries),
        every=tuple(_every(book, titles) for book in results.every),
    )


def _table(table: pd.DataFrame, titles: Titles) -> pd.DataFrame:
    """Return a table with titles in its column of layers."""
    pairs = zip(table["network"], table["layer"], strict=True)
    return table.assign(layer=[titles.get((str(network), str(layer)), layer) for network, layer in pairs])


def _query(query: Query, titles: Titles) -> Query:
    """Return a query with titles."""
    layers, scores = (
        tuple(replace(each, layer=titles.get((query.network, each.layer), each.layer)) for each in panels)
        for panels in (query.layers, query.scores)
    )
    return replace(query, layers=layers, scores=scores)


def _every(book: EveryQuery, titles: Titles) -> EveryQuery:
    """Return all queries of a network with titles."""
    rankings = tuple(replace(each, name=titles.get((book.network, each.name), each.name)) for each in book.rankings)
    return replace(book, rankings=rankings)
