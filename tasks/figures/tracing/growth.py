"""Growth of the adjoint: how strongly a change of the weights before each step reaches the answers."""

import numpy as np
import pandas as pd

from tasks.figures.lines import line
from tasks.figures.views import View, base_layout, compact, light_axis, whole_axis

MAX_POINTS = 1000


def growth_views(growth: pd.DataFrame) -> list[View]:
    """Draw the growth by step on a logarithmic axis.

    Parameters
    ----------
    growth : columns step (int), growth (largest norm of a query's adjoint before the step over its norm at the end)
    """
    every = -(-len(growth) // MAX_POINTS)
    runs = growth.groupby(growth.index // every)  # the largest of each run of steps
    steps, values = runs["step"].first().to_numpy(np.float64), runs["growth"].max().to_numpy(np.float64)
    shown = np.where(np.isfinite(values) & (values > 0), values, np.nan)
    largest = float(np.nanmax(shown)) if np.isfinite(shown).any() else float("nan")
    layout = base_layout("growth of the adjoint") | {"xaxis": whole_axis("step", steps)}
    layout["yaxis"] = {**light_axis("growth of the adjoint"), "type": "log"}
    alt = f"Growth of the adjoint over {len(growth):,} steps, at most {compact(largest)}."
    drawn = line(steps, shown, "largest of all queries", 0, "%{y:.3g}") | {"mode": "lines"}
    return [View("growth", alt, [drawn], layout)]
