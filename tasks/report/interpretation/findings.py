"""The headline findings of the interpretation page: sentences computed from its tables, no stronger than these."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import Series, reference, selector_series
from tasks.report.findings import Finding
from tasks.report.formats import budget, count, radians, radians_spread, share, share_spread


def findings(rows: pd.DataFrame, robustness: pd.DataFrame) -> list[Finding]:
    """State what the tables of one network and interpreter show.

    Parameters
    ----------
    rows : the `over_repeats` rows
    robustness : the `robustness` rows

    Returns
    -------
    findings on budgets, selectors, accuracy and classes left out, in this order
    """
    nulls = dict(zip(*reference(rows, "null_0"), strict=True))
    listed = [Finding("Budget", smallest_budget(line, nulls)) for line in selector_series(rows, "phi_0")]
    listed += [Finding("Selector", text) for text in _selectors(robustness)]
    listed += [Finding("Accuracy", text) for text in _accuracy(rows)]
    listed += [Finding("Left out", text) for text in _left_out(rows)]
    return listed


def smallest_budget(line: Series, nulls: dict[float, float]) -> str:
    """Say from which budget on one selector's distance stays below half of the null.

    The full data is left aside: its distance to itself is 0 whatever the selector.
    """
    points = [
        (b, mean, std, nulls[b])
        for b, mean, std in zip(line.budget, line.mean, line.std, strict=True)
        if b < 1 and np.isfinite(mean) and nulls.get(b, 0.0) > 0  # a null of 0 separates nothing
    ]
    if not points:
        return f"{line.name}: no distance is known at a budget below 100 %, so nothing can be said."
    below = [mean < null / 2 for _, mean, _, null in points]
    first = len(below) - int(np.argmin([*below[::-1], False]))  # after the last point that is not below
    if first == len(points):
        b, mean, std, null = min(points, key=lambda point: point[1] / point[3])
        return (
            f"{line.name}: the distance does not stay below half of the null from any budget on. "
            f"It is closest at {budget(b)}: {radians_spread(mean, std)} rad (null {radians(null)} rad)."
        )
    b, mean, std, null = points[first]
    smallest = ", the smallest budget tried" if first == 0 else ""
    return (
        f"{line.name}: the distance is below half of the null from {budget(b)} of each class on{smallest} "
        f"({radians_spread(mean, std)} rad, null {radians(null)} rad)."
    )


def _selectors(robustness: pd.DataFrame) -> Iterable[str]:
    """Compare the selectors' mean distance, and say whether the difference exceeds the spread over repeats."""
    finite = robustness[np.isfinite(robustness["mean_0"])].sort_values("mean_0", kind="stable")
    if len(finite) < 2:
        return
    listed = ", ".join(
        f"{row['selector']} {radians_spread(row['mean_0'], row['mean_0_spread'])}" for _, row in finite.iterrows()
    )
    gap = finite["mean_0"].iloc[1] - finite["mean_0"].iloc[0]
    spread = float(finite["mean_0_spread"].iloc[:2].max())  # NaN only where neither has repeats
    if not spread > 0:
        verdict = "With one draw of each, a difference may be chance."
    elif gap > 2 * spread:
        verdict = "The first two differ by more than twice the spread over repeats."
    else:
        verdict = "The first two differ by less than twice the spread over repeats: no difference is shown."
    yield f"Mean distance over budgets from 10 % to 50 %, nearest first: {listed} rad. {verdict}"


def _accuracy(rows: pd.DataFrame) -> Iterable[str]:
    """Compare accuracy with reconstructed maps at the largest and the smallest budget with the plain one."""
    _, plain = reference(rows, "accuracy_plain")
    lines = [line for line in selector_series(rows, "accuracy") if np.isfinite(line.mean).any()]
    if not lines or not len(plain):
        return
    finite = rows[np.isfinite(rows["accuracy_mean"])]
    full, least = finite["budget"].max(), finite["budget"].min()
    at_full = finite.loc[finite["budget"] == full, "accuracy_mean"].mean()
    text = (
        f"Unmodified, the network classifies {share(plain.mean())} of the validation images correctly. With maps "
        f"rebuilt from features learned on {budget(full)} of the data it classifies {share(at_full)}"
    )
    if least < full:
        at_least = [
            f"{row['selector']} {share_spread(row['accuracy_mean'], row['accuracy_std'])}"
            for _, row in finite[finite["budget"] == least].iterrows()
        ]
        text += f", on {budget(least)}: {', '.join(at_least)}"
    yield text + "."


def _left_out(rows: pd.DataFrame) -> Iterable[str]:
    """Count the classes without a distance where there are any."""
    if "left_out_mean" in rows and rows["left_out_mean"].max() > 0:
        worst = rows.iloc[int(np.argmax(rows["left_out_mean"].fillna(0)))]
        yield (
            f"Φ leaves out classes without a distance. The most are left out "
            f"with {worst['selector']} at {budget(worst['budget'])}: {count(worst['left_out_mean'])} on average."
        )
