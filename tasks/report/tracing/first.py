"""The first screen of the tracing page: who taught the network its answer to one query, as a sentence and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from tasks.report import formats
from tasks.report.blocks import FigureBlock, Shown
from tasks.report.tracing.privacy import by_class
from tasks.report.tracing.queries import OTHER_TITLES, Card, Example, Panel
from tasks.report.tracing.queries import TITLES as END_TITLES
from tasks.report.tracing.scores import rough

MAX_SHOWN = 6  # examples at either end
TITLES = ("Taught it most", "Worked against it most")
RIDGES = "first-ridges"


@dataclass(frozen=True)
class First:
    """One query and who taught its answer.

    Attributes
    ----------
    sentence : the answer
    shown : the query's thumbnail, None where it may not be shown
    ends : title and training images at both ends; empty where training images may not be shown
    figure : the ridge plot, in place of images
    note : where the numbers come from
    card : id of the query's card below
    classes : what the examples of each class added, by class
    """

    sentence: str
    shown: Shown | None
    ends: tuple[tuple[str, tuple[Example, ...]], ...]
    figure: FigureBlock | None
    note: str
    card: str
    classes: pd.Series


def first_screen(cards: Sequence[Card], evaluation: pd.DataFrame) -> First | None:
    """Choose the first query that is answered correctly, and its best score; None without queries.

    Parameters
    ----------
    evaluation : as `TracingResults` describes it; a counterfactual score that is not valid is not taken
    """
    usable = [card for card in cards if card.panels]
    if not usable:
        return None
    card = next((card for card in usable if not card.wrong), usable[0])
    rough = _rough(evaluation, card)
    layers = {layer.layer: layer for layer in card.query.layers if layer.layer != rough}
    panel = [panel for panel in card.panels if panel.layer in layers][-1]
    layer = layers[panel.layer]
    ends = _pictures(panel)
    classes = by_class(layer) if layer.classes is None else layer.classes
    sums = classes.set_index("class_name")["sum"].astype(float)
    return First(
        sentence=_sentence(card, sums),
        shown=card.shown,
        ends=ends,
        figure=None if ends else _ridges(card),
        note=("Training examples with labels, parts and ids. " if ends else "") + _source(panel),
        card=card.id,
        classes=sums,
    )


def _source(panel: Panel) -> str:
    """Say which layer or score the parts are of."""
    return f"By layer {panel.layer}" if panel.kind == "Layer" else f"By the score {panel.layer}"


def _rough(evaluation: pd.DataFrame, card: Card) -> str:
    """Return the score of a card's network that does not predict retrainings, "" without one."""
    if "score" not in evaluation or "network" not in evaluation:
        return ""
    mine = evaluation[(evaluation["network"] == card.query.network) & (evaluation["seed"] == card.query.seed)]
    rows = rough(mine)
    return str(rows["score"].iloc[0]) if len(rows) else ""


def _pictures(panel: Panel) -> tuple[tuple[str, tuple[Example, ...]], ...]:
    """Return the examples at both ends, if they have images."""
    shown = any(example.shown for _, examples in panel.ends for example in examples)
    if not shown:
        return ()
    first = {pair[0] for pair in (*END_TITLES.values(), OTHER_TITLES)}
    return tuple(
        (
            TITLES[0 if title in first else 1],
            tuple(replace(example, details=example.details[-1:]) for example in examples[:MAX_SHOWN]),
        )
        for title, examples in panel.ends
    )


def _ridges(card: Card) -> FigureBlock | None:
    """Return the ridge plot of the deepest layer that has one."""
    known = [i for i, layer in enumerate(card.query.layers) if layer.ridges is not None]
    names = {card.query.layers[i].layer for i in known}
    views = [view for panel, view in zip(card.panels, card.figure.views, strict=True) if panel.layer in names]
    return replace(card.figure, id=RIDGES, views=views[-1:], start=0) if views else None


def _sentence(card: Card, sums: pd.Series) -> str:
    """Name the classes of training images that added most to the answer, and that worked against it most."""
    query = card.query
    answer = f"{card.of} answers {query.predicted} ({card.probability})"
    if query.predicted != query.true_class:
        answer += f" where the label is {query.true_class}"
    if not len(sums) or not sums.max() > 0:
        return f"{answer}."
    against = f", and those of {formats.class_of(sums.idxmin())} worked against it most" if sums.min() < 0 else ""
    return f"{answer}: training examples of {formats.class_of(sums.idxmax())} taught it that most{against}."
