"""Tables of a run's stages and of what they cost."""

from dataclasses import replace

import pandas as pd

from tasks.report import formats
from tasks.report.cells import Cell, Table, number_cell, print_table, text_cell

MAX_STAGES = 400


def stage_table(stages: pd.DataFrame) -> Table:
    """List every stage with its cost."""
    cells: dict[str, Cell] = {
        "stage": text_cell("stage"),
        "of": text_cell("label"),
        "key": lambda row: formats.text(row["key"])[:12],
        "partitions": number_cell("partitions", formats.count),
        "time": number_cell("seconds", formats.seconds),
        "peak memory": number_cell("peak_mb", formats.megabytes),
        "reused": lambda row: formats.yes_no(row["reused"]),
    }
    caption = "Stages: wall-clock time and peak memory. An earlier run computed the reused stages, at the cost shown"
    table = print_table(stages.head(MAX_STAGES), caption, cells, words=3, csv="data/stages.csv")
    note = f"The first {MAX_STAGES} of {len(stages):,} stages." if len(stages) > MAX_STAGES else ""
    return replace(table, note=note)


def cost_table(stages: pd.DataFrame) -> Table:
    """Sum the cost up by kind of stage, in the order of the run."""
    grouped = stages.groupby("stage", sort=False)
    summed = grouped.agg(
        number=("key", "size"), partitions=("partitions", "sum"), reused=("reused", "sum"), peak_mb=("peak_mb", "max")
    )
    summed["seconds"] = grouped["seconds"].sum(min_count=1)
    cells: dict[str, Cell] = {
        "stage": text_cell("stage"),
        "number": number_cell("number", formats.count),
        "of these reused": number_cell("reused", formats.count),
        "partitions": number_cell("partitions", formats.count),
        "time": number_cell("seconds", formats.seconds),
        "peak memory": number_cell("peak_mb", formats.megabytes),
    }
    caption = "Cost by kind of stage: wall-clock time summed, peak memory of the largest"
    return print_table(summed.reset_index(), caption, cells, csv="data/stages.csv")
