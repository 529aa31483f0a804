"""How many images of each class it takes to find the sets."""

import numpy as np
import pandas as pd

from tasks.figures.lines import level, line
from tasks.figures.views import Part, View, base_layout, fixed, in_percent, light_axis

MEASURES = {
    "overlap": ("sets found", "part of the full sets found (%)"),
    "accuracy": ("accuracy", "accuracy A_d (%)"),
}
DOTTED = "2px,3px"


def sample_need_views(rows: pd.DataFrame, a_full: float, a_decomposed: float) -> list[View]:
    """Draw what the sets from few images have in common with those from all, and what they are good for.

    Parameters
    ----------
    rows : of one network and seed: n_images (of each class), overlap, accuracy (0..1)
    a_full, a_decomposed : accuracies of the full head and with the full sets, 0..1
    """
    rows = rows.sort_values("n_images", kind="stable")
    n = rows["n_images"].to_numpy(np.float64)
    ticks = {"type": "log", "tickmode": "array", "tickvals": n.tolist(), "ticktext": [f"{int(x):,}" for x in n]}
    views = []
    for column, (label, title) in MEASURES.items():
        values = 100 * rows[column].to_numpy(np.float64)
        if not np.isfinite(values).any():
            continue
        data: list[Part] = [line(n, np.round(values, 5), label, 0, "%{y:.1f} %")]
        if column == "accuracy":
            data += level(n, 100 * a_decomposed, f"all images, {in_percent(a_decomposed)} %", DOTTED)
            data += level(n, 100 * a_full, f"full head, {in_percent(a_full)} %")
        words = ", ".join(f"{fixed(v, 1)} % from {int(x):,}" for x, v in zip(n, values, strict=True) if np.isfinite(v))
        layout = base_layout(title) | {"xaxis": light_axis("images of each class") | ticks}
        views.append(View(label, f"{title} by the number of images of each class: {words}.", data, layout))
    return views
