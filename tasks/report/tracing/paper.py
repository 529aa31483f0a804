"""Table 1 of Pfahler & Morik (2022), what recording and explaining cost, with the columns of the networks here."""

from dataclasses import replace

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.cells import Cell, Table, number_cell, print_table, text_cell

COLUMNS = ("plain_epoch_seconds", "recorded_epoch_seconds", "kind", "weight_bytes", "explained")
PAPER = pd.DataFrame(
    [
        {
            "of": "paper: CIFAR-10, VGG-16",
            "kind": "every update",
            "weight_bytes": 129e6,
            "steps": 11_685,
            "plain_epoch_seconds": 72.0,
            "recorded_epoch_seconds": 72.0 * 5.53,
            "archive_bytes": 1.5e12,
            "explain_seconds": 600.0,
            "explained": 1,
        },
        {
            "of": "paper: ogbg-ppa, graph network",
            "kind": "every update",
            "weight_bytes": 7.1e6,
            "steps": 278_500,
            "plain_epoch_seconds": 264.0,
            "recorded_epoch_seconds": 264.0 * 1.54,
            "archive_bytes": 1.9e12,
            "explain_seconds": 3960.0,
            "explained": 1,
        },
    ]
)
NOTE = (
    "The paper (one A100) prints 72 s and 264 s an epoch, and that recording adds 453 % and 54 %. The times with "
    "recording follow from these. Its times are by the clock. Those here are CPU time, that of the writing threads "
    "included: the first steps without recording, all steps with it, evaluations left out."
)


def paper_table(networks: pd.DataFrame) -> Table:
    """List what recording and explaining cost, the paper's networks first.

    Parameters
    ----------
    networks : as `TracingResults` describes them; costs that are not known are empty
    """
    named = networks["network"].astype(str) + ", seed " + networks["seed"].astype(str)
    rows = pd.concat([PAPER, networks.assign(of=named)], ignore_index=True)
    for column in COLUMNS:
        rows[column] = rows.get(column, np.nan)
    rows["added"] = rows["recorded_epoch_seconds"] / rows["plain_epoch_seconds"] - 1
    cells: dict[str, Cell] = {
        "training": text_cell("of"),
        "kept": text_cell("kind"),
        "weights": number_cell("weight_bytes", _bytes),
        "updates": number_cell("steps", formats.count),
        "unrecorded": number_cell("plain_epoch_seconds", formats.seconds),
        "recorded": number_cell("recorded_epoch_seconds", formats.seconds),
        "added": number_cell("added", formats.share),
        "archive": number_cell("archive_bytes", _bytes),
        "minutes": number_cell("explain_seconds", _minutes),
        "queries": number_cell("explained", formats.count),
    }
    caption = "Cost of recording and explaining, as in Table 1 of the paper"
    table = print_table(rows, caption, cells, words=2)
    groups = (("", 4), ("an epoch", 3), ("", 1), ("explaining", 2))
    return replace(table, groups=groups, note=NOTE)


def _bytes(value: float) -> str:
    """Print a number of bytes with three digits."""
    if not np.isfinite(value):
        return formats.MISSING
    size, unit = next(
        (s, u) for s, u in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if value >= s or s == 1e3
    )
    return f"{value / size:.3g}{formats.NBSP}{unit}"


def _minutes(value: float) -> str:
    """Print seconds as minutes."""
    return f"{value / 60:.2g}" if np.isfinite(value) else formats.MISSING
