"""What the page of question 1 says first: the answer for one class, and a picture of its features."""

from typing import Any

import numpy as np
import pandas as pd

from tasks.report import formats
from tasks.report.interpretation.cards import Cards
from tasks.report.interpretation.cautions import interpretation_cautions
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.opening import MAX_BARS, MAX_PICTURES, NOTHING, Bar, Opening, Picture, bar_share

CARDS_CAPTION = "The features of one class, the most important first; framed: where each one responds most."
BARS_CAPTION = "Validation images that the network still classifies correctly from the features of a coreset alone."


def opening_of(results: InterpretationResults, cards: Cards | None, first: str) -> Opening:
    """Return the opening.

    Parameters
    ----------
    first : the first finding of the page, "" without one
    """
    warnings = interpretation_cautions(results)
    if cards is None:
        return Opening(first or NOTHING, BARS_CAPTION, bars=_accuracies(results.over_repeats), warnings=warnings)
    data: Any = cards.data  # lists as the page's script reads them
    view = data["views"][0]
    features = [data["features"][pair[0]] for pair in view["pairs"]]
    pictures = [_picture(feature, data, cards) for feature in features[:MAX_PICTURES]]
    bars = [Bar(feature[0], bar_share(feature[2]), f"{feature[3]} {feature[4]}") for feature in features[:MAX_BARS]]
    return Opening(
        answer=cards.line,
        caption=f"{CARDS_CAPTION} Class {view['key'][1]}.",
        pictures=tuple(picture for picture in pictures if picture is not None),
        bars=tuple(bars),
        warnings=warnings,
    )


def _picture(feature: Any, data: Any, cards: Cards) -> Picture | None:  # Any: lists as the page's script reads them
    """Return the image on which a feature responds most, None where it may not be shown."""
    for place in feature[7]:
        thumb, top, left, bottom, right, name = data["images"][place]
        if thumb >= 0:
            alt = f"{name or 'image'}: framed where {feature[0]} responds"
            return Picture(cards.thumbnails[thumb], alt, feature[3], (left, top, right - left, bottom - top))
    return None


def _accuracies(rows: pd.DataFrame) -> tuple[Bar, ...]:
    """Return the accuracy with the features of each coreset of the first network and interpreter."""
    if rows.empty or "accuracy_mean" not in rows:
        return ()
    first = rows.iloc[0]
    mine = rows[(rows["network"] == first["network"]) & (rows["interpreter"] == first["interpreter"])]
    known = mine[np.isfinite(mine["accuracy_mean"].astype(float))].head(MAX_BARS)
    columns = (known["selector"], known["budget"], known["accuracy_mean"].astype(float))
    return tuple(
        Bar(f"{selector} {formats.budget(float(budget))}", bar_share(value), formats.share(value))
        for selector, budget, value in zip(*columns, strict=True)
    )
