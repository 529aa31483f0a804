"""What the page of question 4 says first: who taught one answer, as a sentence and a picture."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from tasks.figures.overlay import Thumbnail
from tasks.report import formats
from tasks.report.blocks import Shown
from tasks.report.cautions import network_cautions, shortened
from tasks.report.opening import NOTHING, Bar, Opening, Picture, pictured
from tasks.report.tracing.first import First
from tasks.report.tracing.queries import Card
from tasks.report.tracing.results import TracingResults

FOR, AGAINST = 3, 2  # examples in the picture
MOST_CLASSES = 6  # with a bar


def opening_of(
    results: TracingResults, first: First | None, cards: Sequence[Card], thumbnails: Sequence[Thumbnail]
) -> Opening:
    """Return the opening.

    Parameters
    ----------
    first : the first screen of the page, made from one of the `cards`
    thumbnails : of the page
    """
    warnings = shortened(_cautions(results))
    if first is None:
        return Opening(warnings=warnings)
    known = {thumb.digest: thumb for thumb in thumbnails}
    return Opening(
        answer=first.sentence or NOTHING,
        caption="The image asked about, the training images that taught its answer most, and those most against it."
        if first.ends
        else "What the training examples of each class added to the answer, or took away from it.",
        pictures=tuple(_pictures(first, cards, known)) if first.ends else (),
        bars=_bars(first),
        warnings=warnings,
    )


def _pictures(first: First, cards: Sequence[Card], known: Mapping[str, Thumbnail]) -> Iterator[Picture]:
    """Yield the query, who taught it and who worked against it."""
    asked = next(card for card in cards if card.id == first.card)
    wanted: list[tuple[Shown | None, str, str]] = [(first.shown, f"answer {asked.query.predicted}", "asked")]
    for (_, examples), mark, most in zip(first.ends, ("for", "against"), (FOR, AGAINST), strict=False):
        wanted += [(example.shown, f"{example.class_name} {example.share}", mark) for example in examples[:most]]
    for shown, text, mark in wanted:
        found = None if shown is None else pictured(shown, known, text, mark)
        if found is not None:
            yield found


def _bars(first: First) -> tuple[Bar, ...]:
    """Return what the classes added, largest first, as parts of the largest."""
    largest = first.classes.abs().max() if len(first.classes) else 0.0
    if not largest > 0:
        return ()
    ranked = first.classes.reindex(first.classes.abs().sort_values(ascending=False, kind="stable").index)
    return tuple(
        Bar(formats.class_of(name), abs(value) / largest, formats.signed(value), against=value < 0)
        for name, value in ranked.head(MOST_CLASSES).items()
    )


def _cautions(results: TracingResults) -> Iterator[str]:
    """Yield the warnings of the page: networks at chance, and a last layer whose examples are of any class."""
    yield from network_cautions(results.networks, "accuracy", "n_evaluate")
    yield from _unrelated(results.networks, results.layers)


def _unrelated(networks: pd.DataFrame, layers: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each network whose last layer names examples of the predicted class as seldom as chance."""
    if not {"n_classes", "explained"} <= set(networks.columns) or "agreement_10" not in layers:
        return
    whole = layers[~layers["unit"].astype(bool)] if "unit" in layers else layers
    for row in networks.to_dict("records"):
        mine = whole[(whole["network"] == row["network"]) & (whole["seed"] == row["seed"])]
        agreement = mine["agreement_10"].astype(float).dropna()
        n = 10 * float(row["explained"] or 0)
        if agreement.empty or not float(row["n_classes"] or 0) > 1 or not n > 0:
            continue
        value, chance = float(agreement.iloc[-1]), 1 / float(row["n_classes"])
        if value <= chance + 2 * np.sqrt(chance * (1 - chance) / n):
            yield (
                f"{row['network']}, seed {row['seed']}: of the ten examples that taught an answer most, "
                f"{formats.share(value)} are of the predicted class. By chance it would be {formats.share(chance)}. "
                "So the examples say little about the answers."
            )
