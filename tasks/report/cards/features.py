"""The parts of questions 1 and 2 in a card: which features decided the answer, and where they respond."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from tasks.figures.outline import enlarge, outline
from tasks.figures.overlay import as_rgb, overlay
from tasks.report import formats
from tasks.report.blocks import Shown
from tasks.report.cards.parts import Item, Part, Pictures, Strip, address, listed, unique
from tasks.report.cards.results import CardResults, Deciding, Responding
from tasks.report.cells import Table, number_cell, print_table, text_cell
from tasks.report.pages import Image

IMAGES = 3  # of a feature
MOST = 6  # features of the head in a strip
LEADING = 2  # features that the sentence names
ROWS = 12  # of the table of contributions


def deciding_part(card: CardResults, pictures: Pictures) -> Part:
    """Lay out what the features of the head added to the answer."""
    found = card.deciding
    link = address("decomposition", card.asked)
    title = "Which few features decided it?"
    if found is None:
        return Part("deciding", title, "", ask=card.missing.get("decomposition", ""), link=link, page="question 2")
    items = tuple(_feature(card, found, row, pictures) for _, row in found.chosen.head(MOST).iterrows())
    notes = f"Each number is the feature's value in this image times its weight for class {found.predicted}, in logits."
    if found.split:
        notes += f" The pictures are the images that activate the feature most, of split {found.split}."
    named = "" if len(card.words) else _no_words(card)
    strips = (Strip(f"Features that class {found.predicted} keeps, by what they added", items, wide=True),)
    return Part(
        "deciding",
        title,
        deciding_sentence(card, found),
        strips,
        tables=(_contributions(card, found),),
        notes=tuple(filter(None, (notes, named))),
        link=link,
        page="question 2",
    )


def deciding_sentence(card: CardResults, found: Deciding) -> str:
    """Say which features added most, and how much of the answer they make."""
    leading = [row for _, row in found.chosen.head(LEADING).iterrows() if row["contribution"] > 0]
    rest = found.features["contribution"].sum() - found.chosen["contribution"].sum()
    if leading:
        names = listed(
            f"{_named(card, int(row['feature']))} ({formats.signed(row['contribution'])})" for row in leading
        )
        verb = "adds" if len(leading) == 1 else "add"
        said = f"{names} {verb} most to {found.predicted}, of a logit of {formats.measure(found.logit)}."
    else:
        said = f"No feature that class {found.predicted} keeps adds to its logit of {formats.measure(found.logit)}."
    all_kept = f"The {found.k2} features that the class keeps add {formats.signed(found.chosen['contribution'].sum())}"
    same = "is the same" if found.kept == found.predicted else f"is {found.kept}"
    return f"{said} {all_kept}, all others {formats.signed(rest)}; from kept features alone, the answer {same}."


def _named(card: CardResults, feature: int) -> str:
    """Return the name of a feature, with its word where a neuron holds one."""
    words = _words(card, feature)
    return f"Feature {feature}" + (f" ({words[0]})" if words else "")


def _words(card: CardResults, feature: int) -> list[str]:
    """Return the words that the feature's neuron holds."""
    mine = card.words[card.words["feature"] == feature]
    return unique(mine[mine["interpretable"].astype(bool)]["word"].astype(str)) if len(mine) else []


def _feature(card: CardResults, found: Deciding, row: pd.Series, pictures: Pictures) -> Item:
    """Return one feature of the head with its pictures and words."""
    feature, lines = int(row["feature"]), []
    words = _words(card, feature)
    mine = card.words[card.words["feature"] == feature]
    if words:
        lines.append(f"holds {listed(words[:2])}")
    elif len(mine):
        lines.append("its neuron holds no word")
    lines.append(f"{formats.share(float(row['count']))} of the class's images")
    place = {"network": card.network, "feature": feature}
    amount = formats.signed(float(row["contribution"]))
    shown = tuple(_images(found, feature, pictures))
    link = address("decomposition", card.asked, **place)
    return Item(shown, f"feature {feature}", amount, tuple(lines), link, marked=bool(row["contribution"] > 0))


def _images(found: Deciding, feature: int, pictures: Pictures) -> Iterator[Shown]:
    """Yield the most activating images of a feature, outlined where it is active."""
    if not len(found.images) or not found.pictures:
        return
    for _, row in found.images[found.images["feature"] == feature].head(IMAGES).iterrows():
        image = enlarge(as_rgb(found.pictures[int(row["picture"])]))
        alt = f"Image {row['sample_id']}, class {row['class_name']}, which activates feature {feature}"
        yield pictures.show(_boxed(image, row), alt)


def _boxed(image: Image, row: pd.Series) -> Image:
    """Outline the box of a row, in shares of height and width; a box of the whole image is left out."""
    top, left, bottom, right = (float(row[edge]) for edge in ("top", "left", "bottom", "right"))
    if (bottom - top) * (right - left) >= 1:
        return image
    height, width = image.shape[:2]
    region = np.zeros((height, width), bool)
    region[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return outline(image, region)


def _no_words(card: CardResults) -> str:
    """Say why the features do not have words."""
    if card.holding is None:
        return "Question 3 would name the features: it was not asked of this network."
    layers = listed(card.holding.maps)
    return f"No layer of question 3 ({layers}) gives these features, so they do not have words here."


def _contributions(card: CardResults, found: Deciding) -> Table:
    """List the largest contributions of all features, kept or not."""
    order = found.features["contribution"].abs().sort_values(ascending=False, kind="stable").index[:ROWS]
    table = found.features.loc[order]
    table = table.assign(
        word=[", ".join(_words(card, int(feature))) for feature in table["feature"]],
        kept=["yes" if kept else "no" for kept in table["in_set"]],
    )
    cells = {
        "feature": number_cell("feature", formats.count),
        "kept": text_cell("kept"),
        "word": text_cell("word"),
        "value": number_cell("value", formats.measure),
        f"weight for {found.predicted}": number_cell("weight", formats.signed),
        "adds": number_cell("contribution", formats.signed),
        f"more than for {found.runner_up}": number_cell("against", formats.signed),
    }
    caption = f"The {len(table)} features that add or take most, in logits of {found.predicted}; the bias is "
    return print_table(table, f"{caption}{formats.signed(found.bias)}", cells, words=3)


def responding_part(card: CardResults, pictures: Pictures) -> Part:
    """Lay out where the features of the class respond in the image."""
    title, link = "Where do the features of its class respond?", address("interpretation", card.asked)
    if not card.responding:
        ask = card.missing.get("interpretation", "")
        return Part("responding", title, "", ask=ask, link=link, page="question 1")
    items = tuple(_heat(card, found, pictures) for found in card.responding)
    notes = ["Bright: where the three features with the largest responses lie. They were found on all training images."]
    if card.image is None:
        notes = ["The image stays in the store, so there is no heat map."]
    return Part(
        "responding",
        title,
        responding_sentence(card.responding[0]),
        (Strip("Heat maps", items),) if any(item.shown for item in items) else (),
        tables=tuple(_feature_table(found) for found in card.responding if len(found.features)),
        notes=tuple(notes),
        link=link,
        page="question 1",
    )


def responding_sentence(found: Responding) -> str:
    """Say which feature of the class does most."""
    if not len(found.features):
        return f"The {found.noun}s of class {found.class_name} respond where the picture is bright."
    first = found.features.iloc[0]
    what = (
        f"Of the {len(found.features)} {found.noun}s of class {found.class_name}, {found.noun} {first['feature']:.0f}"
    )
    if np.isfinite(first["share"]):
        return f"{what} does most: {formats.part(float(first['share']))} of the logit."
    return f"{what} responds most."


def _heat(card: CardResults, found: Responding, pictures: Pictures) -> Item:
    """Return the image with a heat map."""
    alt = f"Where the {found.noun}s of class {found.class_name} respond in the image"
    shown: tuple[Shown, ...] = ()
    if card.image is not None and found.heat is not None:
        shown = (pictures.show(enlarge(overlay(card.image, found.heat)), alt),)
    place = {"network": card.network, "class": found.class_name}
    link = address("interpretation", card.asked, **place)
    return Item(shown, f"class {found.class_name}", found.interpreter, (f"the {found.role} class",), link)


def _feature_table(found: Responding) -> Table:
    """List the features of a class by what they do in this image."""
    cells = {
        found.noun: number_cell("feature", formats.count),
        "largest response": number_cell("peak", formats.measure),
        "adds to the logit": number_cell("gain", formats.signed),
        "share of the logit": number_cell("share", formats.part),
    }
    caption = f"{found.interpreter}, class {found.class_name}: what each {found.noun} does in this image"
    return print_table(found.features.head(ROWS), caption, cells)
