"""The headline findings of the interpretation page: sentences computed from its tables, no stronger than these."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import Series, nearly_all, reference, selector_series
from tasks.report.findings import Finding
from tasks.report.formats import budget, count, radians, radians_spread, share, share_spread

NOTHING = 1e-4  # by how much the relative error of empty maps, which is 1, may differ from 1
ROUNDING = 1e-6  # radians: a smaller difference of distances is rounding


def findings(rows: pd.DataFrame, robustness: pd.DataFrame) -> list[Finding]:
    """State what the tables of one network and interpreter show.

    Parameters
    ----------
    rows : the `over_repeats` rows
    robustness : the `robustness` rows

    Returns
    -------
    findings on budgets, selectors, the 95 % reference, accuracy, classes and numbers left out, and on features that
    rebuild nothing, in this order
    """
    nulls = dict(zip(*reference(rows, "null_0"), strict=True))
    listed = [Finding("Budget", smallest_budget(line, nulls)) for line in selector_series(rows, "phi_0")]
    listed += [Finding("Selector", text) for text in _selectors(robustness)]
    listed += [Finding("95 %", text) for text in _nearly_all(rows)]
    listed += [Finding("Accuracy", text) for text in (*_accuracy(rows), *_without_units(rows))]
    listed += [Finding("Left out", text) for text in _left_out(rows)]
    listed += [Finding("Negative", text) for text in _clamped(rows)]
    listed += [Finding("Empty", text) for text in _empty(rows)]
    return listed


def smallest_budget(line: Series, nulls: dict[float, float]) -> str:
    """Say from which budget on one selector's distance, with its spread, stays below half of the null.

    The full data is left aside: its distance to itself is 0 whatever the selector.
    """
    points = known_points(line, nulls)
    if not points:
        return f"{line.name}: {missing_below([line])}, so nothing can be said."
    first = first_below(points)
    if first is None:
        nearest = min(points, key=lambda point: point.mean / point.null)
        return (
            f"{line.name}: the distance does not stay below half of the null from any budget on. "
            f"It is closest at {budget(nearest.budget)}: {radians_spread(nearest.mean, nearest.std)} rad "
            f"(null {radians(nearest.null)} rad)."
        )
    smallest = ", the smallest budget tried" if first is points[0] else ""
    return (
        f"{line.name}: the distance is below half of the null from {budget(first.budget)} on{smallest} "
        f"({radians_spread(first.mean, first.std)} rad, null {radians(first.null)} rad)."
    )


class Point(NamedTuple):
    """The distance of a selector at one budget, with its spread over draws (NaN unknown) and its null."""

    budget: float
    mean: float
    std: float
    null: float


def known_points(line: Series, nulls: dict[float, float]) -> list[Point]:
    """Return the points of a line below the full data that have a distance and a null, by rising budget."""
    return [
        Point(b, mean, std, nulls[b])
        for b, mean, std in zip(line.budget.tolist(), line.mean.tolist(), line.std.tolist(), strict=True)
        if b < 1 and np.isfinite(mean) and nulls.get(b, 0.0) > 0  # a null of 0 separates nothing
    ]


def missing_below(lines: Iterable[Series]) -> str:
    """Say what lines without known points miss at their budgets below the full data: distances, or only their nulls."""
    if any(np.isfinite(line.mean[line.budget < 1]).any() for line in lines):
        return "no null distance is known at a budget below 100 % (it needs two evaluated images of a class)"
    return "no distance is known at a budget below 100 %"


def first_below(points: Sequence[Point]) -> Point | None:
    """Return the first point from which on mean + spread stays below half of the null, None without one."""
    below = [point.mean + float(np.nan_to_num(point.std)) < point.null / 2 for point in points]
    start = len(below) - int(np.argmin([*below[::-1], False]))  # after the last point that is not below
    return points[start] if start < len(points) else None


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
    if np.isnan(spread):
        verdict = "With one draw of each, a difference may be chance."
    elif gap > max(2 * spread, ROUNDING):
        verdict = "The first two differ by more than twice the spread over repeats."
    else:
        verdict = "The first two differ by at most twice the spread over repeats: no difference is shown."
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


def _nearly_all(rows: pd.DataFrame) -> Iterable[str]:
    """State what remains with 95 % of the data, where the config has this budget."""
    distance, null = nearly_all(rows, "phi_0"), nearly_all(rows, "null_0")
    if np.isfinite(distance):
        yield (
            f"With 95 % of the data the distance is {radians(distance)} rad, mean over selectors "
            f"(null {radians(null)} rad). A coreset near this level shows what nearly all data shows."
        )


def _without_units(rows: pd.DataFrame) -> Iterable[str]:
    """State the accuracy without each class's units at the largest and the smallest budget."""
    if "accuracy_without_mean" not in rows or rows["accuracy_without_mean"].isna().all():
        return
    _, plain = reference(rows, "accuracy_plain")
    finite = rows[np.isfinite(rows["accuracy_without_mean"])]
    text = f"Unmodified, the network classifies {share(plain.mean())} of the validation images correctly."
    for at in dict.fromkeys((finite["budget"].max(), finite["budget"].min())):
        part = finite[finite["budget"] == at]
        text += (
            f" With the units of a class from {budget(at)} of the data set to 0 it classifies "
            f"{share(part['accuracy_without_mean'].mean())} ({count(round(part['units_mean'].mean(), 1))} units "
            "a class)."
        )
    yield text


def _clamped(rows: pd.DataFrame) -> Iterable[str]:
    """Count the negative activations that were read as 0 where there are any."""
    if "clamped_mean" in rows and rows["clamped_mean"].max() > 0:
        worst = rows.iloc[int(np.argmax(rows["clamped_mean"].fillna(0)))]
        yield (
            "The layer has negative activations, which a factorisation reads as 0. The most are with "
            f"{worst['selector']} at {budget(worst['budget'])}: {count(worst['clamped_mean'])} numbers on average. "
            "`negative: shift` keeps them."
        )


def _empty(rows: pd.DataFrame) -> Iterable[str]:
    """Count the coresets from which nothing of a map is rebuilt, where there are any."""
    known = rows["error_val_mean"].dropna() if "error_val_mean" in rows else pd.Series(dtype=float)
    if empty := int(is_empty(known).sum()):
        yield (
            f"At {empty} of {len(known)} selectors and budgets nothing of the maps is rebuilt, as no feature responds. "
            "Distances and accuracy then say nothing. Train topics for more steps (`epochs`, a smaller `batch`, more "
            "images), with a larger `lr`, or lower their `threshold`."
        )


def is_empty(errors: pd.Series) -> pd.Series:
    """Say which relative errors are those of empty maps, 1; worse ones are above 1, as features responded."""
    return (errors - 1).abs() <= NOTHING


def _left_out(rows: pd.DataFrame) -> Iterable[str]:
    """Count the classes without a distance where there are any."""
    if "left_out_mean" in rows and rows["left_out_mean"].max() > 0:
        worst = rows.iloc[int(np.argmax(rows["left_out_mean"].fillna(0)))]
        yield (
            f"Φ leaves out classes without a distance. The most are left out "
            f"with {worst['selector']} at {budget(worst['budget'])}: {count(worst['left_out_mean'])} on average."
        )
