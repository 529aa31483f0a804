"""The cost of each coreset of question 1: time and peak memory of its selection, its features and their evaluation."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from storage.specs import StageSpec
from storage.stores import Store
from tasks.steps.common.costs import Cost, costs_of
from tasks.steps.interpretation.plan import Cell

PARTS = ("selection", "features", "evaluation", "scores")
KEYS = ("network", "seed", "interpreter", "selector", "repeat", "budget")


def cost_table(store: Store, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return a row per coreset and interpreter: `{part}_seconds` and `{part}_peak_mb` of each part of PARTS.

    A part counts the stages that depend on the coreset. What all coresets share, such as the activations, is left out.
    The features of units count the sums of smaller coresets that theirs grow from, each once. Only first draws have
    scores, NaN elsewhere: a mean over draws is that of the scores that were computed.
    """
    stages = [stages_of(cell) for cell in cells]
    unique = list({spec.path: spec for parts in stages for specs in parts for spec in specs}.values())
    costs = dict(zip((spec.path for spec in unique), costs_of(store, unique), strict=True))
    rows = []
    for cell, parts in zip(cells, stages, strict=True):
        row: dict[str, object] = {key: getattr(cell, key) for key in KEYS}
        for part, specs in zip(PARTS, parts, strict=True):
            row |= _summed(part, [costs[spec.path] for spec in specs])
        rows.append(row)
    return pd.DataFrame(rows)


def stages_of(cell: Cell) -> tuple[list[StageSpec], ...]:
    """Return the stages of each part of PARTS of a cell: the last is empty where the cell has no scores."""
    scores = [cell.scores] if cell.scores is not None else []
    return [cell.selection], list(_between(cell.features, cell.selection)), [cell.evaluation], scores


def _between(spec: StageSpec, selection: StageSpec) -> Iterator[StageSpec]:
    """Yield `spec` and the stages behind it that depend on a coreset, each once."""
    seen: dict[str, bool] = {}

    def depends(one: StageSpec) -> bool:
        if one.path not in seen:
            below = [depends(part) for part in one.inputs.values()]
            seen[one.path] = one.stage == selection.stage or any(below)
        return seen[one.path]

    listed, waiting = set(), [spec]
    while waiting:
        one = waiting.pop()
        if one.path in listed or one.stage == selection.stage or not depends(one):
            continue
        listed.add(one.path)
        waiting += one.inputs.values()
        yield one


def _summed(part: str, costs: Sequence[Cost]) -> dict[str, float]:
    """Return the seconds of all stages of a part, and the peak memory of the largest, NaN where it is unknown."""
    peak = max((cost.peak_mb for cost in costs), default=0.0)
    return {
        f"{part}_seconds": sum(cost.seconds for cost in costs) if costs else np.nan,
        f"{part}_peak_mb": peak or np.nan,
    }
