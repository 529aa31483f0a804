"""What the selectors of question 1 log of their coresets, as a table."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from storage.stages import markers_of, open_finished
from storage.stores import Store
from tasks.steps.interpretation.plan import Cell
from tasks.steps.interpretation.selection import logged_parameters

KEYS = ("network", "seed", "selector", "coreset_from", "repeat", "budget")


def selection_table(store: Store, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return a row per coreset and class: the samples kept, and what the selector logs.

    `median_distance` is the median distance to a neighbour, `gamma_f`, `gamma_r`, `scale`, `combine` and `message` the
    settings of dgpruning; NaN and None for other selectors.
    """
    unique = unique_coresets(cells)
    records = markers_of([open_finished(store, cell.selection) for cell in unique])
    rows = []
    for cell, partitions in zip(unique, records, strict=True):
        keys = {key: getattr(cell, key) for key in KEYS} | logged_parameters(cell.selection)
        for label, logged in ((k, v) for record in partitions for k, v in record["numbers"]["classes"].items()):
            rows.append({**keys, "label": int(label), "median_distance": np.nan, **logged})
    return pd.DataFrame(rows)


def unique_coresets(cells: Sequence[Cell]) -> list[Cell]:
    """Return one cell of each coreset: interpreters share coresets."""
    return list({(c.network, c.seed, c.selector, c.repeat, c.budget): c for c in cells}.values())
