"""The results of question 4: its tables and the shown queries, from finished stages."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from storage.documents import Document
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from tasks.report.tracing.results import TracingResults
from tasks.report.tracing.scores import ALL_CONSTANT, VALID, VALIDITY
from tasks.steps.common.courses import training_of
from tasks.steps.common.replays import open_archive
from tasks.steps.common.standing import training_standing
from tasks.steps.tracing.comparison import ORDERS
from tasks.steps.tracing.counterfactual import read_growth
from tasks.steps.tracing.every import every_query
from tasks.steps.tracing.explain import class_name, residual_of, shares_of, unknown_decay
from tasks.steps.tracing.layers import unit_of
from tasks.steps.tracing.members import member_spread, members_array
from tasks.steps.tracing.plan import Trace
from tasks.steps.tracing.scores import COUNTERFACTUAL_SCORE
from tasks.steps.tracing.shown import example_images, shown_queries, shown_suspects, shown_teachers, trained_on
from tasks.steps.tracing.suspects import RANKINGS
from tasks.steps.tracing.titles import titles_of
from tasks.tracing.evaluation import cardinality, class_agreement

SAME_ORDER = ORDERS["same_order"]
GROWTH = pd.DataFrame(columns=["network", "seed", "step", "growth"])
RANKS = (1, 10)  # ranks for class agreement
EVALUATION = [
    "network",
    "seed",
    "measure",
    "layer",
    "score",
    "value",
    "spread",
    "baseline",
    "baseline_name",
    "n",
    "note",
]


def tracing_results(store: Store, traces: Sequence[Trace], training_images: str) -> TracingResults:
    """Return the contents of question 4's page; training images only with `show`."""
    queries, n_queries = shown_queries(store, traces)
    suspects, teachers = shown_suspects(store, traces), shown_teachers(store, traces)
    every = every_query(store, traces) if n_queries > len(queries) else ()
    examples = (queries, every), (suspects, teachers)
    return TracingResults(
        networks=pd.DataFrame([_network(store, trace) for trace in traces]),
        layers=pd.concat([_layers(store, trace) for trace in traces], ignore_index=True),
        shares=pd.concat([_shares(store, trace) for trace in traces], ignore_index=True),
        evaluation=pd.DataFrame([row for trace in traces for row in _evaluation(store, trace)], columns=EVALUATION),
        growth=pd.concat([GROWTH, *(_growth(store, trace) for trace in traces)], ignore_index=True),
        queries=queries,
        n_queries=n_queries,
        every=every,
        images=example_images(store, traces, *examples) if training_images == "show" else {},
        suspects=suspects,
        teachers=teachers,
        titles={key: title for trace in traces for key, title in titles_of(store, trace)},
        held_out=tuple({(q.source, q.split) for q in queries} - {trained_on(trace) for trace in traces}),
    )


def _growth(store: Store, trace: Trace) -> pd.DataFrame:
    """Return the growth of the adjoint by step, where the config asks for counterfactual influence."""
    spec = None if trace.comparison is None else trace.comparison.inputs.get(COUNTERFACTUAL_SCORE)
    return GROWTH if spec is None else read_growth(store, spec).assign(network=trace.network, seed=trace.seed)


def _metrics(store: Store, spec: StageSpec) -> list[Document]:
    """Return the metrics of a stage's partitions."""
    return [record["numbers"] for record in open_finished(store, spec).markers()]


def _network(store: Store, trace: Trace) -> dict[str, object]:
    """Return the row of a network: its recording and the costs."""
    influence = open_finished(store, trace.influence)
    recorded = _metrics(store, trace.training)
    epochs = training_of(trace.training).epochs
    spent = [*_metrics(store, trace.contributions), *_metrics(store, trace.influence)]
    return {
        "network": trace.network,
        "seed": trace.seed,
        "model": trace.queries.parameters["network"]["model"],
        **training_standing(store, trace.training),
        "n_outputs": open_finished(store, trace.queries).layout.arrays["logits"].shape[1],
        "loss": _or_nan(recorded[-1]["epochs"][-1]["loss"]),
        "steps": influence.summary["steps"],
        "layers": len(influence.summary["layers"]),
        "archive_bytes": sum(each["recording"]["bytes"] for each in recorded),
        "recorder_waited_seconds": sum(each["recording"]["waited_seconds"] for each in recorded),
        "explain_seconds": sum(each["cpu_seconds"] for each in spent),
        "anchor": influence.summary["anchor"],
        "kind": recorded[0]["recording"]["kind"],
        "plain_epoch_seconds": influence.summary["steps"] / epochs * recorded[0].get("unrecorded_seconds", np.nan),
        "recorded_epoch_seconds": sum(each.get("steps_seconds", np.nan) for each in recorded) / epochs,
        "weight_bytes": 4 * sum(influence.summary["weights"]),
        "data": trained_on(trace)[0],
        "explained": open_finished(store, trace.queries).summary["queries"],
    }


def _splits(store: Store, trace: Trace) -> dict[str, str]:
    """Return by layer, where contributions have parts of examples: example, or partly where some steps have none."""
    found = open_finished(store, trace.contributions)
    whole = {layer for record in found.markers() for layer in record["numbers"].get("not_split", {})}
    names = [name.removeprefix(members_array("")) for name in found.layout.arrays if name.startswith(members_array(""))]
    return {name: "partly" if name in whole else "example" for name in names}


def _layers(store: Store, trace: Trace) -> pd.DataFrame:
    """Return a row per layer: the parts of ||z||^2, and the class agreement of the influential examples."""
    influence = open_finished(store, trace.influence)
    summary, square = influence.summary, influence.read("square")
    splits = _splits(store, trace)
    batch = _batch_shares(store, trace)
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
                "split": splits.get(layer, "equal"),
                **_ghosts(batch[index], parts["examples"][index], splits.get(layer) == "example"),
                "unit": unit_of(layer)[1] is not None,
                **member_spread(store, trace.contributions, layer),
            }
        )
    return pd.DataFrame(rows)


def _batch_shares(store: Store, trace: Trace) -> NDArray[np.float64]:
    """Return what the batches' own examples contributed to each layer and query, as shares of ||z||^2."""
    influence = open_finished(store, trace.influence)
    sums = influence.read("class_gamma").sum(axis=(2, 3))
    if trace.influence.parameters.get("window") or not open_archive(store, trace.training).recorded.all():
        return np.full(sums.shape, np.nan)  # the sums are of some steps only
    return shares_of(sums, influence.read("square"))


def _ghosts(batch: NDArray[np.float64], examples: NDArray[np.float64], split: bool) -> dict[str, float]:
    """Return the parts of batches and ghosts, means over queries; NaN where updates are split equally."""
    if not split:
        return {"batch_share": np.nan, "ghosts_share": np.nan}
    return {"batch_share": float(batch.mean()), "ghosts_share": float((examples - batch).mean())}


def _shares(store: Store, trace: Trace) -> pd.DataFrame:
    """Return gamma by layer, epoch and class, as a share of ||z||^2, mean over queries."""
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
    """Yield the rows of the evaluations in the config."""
    layers = open_finished(store, trace.influence).summary["layers"]
    checks: tuple[tuple[StageSpec | None, Callable[[Document], Iterator[dict[str, object]]]], ...] = (
        (trace.mislabel, partial(_mislabel_rows, layers)),
        (trace.randomisation, _randomisation_rows),
        (trace.datamodelling, partial(_datamodelling_rows, "LDS")),
        (trace.same_order, partial(_datamodelling_rows, SAME_ORDER)),
        (trace.comparison, _comparison_rows),
        (trace.suspects, _suspect_rows),
    )
    unknown = {"layer": "", "spread": np.nan, "baseline": np.nan, "baseline_name": ""}
    for spec, rows_of in checks:
        if spec is not None:
            for row in rows_of(open_finished(store, spec).summary):
                yield {"network": trace.network, "seed": trace.seed, **unknown, **row}


def _mislabel_rows(layers: Sequence[str], found: Document) -> Iterator[dict[str, object]]:
    """Yield how well self-attribution marks flipped labels, by layer in order of depth, next to the loss."""
    note = f"{found['flipped']} of {found['examples']} labels flipped; low self-attribution marks them"
    if found["decay_unknown_from"] is not None:
        note += f"; what weight decay did from step {found['decay_unknown_from']} on is in it"
    for layer in sorted(found["auc"], key=layers.index):  # a stored mapping has lost its order
        yield {
            "measure": "mislabel AUC",
            "layer": layer,
            "score": "gamma",
            "value": found["auc"][layer],
            "baseline": found["loss_auc"],
            # A dense ledger has the mean loss of a batch, not each example's own.
            "baseline_name": "summed loss of its batches" if found["shared"] else "summed loss",
            "n": found["examples"],
            "note": note,
        }


def _randomisation_rows(found: Document) -> Iterator[dict[str, object]]:
    """Yield the correlations with a network trained on permuted labels, by layer and score."""
    note = "Spearman against a network trained on permuted labels"
    for row in found["rows"]:
        yield {
            "measure": "randomisation",
            "layer": row["layer"],
            "score": row["score"],
            **correlation_row(row, found["queries"], f"{row['score']}; {note}, "),
        }


def _datamodelling_rows(measure: str, found: Document) -> Iterator[dict[str, object]]:
    """Yield how well scores predict retrainings on subsets, by layer and score, next to the noise ceiling."""
    for row in found["rows"]:
        yield {
            "measure": measure,
            "layer": row["layer"],
            "score": row["score"],
            # In the same order nothing but the subset differs.
            "baseline": 1.0 if measure == SAME_ORDER else found["ceiling"] or np.nan,
            "baseline_name": "noise ceiling",
            **correlation_row(
                row, found["queries"], f"{row['score']}; {found['subsets']} subsets x {found['retrainings']}, "
            ),
        }


def _comparison_rows(found: Document) -> Iterator[dict[str, object]]:
    """Yield the checks of the scores of the whole network and of the baselines."""
    compared = {
        ORDERS["retraining"]: (found["ceiling"] or np.nan, "noise ceiling"),
        SAME_ORDER: (1.0, "noise ceiling"),
        "mislabel AUC": (0.5, "chance"),
        VALIDITY: (VALID, "least correlation for use"),
    }
    rows = [(check, row["score"], stated) for row in found["rows"] for check, stated in row["checks"].items()]
    for check, score, stated in sorted(rows, key=lambda row: row[0]):
        baseline, name = compared.get(check, (np.nan, ""))
        yield {
            "measure": check,
            "score": score,
            "baseline": baseline,
            "baseline_name": name,
            **correlation_row(stated, found["queries"]),
        }


def correlation_row(stated: Document, queries: int, note: str = "") -> dict[str, object]:
    """Return the mean of rank correlations over queries with its spread: NaN where none has two sides that vary."""
    constant = int(stated["constant"])
    value, spread = (np.nan, np.nan) if constant == queries else (stated["value"], stated["spread"])
    counted = ALL_CONSTANT if constant == queries else f"{constant} constant" if constant or note else ""
    return {"value": _or_nan(value), "spread": _or_nan(spread), "n": queries, "note": f"{note}{counted}"}


def _suspect_rows(found: Document) -> Iterator[dict[str, object]]:
    """Yield how well the rankings of suspects find flipped labels, where the truth is known."""
    for column, value in found["auc"].items():
        yield {
            "measure": "mislabel AUC",
            "score": RANKINGS[column],
            "value": value,
            "baseline": 0.5,
            "baseline_name": "chance",
            "n": found["examples"],
            "note": "",
        }


def _or_nan(value: float | None) -> float:
    """Return a number, NaN for none."""
    return np.nan if value is None else value
