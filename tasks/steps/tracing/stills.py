"""The files of question 4 in the report besides the site: tables as Parquet, a few pictures for papers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from storage.results import table_bytes
from storage.stages import open_finished
from storage.stores import Store
from tasks.figures.tracing.still import class_share_plot, ridge_plot
from tasks.report.tracing.results import TracingResults
from tasks.steps.tracing.explain import keys_of, read_influence
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.teachers import COLUMNS as TEACHERS

SUSPECT_COLUMNS = [
    *("network", "seed", "rank", "sample_id", "key", "label_given", "label_true", "predicted", "score", "disagreement"),
    *("other", "taught_otherwise"),
]
TEACHER_COLUMNS = ["network", "seed", "by", *TEACHERS]


def tracing_files(
    store: Store, traces: Sequence[Trace], results: TracingResults, training_images: str
) -> dict[str, bytes]:
    """Return the page's tables as Parquet, and a few pictures for papers, by path below the report."""
    tables = {
        "networks": results.networks,
        "layers": results.layers,
        "shares": results.shares,
        "evaluation": results.evaluation,
    }
    if len(results.growth):
        tables["growth"] = results.growth
    if training_images != "none":
        tables["examples"] = pd.concat([_examples(store, trace) for trace in traces], ignore_index=True)
    files = {f"tables/tracing_{name}.parquet": table_bytes(table) for name, table in tables.items() if len(table)}
    if len(results.suspects) and training_images != "none":
        files["tables/suspects.parquet"] = table_bytes(_with_teachers(results)[SUSPECT_COLUMNS])
        if len(results.teachers):
            files["tables/suspect_teachers.parquet"] = table_bytes(results.teachers[TEACHER_COLUMNS])
    if len(results.evaluation):  # a public table: its name and columns stay
        public = results.evaluation.rename(columns={"measure": "check"})
        columns = ["network", "seed", "layer", "score", "check", "value", "baseline"]
        files["tables/evaluation.parquet"] = table_bytes(public[columns])
    for (network, seed), rows in results.shares.groupby(["network", "seed"], sort=False):
        layer = str(rows["layer"].iloc[-1])
        title = f"{network}, seed {seed}: {layer}"
        files[f"figures/class-share-{network}-{seed}.png"] = class_share_plot(rows, layer, title=title)
    for query in results.queries[:1]:
        last = query.layers[-1]
        if last.ridges is not None:
            title = f"{query.network}, {last.layer}: sample {query.sample_id}"
            files[f"figures/ridges-{query.network}-{query.seed}.png"] = ridge_plot(last.ridges, title=title)
    return files


def _with_teachers(results: TracingResults) -> pd.DataFrame:
    """Return the suspects with the other class and the ids of their teachers by the first score, if these are known."""
    keys = ["network", "seed", "sample_id"]
    if not len(results.teachers):
        return results.suspects.assign(
            other=pd.array([pd.NA] * len(results.suspects), dtype="Int64"), taught_otherwise=""
        )
    first = results.teachers.groupby(keys, sort=False)["by"].transform("first")
    found = (
        results.teachers[results.teachers["by"] == first]
        .groupby(keys, sort=False)
        .agg(other=("other", "first"), taught_otherwise=("example_id", lambda ids: ", ".join(map(str, ids))))
    )
    table = results.suspects.merge(found.reset_index(), on=keys, how="left")
    return table.assign(other=table["other"].astype("Int64"), taught_otherwise=table["taught_otherwise"].fillna(""))


def _examples(store: Store, trace: Trace) -> pd.DataFrame:
    """Return the influential examples of all queries as one table."""
    queries = open_finished(store, trace.queries)
    ids, names = queries.read("sample_id"), queries.summary["class_names"]
    keys = keys_of(store, trace.training.inputs["data"].path)
    table = read_influence(open_finished(store, trace.influence), keys).examples(names, np.arange(len(ids)))
    return table.assign(network=trace.network, seed=trace.seed, query_id=ids[table["query"].to_numpy()])
