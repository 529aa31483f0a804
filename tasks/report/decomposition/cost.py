"""Findings and table on what the decomposed head saves, and where it does not pay."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.figures.views import compact
from tasks.report import formats
from tasks.report.cells import Cell, Table, float_in, number_cell, print_table
from tasks.report.formats import MISSING, NBSP


def cost_findings(head_times: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say what is saved in multiply-adds and in time, with the head's share of the network."""
    full, decomposed = float(network["macs_full"]), float(network["macs_decomposed"])
    share = float(network["head_share"])
    if np.isfinite(full) and np.isfinite(decomposed) and decomposed > 0:
        text = f"The head needs {decomposed:,.0f} instead of {full:,.0f} multiply-adds, "
        text += f"{full / decomposed:,.1f} times fewer"
        if np.isfinite(share):
            saved = share * (1 - decomposed / full)
            text += (
                f". The head has {percent(share)} of the network's multiply-adds, so {percent(saved)} of them are saved"
            )
        yield f"{text}."
    measured = head_times[(head_times["dense_ms"].astype(float) > 0) & (head_times["decomposed_ms"].astype(float) > 0)]
    if measured.empty:
        return
    ratio = (measured["decomposed_ms"] / measured["dense_ms"]).astype(float)
    slower = [f"{int(b):,}" for b in measured["batch"][ratio >= 1]]
    best = int(measured["batch"].iloc[int(ratio.to_numpy().argmin())])
    text = f"Measured, the decomposed head takes {times(ratio.min())} the time of the dense one at batch {best:,}"
    if slower:
        yield f"{text}, its best. It is not faster at batch {', '.join(slower)}."
    else:
        yield f"{text}, its best, and is faster at all {len(measured)} batch sizes tried."


def head_times_table(rows: pd.DataFrame) -> Table:
    """List the time of both heads by batch size."""
    cells: dict[str, Cell] = {
        "batch": number_cell("batch", formats.count),
        "dense": number_cell("dense_ms", milliseconds),
        "decomposed": number_cell("decomposed_ms", milliseconds),
        "decomposed / dense": lambda row: times(float_in(row, "decomposed_ms") / float_in(row, "dense_ms")),
        "pays": lambda row: _is_faster(float_in(row, "decomposed_ms"), float_in(row, "dense_ms")),
    }
    caption = "Time of the head alone for a batch, median"
    return print_table(rows.astype({"dense_ms": float}), caption, cells, csv="data/decomposition_head_times.csv")


def percent(share: float) -> str:
    """Print a share of unknown size in percent, three digits."""
    return f"{compact(100 * share)}{NBSP}%" if np.isfinite(share) else MISSING


def times(ratio: float) -> str:
    """Print a factor."""
    return f"{ratio:.2f}{NBSP}×" if np.isfinite(ratio) else MISSING


def milliseconds(value: float) -> str:
    """Print a short time."""
    return f"{compact(value)}{NBSP}ms" if np.isfinite(value) else MISSING


def _is_faster(decomposed: float, dense: float) -> str:
    """Say whether the decomposed head is faster."""
    if not (np.isfinite(decomposed) and np.isfinite(dense)):
        return MISSING
    return "yes" if decomposed < dense else "no"
