"""What the paper saw of other trainings, tested on networks of one run: held, did not hold, or cannot be said.

Each network with a paradigm stands next to its reference, with the same detector, over the seeds of both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.concepts.verdicts import Observation, State, difference

SIMPLE, CLASSES = "color", ("object", "scene", "part")
TEXTURES = ("texture", "material")
Test = Callable[["Pair"], tuple[State, str]]


@dataclass(frozen=True)
class Paradigm:
    """The way in which a network is trained.

    Attributes
    ----------
    kind : standard, poor, diversity, lottery, adversarial or fine-tuning
    reference : the network that it stands next to, "" for itself: its own first snapshot is compared with its last
    """

    kind: str
    reference: str


@dataclass(frozen=True)
class Pair:
    """The rows of one detector, at one snapshot of a network and at one of its reference.

    Attributes
    ----------
    names : the reference and the network, in words
    monitor, categories : tables of the reference and of the network, of all seeds
    """

    names: tuple[str, str]
    monitor: tuple[pd.DataFrame, pd.DataFrame]
    categories: tuple[pd.DataFrame, pd.DataFrame]

    def share(self, column: str) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return (part, whole) of the neurons that a column counts, of both."""
        return tuple(  # type: ignore[return-value]  # of two
            (float(rows[column].astype(float).sum()), float(rows["neurons"].astype(float).sum()))
            for rows in self.monitor
        )

    def held(self, categories: Sequence[str]) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return (part, whole) of the neurons with a concept that hold one of some categories, of both."""
        found = []
        for rows in self.categories:
            counts = rows["neurons"].astype(float)
            found.append((float(counts[rows["category"].isin(categories)].sum()), float(counts.sum())))
        return found[0], found[1]

    def by_seed(self, column: str, *, once: bool = False) -> tuple[list[float], list[float]]:
        """Return a number of each seed that both have: the mean over layers, or with `once` the network's own."""
        columns = [
            rows.assign(value=rows[column].astype(float)).groupby("seed")["value"].agg("first" if once else "mean")
            for rows in self.monitor
        ]
        joined = pd.concat(columns, axis=1, join="inner").dropna()
        return joined.iloc[:, 0].tolist(), joined.iloc[:, 1].tolist()


def paradigm_observations(
    paradigms: Mapping[str, Paradigm], monitor: pd.DataFrame, categories: pd.DataFrame
) -> Iterator[Observation]:
    """Yield what the paper saw, for each network with a paradigm and each detector.

    Parameters
    ----------
    paradigms : by network
    monitor, categories : tables of all networks, as `ConceptResults` describes them
    """
    for network, paradigm in paradigms.items():
        if paradigm.kind not in TESTS:
            continue
        for detector in dict.fromkeys(monitor["detector"]):
            found = (rows[rows["detector"] == detector] for rows in (monitor, categories))
            pair = _pair(network, paradigm, *found)
            name, test = TESTS[paradigm.kind]
            state, text = test(pair) if pair else ("cannot be said", "one of the two networks has no results.")
            yield Observation(f"{name}, {detector}", state, text)


def _pair(network: str, paradigm: Paradigm, monitor: pd.DataFrame, categories: pd.DataFrame) -> Pair | None:
    """Return the rows that a paradigm compares: its end with that of its reference, or with its own beginning."""
    own = [monitor[monitor["network"] == network], categories[categories["network"] == network]]
    if paradigm.reference:
        other = [rows[rows["network"] == paradigm.reference] for rows in (monitor, categories)]
    else:
        other = own
    if own[0].empty or other[0].empty:
        return None
    ends = [_end(own[0], paradigm.kind), _reference_end(other[0], paradigm)]
    labels = [
        str(rows[0].loc[rows[0]["snapshot"] == at, "label"].iloc[0])
        for rows, at in zip((own, other), ends, strict=True)
    ]
    names = f"{paradigm.reference or network} ({labels[1]})", f"{network} ({labels[0]})"
    pairs = [
        (theirs[theirs["snapshot"] == ends[1]], ours[ours["snapshot"] == ends[0]])
        for theirs, ours in zip(other, own, strict=True)
    ]
    return Pair(names, pairs[0], pairs[1])


def _end(monitor: pd.DataFrame, kind: str) -> int:
    """Return the snapshot of a network that counts: the last, and of a lottery the last masked start."""
    snapshots = sorted(monitor["snapshot"].astype(int).unique())
    return int(snapshots[-2] if kind == "lottery" and len(snapshots) > 1 else snapshots[-1])


def _reference_end(monitor: pd.DataFrame, paradigm: Paradigm) -> int:
    """Return the snapshot of a reference: its last, or the first where a network is its own reference."""
    snapshots = monitor["snapshot"].astype(int)
    return int(snapshots.max() if paradigm.reference else snapshots.min())


def _poor(pair: Pair) -> tuple[State, str]:
    """Compare how far apart neurons are."""
    text = "Poor training stays clumped: the mean distance of two neurons is"
    return _lower(pair, "mean_pairwise", text, lower=True)


def _diversity(pair: Pair) -> tuple[State, str]:
    """Compare accuracy and the number of neurons with a concept."""
    right, words = _lower(pair, "accuracy", "Diversity raises accuracy:", lower=False, once=True)
    more, text = _more(pair, "and the neurons with a concept:")
    return _both(right, more), f"{words} {text}"


def _lottery(pair: Pair) -> tuple[State, str]:
    """Compare the neurons with a concept of masked and unmasked weights that were never trained."""
    return _more(pair, "Masking alone brings concepts, without training:")


def _adversarial(pair: Pair) -> tuple[State, str]:
    """Compare the shares of colours and of classes."""
    colours, words = _of_categories(pair, (SIMPLE,), "Robust networks prefer colours:")
    classes, text = _of_categories(pair, CLASSES, "and hold fewer objects, parts and scenes:", fewer=True)
    return _both(colours, classes), f"{words} {text}"


def _fine_tuning(pair: Pair) -> tuple[State, str]:
    """Compare the share of textures before and after."""
    return _of_categories(pair, TEXTURES, "Fine-tuning turns to textures:")


def _lower(pair: Pair, column: str, claim: str, *, lower: bool, once: bool = False) -> tuple[State, str]:
    """Compare a number of each seed; the noise is that of the seeds."""
    reference, own = pair.by_seed(column, once=once)
    if not own:
        return "cannot be said", f"{claim} unknown."
    form = formats.share if column == "accuracy" else formats.measure
    means = (form(float(np.mean(values))) for values in (reference, own))
    said = f"{claim} " + ", ".join(f"{mean} for {name}" for mean, name in zip(means, pair.names, strict=True))
    if len(own) < 2:
        return "cannot be said", f"{said}; with one seed the noise is unknown."
    gaps = np.subtract(own, reference) * (-1 if lower else 1)
    limit = 2 * float(np.std(gaps, ddof=1)) / len(gaps) ** 0.5
    text = f"{said}; over {len(own)} seeds, twice the error of the difference is {form(limit)}."
    mean = float(np.mean(gaps))
    if abs(mean) <= limit:
        return "cannot be said", text
    return ("held" if mean > 0 else "did not hold"), text


def _more(pair: Pair, claim: str) -> tuple[State, str]:
    """Compare the neurons with a concept, of all; those by chance stand next to them."""
    before, after = pair.share("interpretable")
    chance = pair.share("null_interpretable")
    state, words = difference(before, after)
    said = ", ".join(
        f"{_of(*found)} in {name} (by chance {_of(*null)})"
        for found, null, name in zip((before, after), chance, pair.names, strict=True)
    )
    if after[0] <= 2 * chance[1][0]:
        state = "cannot be said" if state == "held" else state
        words += "; half of the latter or more come by chance"
    return state, f"{claim} {said}{words}."


def _of_categories(pair: Pair, categories: Sequence[str], claim: str, *, fewer: bool = False) -> tuple[State, str]:
    """Compare the share of some categories among the neurons with a concept."""
    before, after = pair.held(categories)
    if not before[1] or not after[1]:
        return "cannot be said", f"{claim} one of the two has no neuron with a concept."
    state, words = difference(after, before) if fewer else difference(before, after)
    said = ", ".join(f"{_of(*found)} in {name}" for found, name in zip((before, after), pair.names, strict=True))
    return state, f"{claim} {said}{words}."


def _both(first: State, second: State) -> State:
    """Join the verdicts on the two halves of a claim."""
    if first == second:
        return first
    return "did not hold" if "did not hold" in (first, second) else "cannot be said"


def _of(part: float, whole: float) -> str:
    """Print a share and what it is of."""
    return f"{formats.share(part / whole)} ({formats.count(part)} of {formats.count(whole)})" if whole else "none"


TESTS: dict[str, tuple[str, Test]] = {
    "poor": ("Poor training", _poor),
    "diversity": ("Diversity", _diversity),
    "lottery": ("Lottery", _lottery),
    "adversarial": ("Robust networks", _adversarial),
    "fine-tuning": ("Fine-tuning", _fine_tuning),
}
