"""The part of question 4 in a card: who taught the answer; and when it came."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from tasks.figures.cards.course import NeuronCourse, course_view, first_held
from tasks.figures.tracing.ridges import ridge_view
from tasks.report import formats
from tasks.report.blocks import FigureBlock
from tasks.report.cards.parts import Item, Part, Pictures, Strip, address, unique
from tasks.report.cards.results import CardResults, Taught
from tasks.report.cells import number_cell, print_table, text_cell

MOST = 8  # examples at either end
CLASSES = 10  # of the table
DRAWN = 4  # classes of the figure
TITLES = {
    "counterfactual": ("Without these the answer would be less sure", "Without these it would be surer"),
    "logit": ("Raised the answer's logit most", "Lowered it most"),
    "gamma": ("Taught its representation most", "Worked against it most"),
}
ORDER = ("counterfactual", "logit", "gamma")


def teaching_part(card: CardResults, pictures: Pictures) -> Part:
    """Lay out the training images behind the answer."""
    found, title = card.taught, "Who taught it that?"
    link = address("tracing", card.asked)
    if found is None:
        return Part("teaching", title, "", ask=card.missing.get("tracing", ""), link=link, page="question 4")
    place = {} if found.query is None else {"network": card.network, "seed": card.seed, "query": found.query}
    scores = [score for score in ORDER if (found.examples["score"] == score).any()]
    if found.rough and "counterfactual" in scores:
        scores = [*scores[1:], scores[0]]
    strips = {score: _strips(card, found, score, pictures) for score in scores}
    first, *others = scores or [""]
    cells = {
        "class": text_cell("class_name"),
        "sum": number_cell("sum", formats.signed),
        "share of ‖z‖²": number_cell("share", formats.signed_share),
    }
    by_class = print_table(
        found.classes.head(CLASSES), f"What the images of each class added to layer {card.named(found.layer)}", cells
    )
    return Part(
        "teaching",
        title,
        teaching_sentence(card, found),
        strips.get(first, ()),
        figures=_ridges(card, found),
        tables=(by_class,),
        notes=tuple(_notes(card, found)),
        link=address("tracing", card.asked, **place) or link,
        page="question 4",
        folded=tuple(strip for score in others for strip in strips[score]),
    )


def teaching_sentence(card: CardResults, found: Taught) -> str:
    """Say which classes and which images taught the answer."""
    sums = found.classes.set_index("class_name")["sum"].astype(float)
    if not len(sums) or not sums.max() > 0:
        said = "No class of training images moved the representation towards this answer."
    else:
        against = f"; those of class {sums.idxmin()} worked against it most" if sums.min() < 0 else ""
        layer = card.named(found.layer)
        said = f"By all updates of layer {layer}, images of class {sums.idxmax()} taught it most{against}."
    top = found.examples[found.examples["end"] == "top"]
    suspects = top[top["suspect"].notna()]["sample_id"].nunique()
    if suspects:
        verb = "is a suspect: its label is" if suspects == 1 else "are suspects: their labels are"
        said += f" {suspects} of the images that taught it {verb} probably wrong."
    return said


def _strips(card: CardResults, found: Taught, score: str, pictures: Pictures) -> tuple[Strip, ...]:
    """Return both ends of one score."""
    strips = []
    for end, title in zip(("top", "bottom"), TITLES[score], strict=True):
        rows = found.examples[(found.examples["score"] == score) & (found.examples["end"] == end)].head(MOST)
        items = tuple(_example(card, found, row, pictures) for _, row in rows.iterrows())
        if items:
            strips.append(Strip(title, items))
    return tuple(strips)


def _example(card: CardResults, found: Taught, row: pd.Series, pictures: Pictures) -> Item:
    """Return one training image."""
    sample, name = int(row["sample_id"]), str(row["class_name"])
    image = found.images.get(sample)
    shown = () if image is None else (pictures.show(image, f"Training image, sample {sample}, class {name}"),)
    flag = "" if pd.isna(row["suspect"]) else f"suspect {int(row['suspect'])}"
    place = {} if found.query is None else {"network": card.network, "seed": card.seed, "query": found.query}
    link = address("tracing", card.asked, **place)
    share = formats.signed_share(float(row["share"]))
    return Item(shown, name, share, (f"sample {sample}",), link, marked=name == card.predicted, flag=flag)


def _notes(card: CardResults, found: Taught) -> list[str]:
    """Say what the numbers are, what is left out, and how far to trust them."""
    held = "output layer" if found.output else "deepest traced layer"
    layer = card.named(found.layer)
    notes = [f"Shares are of layer {layer}, the {held}; counterfactual ones are of the sum of all examples."]
    if np.isfinite(init := found.parts.get("init", np.nan)):
        notes.append(f"The initial weights made {formats.part(init)} of the representation, training images the rest.")
    if found.query is None:
        notes.append("The image is not a query of the run: the archive was read for it.")
    if found.rough:
        notes.append("Counterfactual influence does not predict retrainings of this network, so it comes last.")
    if found.missing:
        notes.append(f"No counterfactual influence: {found.missing}.")
    if card.training_images == "none":
        notes.append("Training images and their ids stay in the store.")
    elif card.training_images == "ids":
        notes.append("Training images stay in the store; their ids are named.")
    if found.n_suspects:
        notes.append(f"Suspects: the {found.n_suspects} training images with the largest summed loss.")
    return notes


def _ridges(card: CardResults, found: Taught) -> tuple[FigureBlock, ...]:
    """Return the ridge plot of the layer."""
    if found.ridges is None:
        return ()
    caption = "To the right: updates on images of this class moved the output towards its answer. Left: away from it."
    layer = card.named(found.layer)
    view = ridge_view(layer, found.ridges)
    return (FigureBlock("ridges", f"Layer {layer}: every class's updates", caption, [view], None),)


def course_part(card: CardResults) -> Part | None:
    """Lay out when the classes taught the answer, and when its neurons held their words; None without either."""
    shares, epochs = _shares(card)
    neurons = _neurons(card, epochs)
    if not shares and not neurons:
        return None
    reach = float(epochs) if epochs else max(float(neuron.when.max()) for neuron in neurons)
    view = course_view(shares, neurons, "epoch" if epochs else "step", reach)
    caption = "Lines: what each class's images had added to the layer by each epoch, in % of ‖z‖². " if shares else ""
    if neurons:
        caption += "Dots: snapshots; filled where the neuron held a word."
    figure = FigureBlock("course", "Course of the training", caption, [view], None)
    return Part("course", "When did it come?", _when(shares, neurons, epochs), figures=(figure,))


def _shares(card: CardResults) -> tuple[dict[str, np.ndarray], int]:
    """Return the shares by epoch of the answer's class, of the given one and of the largest others; and the epochs."""
    if card.taught is None:
        return {}, 0
    wide = card.taught.course.pivot_table("share", "class_name", "epoch", aggfunc="sum", sort=False)
    largest = wide.sum(axis=1).abs().sort_values(ascending=False, kind="stable").index
    names = [name for name in unique([card.predicted, card.given, *largest]) if name in wide.index][:DRAWN]
    return {name: wide.loc[name].to_numpy(np.float64) for name in names}, wide.shape[1]


def _neurons(card: CardResults, epochs: int) -> list[NeuronCourse]:
    """Return the course of each neuron of the card; without a training's epochs by step, or by snapshot."""
    if card.holding is None or card.holding.course.empty:
        return []
    course = card.holding.course
    known = bool((course["step"] >= 0).all())
    if epochs and not known:
        return []
    taught = card.taught
    scale = epochs / taught.steps if epochs and taught is not None and taught.steps else 1.0
    found = []
    for (layer, neuron), rows in course.groupby(["layer", "neuron"], sort=False):
        wide = rows.pivot_table("interpretable", "snapshot", aggfunc="max").iloc[:, 0].astype(bool)
        first = rows.drop_duplicates("snapshot").sort_values("snapshot")
        when = first["step" if known else "snapshot"].to_numpy(np.float64) * scale
        held = rows.sort_values(["snapshot", "interpretable"]).drop_duplicates("snapshot", keep="last")
        name = f"{layer}:{neuron} {held['word'].iloc[-1]}"
        found.append(NeuronCourse(name, when, wide.to_numpy(bool), tuple(held["word"].astype(str))))
    return found


def _when(shares: dict[str, np.ndarray], neurons: Sequence[NeuronCourse], epochs: int) -> str:
    """Say when the answer's class had half of its share, and when the first neuron held its word."""
    said = []
    if shares:
        name, values = next(iter(shares.items()))
        summed = np.cumsum(values)
        if summed[-1] > 0:
            half = int(np.flatnonzero(summed >= summed[-1] / 2)[0]) + 1
            said.append(f"By epoch {half} of {epochs}, images of class {name} had taught half of what they taught.")
    firsts = [(first, neuron.name) for neuron in neurons if (first := first_held(neuron)) is not None]
    if firsts:
        unit, (when, name) = "epoch" if epochs else "step", min(firsts)
        said.append(f"Of the neurons above, {name} holds its word first: from {unit} {when:.3g} on.")
    return " ".join(said)
