"""Training curves: accuracy and loss by epoch."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tasks.figures.lines import line
from tasks.figures.series import Floats
from tasks.figures.views import Part, View, base_layout, whole_axis


def training_views(curves: pd.DataFrame) -> list[View]:
    """Draw accuracy, loss and, where it was measured, accuracy under attack by epoch, a line per network and seed.

    Parameters
    ----------
    curves : columns network, seed, epoch, loss (nats), accuracy (0..1), maybe robust_accuracy (0..1, NaN unknown)
    """
    views = [
        _training_view(curves, "accuracy", "accuracy", lambda x: 100 * x, "accuracy (%)"),
        _training_view(curves, "loss", "loss", lambda x: x, "loss (nats)"),
    ]
    if "robust_accuracy" in curves:
        attacked = curves.dropna(subset="robust_accuracy")
        views.append(
            _training_view(attacked, "robust_accuracy", "under attack", lambda x: 100 * x, "accuracy under attack (%)")
        )
    return views


def _training_view(
    curves: pd.DataFrame, column: str, label: str, scale: Callable[[Floats], Floats], title: str
) -> View:
    """Return a line per network and seed."""
    data: list[Part] = []
    for i, ((network, seed), rows) in enumerate(curves.groupby(["network", "seed"], sort=False)):
        rows = rows.sort_values("epoch")
        y = scale(rows[column].to_numpy(np.float64))
        x = rows["epoch"].to_numpy(np.float64)
        data.append(line(x, y, f"{network}, seed {seed}", i, "%{y:.4g}"))
    layout = base_layout(title) | {"xaxis": whole_axis("epoch", curves["epoch"])}
    return View(label, f"{title} by epoch, {len(data)} curves.", data, layout)
