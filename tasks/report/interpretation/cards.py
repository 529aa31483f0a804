"""The first screen of the page: the features of a class as cards, next to those that a coreset shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd

from tasks.figures.overlay import Thumbnail, thumbnail, unique_thumbnails
from tasks.figures.views import spread_out
from tasks.report import formats
from tasks.report.blocks import script_json
from tasks.report.interpretation.card_results import FULL, CardResults
from tasks.report.interpretation.card_texts import WHOLE, WHOLES, answer_line, is_near, notes_of, set_name

MAX_THUMBNAIL_BYTES = 6_000_000  # of all data URIs of the cards
MAX_SETS = 24  # coresets on the page, equal parts for each network and interpreter
NAMES = ("network", "class", "interpreter", "selector", "budget")
CODE, DATA = "assets/cards.js", "assets/cards-data.js"

Row = dict[str, Any]  # Any: a cell of a table
Key = tuple[int, int]  # set, label
Rows = Mapping[Key, list[Row]]


@dataclass(frozen=True)
class Cards:
    """What the first screen shows.

    Attributes
    ----------
    line : the answer for the view that is shown first
    data : for the script: names of the choices, views, features and thumbnails
    thumbnails : that it refers to
    notes : how to read the cards, and what is left out: terms with their descriptions
    """

    line: str
    data: Mapping[str, object]
    thumbnails: list[Thumbnail]
    notes: Sequence[tuple[str, str]]

    @property
    def scripts(self) -> dict[str, bytes]:
        """The page's scripts by path: the code, and the data as an object that it reads."""
        code = (files("tasks.report") / "interpretation" / "cards.js.j2").read_bytes()
        return {CODE: code, DATA: f"const cardsData = {script_json(self.data)};\n".encode()}


def cards_of(results: CardResults) -> Cards | None:
    """Lay the cards out; None where there is not a coreset to compare with.

    Parameters
    ----------
    results : the features of all seeds; of each network those of its first seed are shown
    """
    sets, dropped = _shown_sets(results.sets)
    coresets = [{**one} for one in sets.to_dict("records") if one["selector"] != FULL]
    classes = results.classes[results.classes["set"].isin(sets["set"]) & results.classes["shown"]]
    if not coresets or classes.empty:
        return None
    tables = (classes, results.features, results.images, results.matches)
    shown, features, images, matches = (_by_class(table, classes) for table in tables)
    thumbs, left = _thumbnails(results, images)
    nouns = dict(zip(sets["set"].tolist(), sets["noun"], strict=True))
    listed, at, index = _listed(features, images, nouns, thumbs)
    views = []
    for one in coresets:
        for (number, label), (class_row,) in shown.items():
            if number == one["set"]:
                key, reference = (number, label), (int(one["reference"]), label)
                pairs = _pairs(one, matches.get(key, []), (features.get(reference, []), features.get(key, [])), at)
                rows = matches.get(key, []), features.get(reference, [])
                line = answer_line(one, shown[reference][0], class_row, *rows)
                views.append({"key": _choices(one, class_row), "line": line, "set": set_name(one), **pairs})
    unique = unique_thumbnails(thumbs.values())
    drawn = [[thumb.digest, thumb.width, thumb.height] for thumb in unique]
    data = {"names": NAMES, "views": views, "features": listed, "images": list(index), "thumbs": drawn}
    return Cards(str(views[0]["line"]), data, unique, notes_of(results, sets, classes, (left, dropped)))


def _shown_sets(sets: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Return the sets of first seeds that are shown, and the number of coresets that are left out for their number.

    A coreset that is the full data itself is shown only where its interpreter has no smaller one.
    """
    mine = sets[sets["seed"] == sets.groupby("network")["seed"].transform("first")]
    coresets = mine[mine["selector"] != FULL]
    smallest = coresets.groupby("reference")["budget"].transform("min")
    coresets = coresets[(coresets["budget"] < 1) | (smallest == 1)]
    groups = [rows for _, rows in coresets.groupby("reference", sort=False)]
    few = (rows.iloc[spread_out(len(rows), max(1, MAX_SETS // len(groups)))] for rows in groups)
    kept = pd.concat([coresets[:0], *few])[:MAX_SETS]
    shown = mine["set"].isin([*kept["set"], *kept["reference"]])
    return mine[shown], len(coresets) - len(kept)


def _listed(
    features: Rows, images: Rows, nouns: Mapping[int, str], thumbs: Mapping[str, Thumbnail]
) -> tuple[list[list[object]], dict[tuple[Key, int], int], dict[tuple[object, ...], int]]:
    """Return all features, the index of each by set, label and number, and the index of each image that they name."""
    places = {thumb.digest: place for place, thumb in enumerate(unique_thumbnails(thumbs.values()))}
    listed: list[list[object]] = []
    at: dict[tuple[Key, int], int] = {}
    index: dict[tuple[object, ...], int] = {}
    for key, rows in features.items():
        for row in rows:
            at[key, row["feature"]] = len(listed)
            own = [each for each in images.get(key, []) if each["feature"] == row["feature"]]
            best = min((each["rank"] for each in own), default=0)
            fit = [each for each in own if each["rank"] == best or not each["picture"] or each["picture"] in thumbs]
            mine = (_image(each, thumbs, places) for each in fit)
            listed.append([*_feature(row, nouns[key[0]]), [index.setdefault(image, len(index)) for image in mine]])
    return listed, at, index


def _by_class(table: pd.DataFrame, classes: pd.DataFrame) -> dict[Key, list[Row]]:
    """Return the rows of the sets and labels of `classes` by these; all others stay in their table."""
    width = 1 + max(table["label"].max() if len(table) else 0, classes["label"].max())
    mine, kept = (each["set"] * width + each["label"] for each in (table, classes))
    found: dict[Key, list[Row]] = {}
    for row in table[mine.isin(kept)].to_dict("records"):
        found.setdefault((int(row["set"]), int(row["label"])), []).append({str(name): row[name] for name in row})
    return found


def _choices(one: Mapping[Any, Any], class_row: Row) -> list[str]:  # Any: a row of a table
    """Return the options that select a view, in the order of NAMES."""
    label, name = str(class_row["label"]), str(class_row["class_name"])
    shown = name if name == label else f"{label} {name}"
    return [str(one["network"]), shown, str(one["interpreter"]), str(one["selector"]), formats.budget(one["budget"])]


def _feature(row: Row, noun: str) -> list[object]:
    """Return name, layer, share of a bar, importance, of what, activity and ConceptSHAP of a feature."""
    importance, shapley = float(row["importance"]), float(row["shapley"])
    known = importance == importance
    shap = f"ConceptSHAP {formats.measure(shapley)}" if shapley == shapley else ""
    bar = round(min(1.0, max(0.0, importance)), 3) if known else 0.0
    active = f"active on {100 * float(row['activity']):.0f}{formats.NBSP}% of images"
    return [row["name"], row["layer"], bar, formats.part(importance), WHOLES.get(noun, WHOLE), active, shap]


def _image(row: Row, thumbs: Mapping[str, Thumbnail], places: Mapping[str, int]) -> tuple[object, ...]:
    """Return the index of an image's thumbnail (-1 none), its box, and its name ("" where it may not be named)."""
    box = [round(float(row[side]), 3) for side in ("top", "left", "bottom", "right")]
    name = f"sample {int(row['sample_id'])}" if row["sample_id"] >= 0 else ""
    thumb = thumbs.get(row["picture"])
    return (-1 if thumb is None else places[thumb.digest], *box, name)


def _pairs(
    one: Mapping[Any, Any], matches: Sequence[Row], sides: tuple[Sequence[Row], Sequence[Row]], at: Mapping[Any, int]
) -> dict[str, object]:  # Any: a row of a table; a key of two kinds
    """Return the features of the full data, each with its partner, and the coreset's features without a partner.

    A pair is the index of the feature, that of its partner (-1 without a card), what is said of both, and whether they
    count as the same.
    """
    mine, others = sides
    number = int(one["set"])
    partner = {row["feature"]: (int(row["partner"]), float(row["angle"])) for row in matches}
    names = {row["feature"]: row["name"] for row in others}
    pairs, matched = [], {found for found, _ in partner.values()}
    for row in mine:
        found, angle = partner.get(row["feature"], (-1, float("nan")))
        key = (number, int(row["label"]))
        near = is_near(bool(one["directed"]), found, angle)
        said = f"{angle:.0f}°" if angle == angle else "the same unit" if found >= 0 else "not found"
        name = f"{one['noun']} {found}" if one["directed"] else row["name"]  # a unit's partner is the same unit
        without = "" if found in names or found < 0 else f"{name} is not among the most important ones"
        pairs.append(
            [at[(int(one["reference"]), key[1]), row["feature"]], at.get((key, found), -1), said, near, without]
        )
    only = [at[(number, int(row["label"])), row["feature"]] for row in others if row["feature"] not in matched]
    return {"pairs": pairs, "only": only}


def _thumbnails(results: CardResults, images: Rows) -> tuple[dict[str, Thumbnail], int]:
    """Make thumbnails by key of the picture: of all features' best images, of the next ones, and so on, while all fit.

    Where not even the best images fit, those of the full data come first.

    Returns
    -------
    thumbnails, and the number of pictures that did not fit
    """
    references = set(results.sets["reference"])
    rows = [row for each in images.values() for row in each if row["picture"]]
    rows.sort(key=lambda row: (row["rank"], row["set"] not in references))
    ranks: dict[str, int] = {}
    for row in rows:
        ranks.setdefault(str(row["picture"]), int(row["rank"]))
    made: dict[str, Thumbnail] = {}
    room = MAX_THUMBNAIL_BYTES
    for rank in dict.fromkeys(ranks.values()):
        found = {key: thumbnail(results.pictures[key]) for key, own in ranks.items() if own == rank}
        if made and sum(len(thumb.uri) for thumb in found.values()) > room:
            break
        for key, thumb in found.items():
            if len(thumb.uri) > room:
                break
            made[key] = thumb
            room -= len(thumb.uri)
    return made, len(ranks) - len(made)
