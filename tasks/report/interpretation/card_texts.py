"""What the cards say: the answer in a line, and how to read them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.interpretation.card_results import CardResults

NEAR = 30.0  # degrees up to which two features count as the same
CARRIES = 0.01  # importance from which a feature carries a class
Row = Mapping[Any, Any]  # Any: a row of a table

IMPORTANCE = {  # by noun
    "unit": "the unit's share of the weights by which units predict the class",
    "topic": "the change of the class's logit with the topic's part of the rebuilt maps, as a share of that logit",
}
WHOLE, WHOLES = "of the logit", {"unit": "of the weights"}  # what an importance is a share of, by noun
SCORE, SCORES = "score", {"unit": "weights"}  # the same for newcomers
PLAIN = {"component": "feature"}  # what newcomers call it, by noun
DEFAULT_IMPORTANCE = "the change of the class's logit with the feature's part of the maps, as a share of the mean logit"


def is_near(directed: bool, partner: int, angle: float) -> bool:
    """Say whether a feature and its partner count as the same; units are the same or have no partner."""
    return partner >= 0 and (not directed or angle <= NEAR)


def set_name(one: Row) -> str:
    """Return the name of a coreset, such as "random 10 %"."""
    return f"{one['selector']} {formats.budget(one['budget'])}"


def answer_line(one: Row, reference: Row, mine: Row, matches: Sequence[Row], features: Sequence[Row]) -> str:
    """Say how many of its features a network relies on for a class, and how many of these a coreset shows.

    Parameters
    ----------
    one : the coreset's row in the table of sets
    reference, mine : the class's rows of the full data and of the coreset
    matches : the class's rows for the coreset
    features : the class's rows of the full data; of these the line counts the active ones with an importance of
        `CARRIES` or more
    """
    n, noun, of = int(reference["n_features"]), str(one["noun"]), f"“{reference['class_name']}”"
    if not n:
        return f"{one['interpreter']} does not find a {noun} that describes {of} in {one['network']}."
    counted, said = _relied_on(f"{of}, {one['network']}", n, one, features)
    if not counted:
        return said
    if one["budget"] == 1:
        return f"{said} A budget of 100{formats.NBSP}% is the full data itself."
    pairs = (row for row in matches if row["feature"] in counted)
    near = sum(is_near(bool(one["directed"]), int(row["partner"]), float(row["angle"])) for row in pairs)
    coreset = f"A selection of {formats.budget(one['budget'])} of the training images ({one['selector']})"
    return f"{said} {coreset} shows {near} of these.{_more(noun, mine)}"


def _relied_on(of: str, n: int, one: Row, features: Sequence[Row]) -> tuple[set[int], str]:
    """Return the active features that carry a class, all active ones where importances are unknown; and what they do.

    Parameters
    ----------
    of : the class and the network
    n : number of features of the class; `features` has the most important ones
    """
    noun = PLAIN.get(str(one["noun"]), str(one["noun"]))
    found = f"the {n} {noun}s" if n > 1 else f"the only {noun}"
    found += f" that {one['interpreter']} found"
    share = f"{formats.budget(CARRIES)} of the {SCORES.get(str(one['noun']), SCORE)} for this class"
    active = [row for row in features if float(row["activity"]) > 0]
    if active and not any(np.isfinite(float(row["importance"])) for row in active):
        unknown = f"To recognise {of} may rely on {found}: how much each counts is not known."
        return {int(row["feature"]) for row in active}, unknown
    counted = {int(row["feature"]) for row in active if float(row["importance"]) >= CARRIES}
    if not counted:
        said = f"relies on none of {found}: each has" if n > 1 else f"does not rely on {found}: it has"
        return counted, f"To recognise {of} {said} less than {share}."
    least = "at least " if len(counted) == len(features) < n else ""
    number = f"{least}{len(counted)} of {found}" if n > 1 else found
    each = "it has" if len(counted) == 1 else "each has"
    return counted, f"To recognise {of} relies on {number}: {each} at least {share}."


def _more(noun: str, mine: Row) -> str:
    """Say what else belongs to the answer: where topics start, and the accuracy without the units of a coreset."""
    if noun == "topic":
        return " All trainings of topics start alike, so part of this likeness is the start."
    before, after = float(mine["accuracy"]), float(mine["accuracy_without"])
    if not np.isfinite([before, after]).all():
        return ""
    fall = f"from {formats.share(before)} to {formats.share(after)}"
    return f" Without the coreset's units, accuracy on the class goes {fall}."


def notes_of(
    results: CardResults, sets: pd.DataFrame, classes: pd.DataFrame, left: tuple[int, int]
) -> list[tuple[str, str]]:
    """Say how to read the cards, and what is left out: terms with their descriptions.

    Parameters
    ----------
    sets, classes : those that are shown
    left : number of pictures that did not fit, and of coresets that are left out
    """
    nouns = list(dict.fromkeys(sets["noun"]))
    kinds = {noun: list(dict.fromkeys(sets.loc[sets["noun"] == noun, "interpreter"])) for noun in nouns}
    meanings = [f"With {', '.join(kinds[noun])}: {IMPORTANCE.get(noun, DEFAULT_IMPORTANCE)}." for noun in nouns]
    most = int(classes["searched"].max())
    images = f"Of each class at most {most:,} images of the split {results.split} are searched"
    if most == 1:
        images = f"Of each class 1 image of the split {results.split} is searched"
    spread = ", evenly spread" if (classes["searched"] < classes["n_images"]).any() else ""
    notes = [
        ("Images", f"{images}{spread}. The frame marks the region with at least half of the largest response."),
        (
            "Importance",
            f"{' '.join(meanings)} The first line counts active features from {formats.budget(CARRIES)} on.",
        ),
        (
            "Active",
            "The share of these images on which the largest response is at least half of the feature's largest.",
        ),
        *_angles(results, sets),
    ]
    left_out = " ".join(_left_out(results, sets, left))
    return [*notes, ("Left out", left_out)] if left_out else notes


def _angles(results: CardResults, sets: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield what angles mean, and what they are to be compared with."""
    if sets["directed"].any():
        text = "The features of two sets are matched one by one, so that the sum of their angles is least."
        text += " Another feature may be nearer."
        text += f" 0°: the same direction. Up to {NEAR:.0f}° a feature counts as found."
        for row in results.yardsticks.to_dict("records"):
            named = f"{row['network']}, {row['interpreter']}"
            text += (
                f" For comparison, the features of different classes are {row['angle']:.0f}° apart ({named}, median)."
            )
        yield "Angle", text
    if "topic" in set(sets["noun"]):
        yield (
            "Topics",
            "All classes share them. Their training starts at the same values on every coreset, so small angles "
            "come in part from the start. ConceptSHAP is what a topic adds to the completeness over all classes.",
        )
    if not sets["directed"].all():
        yield (
            "Units",
            "A unit is an output channel of a ReLU. ReLUs count from 1, channels from 0. A coreset finds the same unit "
            "or does not find it.",
        )


def _left_out(results: CardResults, sets: pd.DataFrame, left: tuple[int, int]) -> Iterator[str]:
    """Yield what the caps leave out."""
    mine = results.classes[results.classes["set"].isin(sets["set"])]
    total, shown = mine.groupby("set").size().max(), mine[mine["shown"]].groupby("set").size().max()
    if shown < total:
        yield f"{shown} of {total:,} classes are here, evenly spread; the table of features has all."
    listed = results.features[results.features["set"].isin(sets["set"])].groupby(["set", "label"]).size()
    if len(listed) and mine["n_features"].max() > listed.max():
        yield f"Of each class the {listed.max()} most important features are here."
    pictures, coresets = left
    if coresets:
        shown = len(sets) - sets["reference"].nunique()
        yield f"{shown} of {shown + coresets:,} coresets are here, evenly spread; the table of features has all."
    if pictures:
        yield f"{pictures:,} images are left out to keep the page small."
