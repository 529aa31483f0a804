"""The paper's claims, each tested on one network: what the tables say, and whether that exceeds chance."""

from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import pandas as pd

from tasks.figures.decomposition.method_bars import method_name, spreads
from tasks.figures.decomposition.retraining_curves import curve_of
from tasks.figures.views import in_percent
from tasks.report import formats
from tasks.report.cells import Column, Table
from tasks.report.decomposition.noise import hurts_more, noise_rows, noise_settings
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.decomposition.sets import CLAIMED_K1, CLAIMED_SHARE, image_mean
from tasks.report.decomposition.verdicts import chance, points

ENOUGH = 0.9  # r_A from which on few features count as enough: a yardstick, the paper names none
CLAIMS = {  # by name, with the head above it
    "few filters suffice": "",
    "k2 = k1 is best": "",
    "k1 = 5 covers 90 %": "",
    "all others": "noise hurts more than in",
    "as many others": "noise hurts more than in",
    "histogram beats others": "",
    "head alone": "retraining recovers",
    "whole network": "retraining recovers",
}


@dataclass(frozen=True)
class GridTest:
    """Whether k2 = k1 is best in the grid.

    Attributes
    ----------
    cases : (what is fixed, what is free, in how many cases k2 = k1 is best, of how many)
    gap : by how much the worst case misses the best, 0..1; 0 where none does
    limit : two standard errors of this gap
    worst : what is fixed, what is free, its value, where it is best, the accuracy there; None without a miss
    best : accuracy, k1 and k2 of the best cell
    """

    cases: tuple[tuple[str, str, int, int], ...]
    gap: float
    limit: float
    worst: tuple[str, str, str, str, float] | None
    best: tuple[float, str, str]

    @property
    def state(self) -> str:
        """Say "yes", "no", or "open" where the miss is within chance."""
        return "yes" if self.worst is None else "no" if self.gap > self.limit else "open"


def is_few(network: pd.Series) -> bool:
    """Say whether k2 can be called few: at most half of the features."""
    return not 2 * float(network["k2"]) > float(network["n_features"])


def grid_test(grid: pd.DataFrame, n_images: float, n_features: float) -> GridTest | None:
    """Test whether k2 = k1 is best: over k2 with k1 fixed, and over k1 with k2 fixed; None where nothing compares.

    Cells with all features are the full head, whatever k1 is: they take no part. Nor do lines of one accuracy, in which
    no cell is best.
    """
    cells = grid[np.isfinite(grid["accuracy"].astype(float)) & ~(grid["k2"].astype(float) >= n_features)]
    cells = cells.assign(k1=cells["k1"].astype(str), k2=cells["k2"].astype(int).astype(str))
    cells = cells.assign(accuracy=cells["accuracy"].astype(float))
    cases: list[tuple[str, str, int, int]] = []
    gap, limit, worst = 0.0, 0.0, None
    for fixed, free in (("k1", "k2"), ("k2", "k1")):
        best = n = 0
        for name, rows in cells.groupby(fixed, sort=False):
            line = rows.drop_duplicates(free).set_index(free)["accuracy"]
            if str(name) not in line.index or line.min() == line.max():
                continue
            diagonal, top, miss = float(line[str(name)]), float(line.max()), float(line.max() - line[str(name)])
            n, best = n + 1, best + (miss <= 0)
            if miss > gap:
                gap, limit = miss, chance(diagonal, top, n_images)
                worst = (fixed, free, str(name), str(line.idxmax()), top)
        cases += [(fixed, free, best, n)] if n else []
    if not cases:
        return None
    row = cells.iloc[int(cells["accuracy"].to_numpy(np.float64).argmax())]
    return GridTest(tuple(cases), gap, limit, worst, (float(row["accuracy"]), str(row["k1"]), str(row["k2"])))


@dataclass(frozen=True)
class Rivals:
    """Algorithm 1 and other methods to choose k features.

    Attributes
    ----------
    k : features per class
    histogram : accuracy with Algorithm 1
    others : (method, accuracy), best first, random sets apart
    random : accuracy, spread over draws (NaN with one), draws; None where not drawn
    n_images : that the accuracies are of
    """

    k: int
    histogram: float
    others: tuple[tuple[str, float], ...]
    random: tuple[float, float, int] | None
    n_images: float

    @property
    def limit(self) -> float:
        """Two standard errors of the difference to the best other method."""
        return chance(self.histogram, self.others[0][1], self.n_images) if self.others else float("nan")

    @property
    def state(self) -> str:
        """Say "yes" where Algorithm 1 wins, "no" where it loses, "open" where the difference is within chance."""
        gap = self.histogram - self.others[0][1]
        return "open" if abs(gap) <= self.limit else "yes" if gap > 0 else "no"


def rivals_of(controls: pd.DataFrame, k2: int, n_images: float) -> Rivals | None:
    """Return the methods to choose features at the main k, or the smallest there is; None without Algorithm 1's row."""
    finite = controls[np.isfinite(controls["accuracy"].astype(float))]
    finite = finite.assign(spread=spreads(finite))
    at_k = finite[finite["k"] == k2]
    at_k = at_k if len(at_k) else finite[finite["k"] == finite["k"].min()]
    rows = at_k.drop_duplicates("method").set_index("method").sort_values("accuracy", ascending=False, kind="stable")
    if "histogram" not in rows.index or len(rows) < 2:
        return None
    random = None
    if "random" in rows.index:
        random = (float(rows["accuracy"]["random"]), float(rows["spread"]["random"]), int(rows["draws"]["random"]))
    others = rows.drop(index=["histogram", "random"], errors="ignore")["accuracy"]
    listed = tuple((str(method), float(value)) for method, value in others.items())
    return Rivals(int(rows["k"].iloc[0]), float(rows["accuracy"]["histogram"]), listed, random, n_images)


def claims_table(pages: list[DecompositionResults]) -> Table | None:
    """List for each network whether each claim holds, with its number; columns without any number are left out."""
    rows = [_cells(results) for results in pages if len(results.networks)]
    used = [name for name in CLAIMS if any(name in row for row in rows)]
    if not rows or not used:
        return None
    names = [(str(results.networks["network"].iloc[0]), str(results.networks["seed"].iloc[0])) for results in pages]
    columns = [Column(name, numeric=False) for name in ("network", "seed", *used)]
    cells = tuple(
        name + tuple(row.get(claim, formats.MISSING) for claim in used) for name, row in zip(names, rows, strict=True)
    )
    caption = (
        "Claims by network, with the number that decides. Few filters suffice: r_A of at least "
        f"{ENOUGH} (this report's yardstick), tested where k2 is at most half of the features. Open: the difference is "
        "within chance. Under noise: accuracy with noise in the influential features / in the others"
    )
    heads = groupby(("", "", *(CLAIMS[claim] for claim in used)))
    groups = tuple((head, len(list(run))) for head, run in heads)
    columns = [replace(column, wraps=column.title == "histogram beats others") for column in columns]
    return Table(caption, tuple(columns), cells, groups if any(head for head, _ in groups) else ())


def _cells(results: DecompositionResults) -> dict[str, str]:
    """Test every claim on one network; a claim without a number to decide it is left out."""
    cells = {
        "few filters suffice": _few_filters(results),
        "k2 = k1 is best": _equal_best(results),
        "k1 = 5 covers 90 %": _five_cover(results),
        "all others": _noise_in(results, "others"),
        "as many others": _noise_in(results, "equal-size"),
        "histogram beats others": _beats_others(results),
        "head alone": _recovers(results, "head"),
        "whole network": _recovers(results, "network"),
    }
    return {claim: cell for claim, cell in cells.items() if cell}


def _few_filters(results: DecompositionResults) -> str:
    """Say whether k2 features keep enough of the accuracy."""
    network = results.networks.iloc[0]
    ratio = float(network["ratio"])
    if not np.isfinite(ratio):
        return ""
    if not is_few(network):
        return f"not tested: {int(network['k2'])} of {int(network['n_features'])}"
    return f"{'yes' if ratio >= ENOUGH else 'no'}: r_A {formats.measure(ratio)}"


def _equal_best(results: DecompositionResults) -> str:
    """Say whether k2 = k1 is best in the grid."""
    network = results.networks.iloc[0]
    test = grid_test(results.grid, float(network["n_evaluate"]), float(network["n_features"]))
    if test is None:
        return ""
    return f"{test.state}: {f'{points(test.gap)} short' if test.worst else 'in all cases'}"


def _five_cover(results: DecompositionResults) -> str:
    """Say whether the largest features of an image cover as much of its logit as the paper claims."""
    share = image_mean(results.coverage, "own_top_share")
    if str(results.networks.iloc[0]["k1"]) != CLAIMED_K1 or not np.isfinite(share):
        return ""
    return f"{'yes' if share >= CLAIMED_SHARE else 'no'}: {formats.share(share)}"


def _noise_in(results: DecompositionResults, others: str) -> str:
    """Say whether noise in the influential features hurts more than in others, at the first setting."""
    network, settings = results.networks.iloc[0], noise_settings(results.ablation)
    if not settings:
        return ""
    rows = noise_rows(results.ablation, settings[0], network)
    state = hurts_more(rows, others, float(network["n_evaluate"]))
    if not state:
        return ""
    left, right = (formats.share(float(rows["accuracy"][which])) for which in ("influential", others))
    return f"{state}: {left} / {right}"


def _beats_others(results: DecompositionResults) -> str:
    """Say whether Algorithm 1 beats the best other method to choose features."""
    network = results.networks.iloc[0]
    rivals = rivals_of(results.controls, int(network["k2"]), float(network["n_evaluate"]))
    if rivals is None or not rivals.others:
        return ""
    best, value = rivals.others[0]
    side = "above" if rivals.histogram >= value else "below"
    return f"{rivals.state}: {points(rivals.histogram - value)} {side} {method_name(best)}"


def _recovers(results: DecompositionResults, scope: str) -> str:
    """Say which share of the lost accuracy training the head or the network again brings back."""
    _, accuracy = curve_of(results.retraining, scope, "accuracy")
    if len(accuracy) < 2:
        return ""
    first, last = float(accuracy[0]), float(accuracy[-1])
    lost = float(results.networks.iloc[0]["a_full"]) - first
    if not lost > 0:  # NaN, too
        return ""
    return f"{formats.minus(in_percent((last - first) / lost, 0))}{formats.NBSP}% of {points(lost)}"
