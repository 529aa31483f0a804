"""The coreset paper's three observations: whether they held here, with the numbers and what counts as noise."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from tasks.figures.interpretation.budgets import BASELINE, Series, pairs, reference, selector_series
from tasks.report.findings import Finding
from tasks.report.formats import budget, minus, radians, radians_spread, signed_points
from tasks.report.interpretation.findings import ROUNDING, first_below, is_empty, known_points, missing_below

State = Literal["held", "held in part", "did not hold", "cannot be said"]
SMALL = 0.5  # the paper's largest coreset


@dataclass(frozen=True)
class Observation:
    """An observation of the paper: whether it held for one network.

    Attributes
    ----------
    about : a word or two that name it
    state : the verdict
    text : the claim and how many cases show it
    evidence : the numbers, a sentence per interpreter
    """

    about: str
    state: State
    text: str
    evidence: tuple[str, ...] = ()

    @property
    def finding(self) -> Finding:
        """The observation as a finding, the verdict first."""
        return Finding(self.about, f"{self.state[0].upper()}{self.state[1:]}. {self.text}")


def observations(
    over_repeats: pd.DataFrame, robustness: pd.DataFrame, against_random: pd.DataFrame, with_budget: pd.DataFrame
) -> list[Observation]:
    """Judge the paper's observations for one network by its own coresets.

    Parameters
    ----------
    over_repeats, robustness, against_random, with_budget : rows of one network, without transferred coresets; spreads
        of single draws are NaN

    Returns
    -------
    observations on small coresets, on the random baseline, on larger budgets and on robustness; without interpreters
    whose features rebuild nothing of the maps, since their distances say nothing
    """
    silent = _silent(over_repeats)
    tables = (over_repeats, robustness, against_random, with_budget)
    over_repeats, robustness, against_random, with_budget = (
        table[~table["interpreter"].isin(silent)] if len(table) else table for table in tables
    )
    small = _small_coresets(over_repeats)
    left_out = [f"{name}: left out, as its features rebuild nothing of the maps." for name in silent]
    return [
        replace(small, evidence=(*small.evidence, *left_out)),
        _random_baseline(against_random, robustness),
        _larger_budgets(with_budget),
        _robust_method(robustness),
    ]


def _silent(rows: pd.DataFrame) -> list[str]:
    """Return the interpreters whose features rebuild nothing of the maps at any budget."""
    if "error_val_mean" not in rows:
        return []
    known = rows.dropna(subset=["error_val_mean"]).groupby("interpreter", sort=False)["error_val_mean"]
    return [str(name) for name, errors in known if is_empty(errors).all()]


def _judged(hits: int, cases: int) -> State:
    """Return the verdict on some cases, of which some show the claim."""
    return "held" if hits == cases else "held in part" if hits else "did not hold"


def _small_coresets(rows: pd.DataFrame) -> Observation:
    """Judge: features from small coresets are close to those of the full data."""
    about, firsts, evidence = "Small coresets", [], []
    every: list[Series] = []
    for _, interpreter, part in pairs(rows):
        nulls = dict(zip(*reference(part, "null_0"), strict=True))
        lines = selector_series(part, "phi_0")
        points = {line.name: known_points(line, nulls) for line in lines}
        every += lines
        found = {name: first_below(known) for name, known in points.items() if known}
        firsts += list(found.values())
        said = [
            f"{name} at no budget"
            if first is None
            else f"{name} from {budget(first.budget)} on ({radians_spread(first.mean, first.std)} rad)"
            for name, first in found.items()
        ]
        evidence += [f"{interpreter}: {', '.join(said)}."] if said else []
    if not firsts:
        reason = missing_below(every) if every else "the features rebuild nothing of the maps"
        return Observation(about, "cannot be said", f"{reason[0].upper()}{reason[1:]}.")
    early = [first.budget for first in firsts if first is not None and first.budget <= SMALL]
    text = (
        "Claim: coresets of at most half of the data show the features of all data. Φ plus its spread stays below half "
        f"of its null in {len(early)} of {len(firsts)} cases, a case being an interpreter with a selector"
    )
    text += f", at the latest from {budget(max(early))} on." if early else "."
    return Observation(about, _judged(len(early), len(firsts)), text, tuple(evidence))


def _random_baseline(against_random: pd.DataFrame, robustness: pd.DataFrame) -> Observation:
    """Judge: random is a strong baseline, which no other selector beats by more than noise."""
    about, evidence = "Random baseline", []
    signs: list[int] = []
    drawn = robustness[(robustness["selector"] == BASELINE) & robustness["mean_0_spread"].notna()]
    for _, random in drawn.iterrows() if len(against_random) else ():
        others = against_random[against_random["interpreter"] == random["interpreter"]].dropna(subset=["error"])
        said, spread, error = [], float(random["mean_0_spread"]), _error(random, "mean_0")
        for _, row in others.iterrows():
            noise = 2 * float(np.hypot(row["error"], error))  # of the mean over classes, and of random's draws
            signs.append(_sign(row["difference"], noise))
            said.append(f"{row['selector']} {_signed(radians(row['difference']))} rad (noise {radians(noise)})")
        if said:
            mean = radians_spread(random["mean_0"], spread)
            evidence.append(f"{random['interpreter']}: random {mean} rad; next to it {', '.join(said)}.")
    if not signs:
        need = "This needs random with at least two draws, another selector, and a budget from 10 % to 50 %."
        return Observation(about, "cannot be said", need)
    kept = sum(sign >= 0 for sign in signs)
    text = (
        "Claim: no selector is nearer to the full data than random by more than noise. Over the budgets from 10 % "
        f"to 50 % this is so in {kept} of {len(signs)} comparisons"
    )
    text += f"; random is nearer by more than noise in {sum(sign > 0 for sign in signs)}."
    return Observation(about, _judged(kept, len(signs)), text, tuple(evidence))


def _error(row: pd.Series, name: str) -> float:
    """Return the standard error of a mean over draws from their spread, NaN with a single draw."""
    draws = float(row["n_draws"])
    return float(float(row[f"{name}_spread"]) / draws**0.5)


def _sign(difference: float, noise: float) -> int:
    """Return -1 or 1 where a difference exceeds the noise and rounding, else 0."""
    return int(np.sign(difference)) if abs(difference) > max(noise, ROUNDING) else 0


def _signed(text: str) -> str:
    """Print the sign of a number in any case."""
    return minus(text if text.startswith("-") else f"+{text}")


def _larger_budgets(with_budget: pd.DataFrame) -> Observation:
    """Judge: the distance falls and the accuracy rises with the budget."""
    about = "Larger budgets"
    known = with_budget.dropna(subset=["error"]) if len(with_budget) else with_budget
    if not len(known):
        return Observation(about, "cannot be said", "This needs two budgets below 100 % and at least two classes.")
    wanted = known["measure"].map({"distance_0": -1, "accuracy": 1, "accuracy_without": -1})
    signs = [_sign(d, 2 * e) for d, e in zip(known["difference"], known["error"], strict=True)]
    hits, distance = np.array(signs) == wanted, known["measure"] == "distance_0"
    counts = [f"{int(hits[part].sum())} of {int(part.sum())}" for part in (distance, ~distance)]
    text = (
        "Claim: with more data the distance falls and the accuracy rises. From the smallest to the largest coreset, by "
        f"more than two standard errors over classes, the distance falls in {counts[0]} cases and the accuracy rises "
        f"(without a class's units: falls) in {counts[1]}."
    )
    evidence = [_changes(str(name), rows) for name, rows in known.groupby("interpreter", sort=False)]
    return Observation(about, _judged(int(hits.sum()), len(hits)), text, tuple(evidence))


def _changes(interpreter: str, rows: pd.DataFrame) -> str:
    """List the changes of an interpreter from the smallest to the largest budget, ± their errors."""
    said = []
    for selector, part in rows.groupby("selector", sort=False):
        texts = [
            f"{_signed(radians_spread(row['difference'], row['error']))} rad"
            if row["measure"] == "distance_0"
            else signed_points(row["difference"], row["error"])
            for _, row in part.iterrows()
        ]
        said.append(f"{selector} {', '.join(texts)}")
    least, most = budget(rows["least"].iloc[0]), budget(rows["most"].iloc[0])
    return f"{interpreter}, {least} to {most}: {'; '.join(said)}."


def _robust_method(robustness: pd.DataFrame) -> Observation:
    """Judge: robustness differs by method; name the interpreter of least deviation over budgets."""
    about = "Robust method"
    known = robustness[robustness["n_budgets"] > 1]
    wide = known.pivot_table(index="selector", columns="interpreter", values="std_0").dropna()
    if wide.shape[1] < 2 or not len(wide):
        return Observation(about, "cannot be said", "This needs two interpreters with two budgets from 10 % to 50 %.")
    least = wide.idxmin(axis=1).unique()
    means = wide.mean().sort_values()
    listed = tuple(f"{_deviation(known, str(name))}." for name in means.index)
    claim = "Claim: robustness, the std of Φ over the budgets from 10 % to 50 %, differs by method."
    if len(least) > 1:
        text = f"{claim} The most robust interpreter depends on the selector."
        return Observation(about, "cannot be said", text, listed)
    best = str(least[0])
    leads = [lead for _, rows in known.groupby("selector", sort=False) if (lead := _lead(rows, best)) is not None]
    if not leads:
        text = f"{claim} {best} has the least with every selector. Noise is unknown: no selector has two draws."
        return Observation(about, "cannot be said", text, listed)
    if not all(gap > max(noise, ROUNDING) for gap, noise in leads):
        text = f"{claim} {best} has the least with every selector, but not by more than twice its error over draws."
        return Observation(about, "cannot be said", text, listed)
    text = f"{claim} {best} is the most robust one with every selector, by more than twice the error over draws."
    return Observation(about, "held", text, listed)


def _lead(rows: pd.DataFrame, best: str) -> tuple[float, float] | None:
    """Return how much less the best interpreter deviates than the next, and the noise; None where it is unknown."""
    ranked = [row for _, row in rows.sort_values("std_0", kind="stable").iterrows()]
    first = next((row for row in ranked if row["interpreter"] == best), None)
    rest = [row for row in ranked if row["interpreter"] != best]
    if first is None or not rest:
        return None
    noise = 2 * float(np.hypot(_error(first, "std_0"), _error(rest[0], "std_0")))
    return (float(rest[0]["std_0"] - first["std_0"]), noise) if np.isfinite(noise) else None


def _deviation(known: pd.DataFrame, interpreter: str) -> str:
    """Print the deviation of an interpreter with its spread over draws, its distance and its null."""
    rows = known[known["interpreter"] == interpreter]
    value = radians_spread(rows["std_0"].mean(), rows["std_0_spread"].mean())
    return f"{interpreter} {value} rad (Φ {radians(rows['mean_0'].mean())}, null {radians(rows['null_0'].mean())})"
