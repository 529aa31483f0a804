"""Findings on the sets themselves: coverage, classes, overlap, and the number of images that they need."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.decomposition.verdicts import points, verdict

CLAIMED_K1, CLAIMED_SHARE = "5", 0.9
FOUND = 0.9  # of the full sets


def coverage_finding(coverage: pd.DataFrame, k1: str) -> Iterable[str]:
    """Say what few features hold; means of classes, each weighed by its images."""
    if coverage.empty:
        return
    share = image_mean(coverage, "own_top_share")
    if np.isfinite(share):
        least = coverage.iloc[int(np.nanargmin(coverage["own_top_share"].to_numpy(np.float64)))]
        printed = formats.share(share)
        text = f"Each image's own largest features (k1 = {k1}) hold {printed} of the l1 norm, mean over images"
        if len(coverage) > 1:
            text += f". The least is {formats.share(least['own_top_share'])}, in {least['class_name']}"
        text += ". "
        if k1 == CLAIMED_K1:
            text += f"{verdict('k1 = 5 covers 90 %', share >= CLAIMED_SHARE)}."
        else:
            text += "The paper's claim that k1 = 5 covers 90 % is not tested by this k1."
        yield text
    parts = (
        ("l1_share", "the l1 norm"),
        ("histogram_share", "the counts"),
        ("logit_share", "the positive contribution to the own logit"),
    )
    held = [f"{formats.share(image_mean(coverage, column))} of {name}" for column, name in parts]
    yield (
        f"The sets hold {', '.join(held[:-1])} and {held[-1]} of their classes' images. These are means of the "
        f"classes, each weighed by its number of images, {int(np.nansum(coverage['n'].to_numpy(np.float64))):,} in all."
    )


def image_mean(coverage: pd.DataFrame, column: str) -> float:
    """Return the mean over images: classes weigh by their images; NaN where nothing is known."""
    value, n = (coverage[name].to_numpy(np.float64) for name in (column, "n"))
    finite = np.isfinite(value) & (n > 0)
    return float(np.average(value[finite], weights=n[finite])) if finite.any() else float("nan")


def class_findings(classes: pd.DataFrame) -> Iterable[str]:
    """Name the class that decomposing costs most, and count those it costs nothing."""
    change = (classes["a_decomposed"] - classes["a_full"]).to_numpy(np.float64)
    finite, change = classes[np.isfinite(change)], change[np.isfinite(change)]
    if len(finite) < 2:
        return
    worst = finite.iloc[int(change.argmin())]
    n_better, n_worse = int((change > 0).sum()), int((change < 0).sum())
    text = f"{n_worse:,} of {len(finite):,} classes lose accuracy, {n_better:,} gain"
    if change.min() < 0:
        text += (
            f"; most is lost by {worst['class_name']}: {formats.share(worst['a_full'])} to "
            f"{formats.share(worst['a_decomposed'])}, {points(change.min())}"
        )
    yield f"{text}."


def overlap_finding(network: pd.Series) -> Iterable[str]:
    """Say how much two sets share and how many features are in any."""
    mean, union = float(network["overlap_mean"]), float(network["union"])
    parts = []
    if np.isfinite(mean):
        parts.append(f"Two classes have {formats.share(mean)} of their sets in common on average")
    if np.isfinite(union):
        d = int(network["n_features"])
        parts.append(f"{int(union):,} of {d:,} features are in any set ({formats.share(union / d)})")
    if parts:
        yield "; ".join(parts) + "."


def sample_finding(rows: pd.DataFrame) -> Iterable[str]:
    """Say how many images give most of the sets."""
    finite = rows[np.isfinite(rows["overlap"].astype(float))].sort_values("n_images", kind="stable")
    if finite.empty:
        return
    below = np.flatnonzero(finite["overlap"].to_numpy(np.float64) < FOUND)
    first = int(below[-1]) + 1 if len(below) else 0
    if first == len(finite):
        last = finite.iloc[-1]
        yield (
            f"{_first_images(last)} of each class, the most tried, {'does' if last['n_images'] == 1 else 'do'} not "
            f"give {formats.budget(FOUND)} of the full sets: {formats.share(last['overlap'])}, accuracy "
            f"{formats.share(last['accuracy'])}."
        )
        return
    row = finite.iloc[first]
    small = ", the fewest tried" if first == 0 else ""
    yield (
        f"{_first_images(row)} of each class {'gives' if row['n_images'] == 1 else 'give'} "
        f"{formats.share(row['overlap'])} of the full sets{small}. The accuracy with these sets is "
        f"{formats.share(row['accuracy'])}."
    )


def _first_images(row: pd.Series) -> str:
    """Name the images of each class that sets come from."""
    n = int(row["n_images"])
    return "The first image" if n == 1 else f"The first {n:,} images"
