"""Why the results of question 1 mean little: networks at chance, distances that unrelated features have too."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.cautions import network_cautions, shortened
from tasks.report.interpretation.results import InterpretationResults

MAX_NAMED = 4  # coresets in a sentence
SEEN = {  # what learns from the images that should be held out
    "features": "{}: features are learned from the images on which they are compared, so none of these is held out. On "
    "new images distances may be larger and accuracies lower.",
    "network": "{}: the network is trained on the images on which features are compared, so none of these is held out. "
    "On new images its accuracy may be lower.",
}


def interpretation_cautions(results: InterpretationResults) -> tuple[str, ...]:
    """Return the warnings of the page."""
    return shortened(_cautions(results))


def _cautions(results: InterpretationResults) -> Iterator[str]:
    """Yield the warnings."""
    yield from (SEEN[what].format(network) for network, what in results.seen.items())
    yield from network_cautions(results.networks, "top1", "n_val")
    rows = results.over_repeats
    if rows.empty or not {"phi_0_mean", "null_0_mean"} <= set(rows.columns):
        return
    for (network, interpreter), mine in rows[rows["budget"] < 1].groupby(["network", "interpreter"], sort=False):
        yield from _within_null(f"{network}, {interpreter}", mine)


def _within_null(of: str, rows: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence on the coresets whose distance, with its spread over draws, is not below the null."""
    distance, null = rows["phi_0_mean"].astype(float), rows["null_0_mean"].astype(float)
    spread = rows["phi_0_std"].astype(float).fillna(0.0) if "phi_0_std" in rows else 0.0
    within = rows[np.isfinite(distance) & (null > 0) & (distance + spread >= null)]
    if within.empty:
        return
    named = [
        f"{selector} {formats.budget(float(budget))} ({formats.radians(float(mean))} rad, unrelated "
        f"{formats.radians(float(unrelated))} rad)"
        for selector, budget, mean, unrelated in zip(
            *(within[name] for name in ("selector", "budget", "phi_0_mean", "null_0_mean")), strict=True
        )
    ]
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    yield (
        f"{of}: with {', '.join(named[:MAX_NAMED])}{more} the features of the coreset are as far from those of all "
        "data as unrelated features are. Nothing follows from these distances."
    )
