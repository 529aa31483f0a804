"""The part of question 3 in a card: the neurons that the image activates, and the words that they hold."""

from collections.abc import Iterator

import pandas as pd

from tasks.report import formats
from tasks.report.blocks import Shown
from tasks.report.cards.parts import Item, Part, Pictures, Strip, address, listed, unique
from tasks.report.cards.results import CardResults, Holding

IMAGES = 3  # of a neuron
NAMED = 3  # words that the sentence names


def holding_part(card: CardResults, pictures: Pictures) -> Part:
    """Lay out the neurons that the image activates most."""
    found, title = card.holding, "Which concepts do its neurons hold?"
    link = address("concepts", card.asked)
    if found is None:
        return Part("holding", title, "", ask=card.missing.get("concepts", ""), link=link, page="question 3")
    items = tuple(_neuron(card, found, rows, pictures) for _, rows in _by_neuron(found))
    notes = (
        f"The words are those of {found.snapshot}. A percentage: the share of the probing images that activate the "
        "neuron less. The pictures are those that activate it most. A word says what a neuron responds to in these. It "
        "need not be in the image above."
    )
    strips = (Strip("Interpretable neurons, the most active first", items, wide=True),) if items else ()
    sentence = holding_sentence(card, found)
    return Part("holding", title, sentence, strips, notes=(notes,) if items else (), link=link, page="question 3")


def holding_sentence(card: CardResults, found: Holding) -> str:
    """Say which words the most active neurons hold."""
    if not len(found.neurons):
        return f"No neuron holds a word at {found.snapshot}, so there is nothing to name."
    words = unique(found.neurons["word"].astype(str))[:NAMED]
    first = found.neurons.iloc[0]
    layer = card.named(str(first["layer"]))
    return (
        f"Of the neurons that hold a word, those of {listed(words)} respond most. Neuron {first['neuron']} of layer "
        f"{layer} ({first['word']}) responds more than to {_above(first)} of the probing images."
    )


def _above(row: pd.Series) -> str:
    """Return the share of the probing images that activate a neuron less."""
    return "any" if row["above"] == 1 else formats.share(float(row["above"]))


def _by_neuron(found: Holding) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    """Yield the rows of each neuron, a detector each, in order."""
    for key, rows in found.neurons.groupby(["layer", "neuron"], sort=False):
        layer, neuron = key
        yield (str(layer), int(str(neuron))), rows


def _neuron(card: CardResults, found: Holding, rows: pd.DataFrame, pictures: Pictures) -> Item:
    """Return one neuron with its words and pictures."""
    first = rows.iloc[0]
    layer, neuron = str(first["layer"]), int(first["neuron"])
    words = unique(rows["word"].astype(str))
    place = {"network": card.network, "seed": card.seed, "layer": layer, "neuron": neuron}
    lines = (f"neuron {neuron} of layer {card.named(layer)}", *unique(f"by {name}" for name in rows["detector"]))
    shown = tuple(_images(found, layer, neuron, pictures))
    amount = f"more than {_above(first)}"
    return Item(shown, listed(words), amount, lines, address("concepts", card.asked, **place))


def _images(found: Holding, layer: str, neuron: int, pictures: Pictures) -> Iterator[Shown]:
    """Yield the most activating probing images of a neuron."""
    if not len(found.images):
        return
    mine = found.images[(found.images["layer"] == layer) & (found.images["neuron"] == neuron)]
    for _, row in mine.sort_values("rank").head(IMAGES).iterrows():
        if row["picture"] in found.pictures:
            alt = f"Probing image {row['sample_id']}, which activates neuron {neuron}"
            yield pictures.show(found.pictures[row["picture"]], alt)
