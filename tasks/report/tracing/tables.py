"""Tables of the tracing page."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.figures.views import compact
from tasks.report import formats
from tasks.report.cells import Cell, Table, float_in, number_cell, print_table, spread_cell, text_cell

MAX_LAYERS = 200
UNKNOWN = "unknown"
UNKNOWN_NOTE = (
    "Decay is unknown where the optimiser divides it (Adam), where momentum carries it over steps that were not "
    "recorded, or where a layer's weight or bias alone was frozen. Unknown decay is in the examples' part."
)
GHOSTS_NOTE = (
    "Batch and ghosts are the two parts of the examples' part, by the gradients of each: a ghost's gradient flows "
    "through the statistics of normalisation, and no example is credited with it. `detach_ghosts` in a training's "
    "`batches` stops it. Unknown where a layer's updates are split equally."
)


def networks_table(networks: pd.DataFrame) -> Table:
    """List the networks, how well they do and what recording and explaining cost."""
    cells: dict[str, Cell] = {
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "model": text_cell("model"),
        "anchor": text_cell("anchor"),
        "accuracy": number_cell("accuracy", formats.share),
        "loss": number_cell("loss", compact),
        "steps": number_cell("steps", formats.count),
        "layers traced": number_cell("layers", formats.count),
        "archive": lambda row: formats.megabytes(float_in(row, "archive_bytes") / 1e6),
        "training waited": number_cell("recorder_waited_seconds", formats.seconds),
        "explaining": number_cell("explain_seconds", formats.seconds),
    }
    caption = (
        "Networks traced: accuracy, size of the recorded updates, time that training waited for the recorder, and time "
        "to explain all queries"
    )
    return print_table(networks, caption, cells, words=4, csv="data/tracing_networks.csv")


def layers_table(rows: pd.DataFrame) -> Table:
    """List the layers of one network and seed."""
    parts = {"init_share": "initial", "examples_share": "examples", "decay_share": "decay"}
    if "unrecorded_share" in rows and (rows["unrecorded_share"].fillna(0) != 0).any():
        parts["unrecorded_share"] = "not recorded"
    cells: dict[str, Cell] = {
        "layer": text_cell("layer"),
        "kind": text_cell("kind"),
        "weights": number_cell("weights", formats.count),
    }
    if "ghosts_share" in rows and rows["ghosts_share"].notna().any():
        parts |= {"batch_share": "batch", "ghosts_share": "ghosts"}
    cells |= {title: number_cell(column, formats.part) for column, title in parts.items()}
    cells["decay"] = lambda row: UNKNOWN if np.isnan(row["decay_share"]) else formats.part(row["decay_share"])
    cells |= {
        "largest": number_cell("residual_max", formats.residual),
        "median": number_cell("residual_median", formats.residual),
        "@1": number_cell("agreement_1", formats.share),
        "@10": number_cell("agreement_10", formats.share),
        "cardinality": number_cell("cardinality", formats.share),
    }
    caption = (
        "Layers in order of depth: parts of ‖z‖², the residual, and the share of the top-k examples that are of the "
        "predicted class; means over queries"
    )
    table = print_table(rows.head(MAX_LAYERS), caption, cells, words=2, csv="data/tracing_layers.csv")
    groups = (("", 3), ("part of ‖z‖²", len(parts)), ("residual", 2), ("class agreement", 2), ("", 1))
    notes = [f"The first {MAX_LAYERS} of {len(rows):,} layers."] if len(rows) > MAX_LAYERS else []
    if rows["decay_share"].isna().any():
        notes.append(UNKNOWN_NOTE)
    if "ghosts_share" in parts:
        notes.append(GHOSTS_NOTE)
    return replace(table, groups=groups, note=" ".join(notes))


def evaluation_table(evaluation: pd.DataFrame) -> Table:
    """List the measures of trust, each with its baseline or ceiling."""
    cells: dict[str, Cell] = {
        "measure": text_cell("measure"),
        "network": text_cell("network"),
        "seed": text_cell("seed"),
        "layer": text_cell("layer"),
        **({"score": text_cell("score")} if "score" in evaluation else {}),
        "value": spread_cell("value", "spread", formats.measure_spread),
        "compare with": number_cell("baseline", formats.measure),
        "which is": text_cell("baseline_name"),
        "n": number_cell("n", formats.count),
        "note": text_cell("note"),
    }
    caption = "Evaluation: each measure ± its spread, and the baseline or ceiling to compare it with"
    table = print_table(evaluation, caption, cells, words=4, csv="data/tracing_evaluation.csv")
    words = {"which is", "note"}
    columns = [replace(c, numeric=False, wraps=c.title == "note") if c.title in words else c for c in table.columns]
    return replace(table, columns=tuple(columns))


def classes_table(classes: pd.DataFrame, layer: str, *, of_layer: bool = True) -> Table:
    """List how much each class contributed to one query, in a layer or by a score of the whole network."""
    cells: dict[str, Cell] = {
        "class": text_cell("class_name"),
        "share of ‖z‖²" if of_layer else "share": number_cell("share", formats.signed_share),
        "sum of γ" if of_layer else "sum": number_cell("sum", formats.signed),
    }
    caption = f"Contribution of each class to layer {layer}" if of_layer else f"Sum of each class by {layer}"
    if "examples" in classes:
        cells["examples"] = number_cell("examples", formats.count)
        caption += f", summed over the top {classes['examples'].sum():,.0f} examples only"
    return print_table(classes, caption, cells)
