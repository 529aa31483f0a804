"""Findings on whether the sets are special: controls, retraining and class-specific gates."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from tasks.figures.decomposition.method_bars import method_name
from tasks.figures.decomposition.retraining_curves import curve_of
from tasks.figures.views import in_percent
from tasks.report import formats
from tasks.report.decomposition.claims import Rivals, rivals_of
from tasks.report.decomposition.verdicts import chance, chance_of_draws, points

OPEN_GATES = 0.5  # mean gate beyond which the largest gates are hardly larger than the others


def control_finding(controls: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say which method of choosing features wins at the main k, and whether chance explains it."""
    rivals = rivals_of(controls, int(network["k2"]), float(network["n_evaluate"]))
    if rivals is None:
        return
    if rivals.others:
        yield _against_the_best(rivals)
    if rivals.random is not None:
        mean, spread, draws = rivals.random
        gap = rivals.histogram - mean
        limit = chance_of_draws((rivals.histogram, float("nan")), (mean, spread), rivals.n_images)
        text = f"Random sets of {rivals.k} reach {formats.share_spread(mean, spread)} "
        text += f"({draws} {'draw' if draws == 1 else 'draws'}); Algorithm 1 is {points(gap)} "
        text += "above" if gap >= 0 else "below"
        yield text + (", within chance: it is not shown to be better than random sets." if gap <= limit else ".")


def retraining_findings(rows: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Say how much of what decomposing lost comes back."""
    full = float(network["a_full"])
    for scope, name in (("head", "the decomposed head alone, features fixed"), ("network", "the whole network")):
        epochs, accuracy = curve_of(rows, scope, "accuracy")
        if len(epochs) < 2:
            continue
        n = int(epochs[-1])
        before, after = float(accuracy[0]), float(accuracy[-1])
        text = (
            f"Retraining {name}, {n} {'epoch' if n == 1 else 'epochs'}: from {formats.share(before)} to "
            f"{formats.share(after)} (full head {formats.share(full)})"
        )
        if not full > before:
            yield f"{text}. Decomposing had lost nothing."
        elif after <= before:
            yield f"{text}: it recovers nothing of the {points(full - before)} lost."
        else:
            part = (after - before) / (full - before)
            more = f"all of the {points(full - before)} lost and {points(after - full)} more"
            less = f"{in_percent(part, 0)}{formats.NBSP}% of the {points(full - before)} lost"
            yield f"{text}: it recovers {less if after < full else more if after > full else 'all that was lost'}."


def gate_findings(gates: pd.DataFrame, network: pd.Series) -> Iterable[str]:
    """Compare training with class-specific gates with Algorithm 1."""
    for _, row in gates.iterrows():
        text = (
            f"Trained with class-specific gates, the network classifies {formats.share(float(row['std_accuracy']))} "
            f"of the {row['split']} images without gates. With the gates of the true class, which need the label, it "
            f"classifies {formats.share(float(row['csg_accuracy']))}"
        )
        if np.isfinite(float(row["overlap"])):
            text += f". The sets of the largest gates share {formats.share(float(row['overlap']))} with Algorithm 1's"
        if np.isfinite(float(row["a_decomposed"])):
            text += f"; with them the decomposed head reaches {formats.share(float(row['a_decomposed']))}"
        if float(row["mean_gate"]) > OPEN_GATES:
            text += (
                f". The mean gate is {formats.measure(float(row['mean_gate']))} of 1: the gates hardly closed, so the "
                "sets of the largest gates say little. A larger gates.lr closes them"
            )
        yield f"{text}."


def _against_the_best(rivals: Rivals) -> str:
    """Compare Algorithm 1 with the best of the other methods, random sets apart."""
    (best, value), n = rivals.others[0], len(rivals.others)
    gap = rivals.histogram - value
    text = f"With {rivals.k} features per class Algorithm 1 reaches {formats.share(rivals.histogram)}; "
    text += f"the best of {n} other methods, " if n > 1 else "the other method, "
    equal = sum(accuracy == value for _, accuracy in rivals.others[1:])
    text += f"{method_name(best)}{f' and {equal} equal to it' if equal else ''}, {formats.share(value)}. "
    if rivals.state == "open":
        text += f"The difference of {points(gap)} is within chance (two standard errors, {points(rivals.limit)}): "
        return text + "the histogram is not shown to be special."
    if rivals.state == "yes":
        return text + f"The histogram wins by {points(gap)}."
    better = sum(a - rivals.histogram > chance(rivals.histogram, a, rivals.n_images) for _, a in rivals.others)
    return text + f"The histogram loses by {points(gap)}; {better} of {n} methods are better beyond chance."
