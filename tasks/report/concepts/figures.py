"""The figures of the concepts page, each with the choices above it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.figures.concepts import plane
from tasks.figures.concepts.ablations import tau_view, temperature_view
from tasks.figures.concepts.course import MAX_LINES, course_view
from tasks.figures.concepts.holdings import MAX_LAYERS, MAX_SNAPSHOTS, holdings, holdings_view
from tasks.figures.concepts.plane import plane_of, plane_view
from tasks.figures.views import View, spread_out
from tasks.report.blocks import FigureBlock
from tasks.report.concepts.choices import Chooser, Key
from tasks.report.concepts.groups import Group

NAMES = ("network", "seed", "detector")
MAX_PLANE_SNAPSHOTS = 12
MAX_PLANES = 400  # pictures of the plane in the page
MAX_POINTS = 60_000  # in all of them
HOLDINGS_CAPTION = (
    "Stacked: interpretable neurons by category, in percent of the layer's neurons. Hatched: simple concepts; "
    "plain: complex ones. Diamonds: how many would be interpretable by chance."
)
COURSE_CAPTION = (
    "d_anchor: the mean distance from an anchor, a word, to the nearest neuron. It falls as the neurons cover more "
    "anchors."
)
PLANE_CAPTION = (
    "Each point is a neuron, in the plane of the words' text embeddings{same}. Stars: anchors.{trails} A click on a "
    "neuron opens it in the explorer."
)
TAU_CAPTION = "Interpretable neurons by threshold τ. Dotted: the τ of this page. Dashed: the null of the last snapshot."
TEMPERATURE_CAPTION = "d_anchor by snapshot, a line per temperature of the embedding."


@dataclass(frozen=True)
class ChosenFigures:
    """Figures that one chooser switches together."""

    chooser: Chooser
    figures: tuple[FigureBlock, ...]


def holdings_figure(groups: Sequence[Group]) -> ChosenFigures:
    """Draw what the layers hold over training."""
    views, cut = [], False
    for group in groups:
        held = holdings(group.tables["monitor"], group.tables["categories"])
        cut = cut or held.n_layers > len(held.layers) or held.n_snapshots > len(held.snapshots)
        views.append(holdings_view(held, group.title))
    caps = f" At most {MAX_LAYERS} layers and {MAX_SNAPSHOTS} snapshots are drawn, evenly spread." if cut else ""
    chooser = Chooser("held", NAMES, tuple(group.key for group in groups))
    return ChosenFigures(
        chooser, (FigureBlock("holdings", "What the layers hold", HOLDINGS_CAPTION + caps, views, None),)
    )


def course_figure(groups: Sequence[Group]) -> tuple[FigureBlock | None, tuple[int, ...]]:
    """Draw the course of the training.

    Returns
    -------
    a view for each group, None where none of them has a course; and the groups that have one
    """
    views = [course_view(group.tables["monitor"], group.title) for group in groups]
    shown = tuple(i for i, group in enumerate(groups) if len(group.labels) > 1 and views[i].data)
    if not shown:
        return None, ()
    drawn = [groups[i].tables["monitor"] for i in shown]
    known = [name for name in ("accuracy", "loss") if any(np.isfinite(m[name].astype(float)).any() for m in drawn)]
    whose = " and ".join(known).capitalize()
    own = f" {whose} {'are' if len(known) > 1 else 'is'} the network's." if known else ""
    lines = any(monitor["layer"].nunique() > MAX_LINES for monitor in drawn)
    some = f" Lines of at most {MAX_LINES} layers, evenly spread." if lines else ""
    return FigureBlock("course", "Over training", COURSE_CAPTION + own + some, views, None), shown


def plane_figures(groups: Sequence[Group], anchors: pd.DataFrame) -> tuple[ChosenFigures | None, tuple[str, ...]]:
    """Draw each layer at each snapshot among the anchors; return it, and what the caps leave out."""
    layers = [(group, layer, rows) for group in groups for layer, rows in group.by_layer("plane")]
    if not layers:
        return None, ()
    n_snapshots = max(min(len(group.labels), MAX_PLANE_SNAPSHOTS) for group, _, _ in layers)
    drawn = layers[: max(1, MAX_PLANES // n_snapshots)]
    most = max(1, min(plane.MAX_NEURONS, MAX_POINTS // (n_snapshots * len(drawn))))
    keys, views, notes, cut = [], [], [], False
    if len(drawn) < len(layers):
        notes.append(f"The plane is drawn for the first {len(drawn)} of {len(layers)} layers and detectors.")
    for group, layer, rows in drawn:
        shown = plane_of(rows, anchors, most)
        snapshots = sorted(int(s) for s in rows["snapshot"].unique())
        for i in spread_out(len(snapshots), MAX_PLANE_SNAPSHOTS):
            keys.append((*group.key, layer, group.labels[snapshots[i]]))
            views.append(plane_view(shown, snapshots[i], f"{group.title}, {layer}"))
        cut = cut or shown.n_neurons > most
    if cut:
        notes.append(f"At most {most} neurons of a layer are drawn: tracked ones, then interpretable ones.")
    if len(anchors) > plane.MAX_ANCHORS:
        notes.append(f"{plane.MAX_ANCHORS} of {len(anchors)} anchors, evenly spread.")
    start = _last_of_first(keys)
    chooser = Chooser("plane", (*NAMES, "layer", "snapshot"), tuple(keys), slides="snapshot", start=start)
    same = ", which is the same for all snapshots" if n_snapshots > 1 else ""
    tracked = n_snapshots > 1 and any(rows["tracked"].astype(bool).any() for _, _, rows in drawn)
    trails = " Lines: the trails of tracked neurons." if tracked else ""
    caption = PLANE_CAPTION.format(same=same, trails=trails)
    figure = FigureBlock("neurons", "Neurons among words", caption, views, None, start=start)
    return ChosenFigures(chooser, (figure,)), tuple(notes)


def tau_figures(groups: Sequence[Group]) -> ChosenFigures | None:
    """Draw the tau curves."""
    return _by_layer(groups, "tau_curves", "tau", ("How τ decides", TAU_CAPTION))


def temperature_figures(groups: Sequence[Group]) -> ChosenFigures | None:
    """Draw d_anchor by temperature."""
    return _by_layer(groups, "temperatures", "temperature", ("How the temperature decides", TEMPERATURE_CAPTION))


def _last_of_first(keys: Sequence[Key]) -> int:
    """Start with the last layer, and snapshot, of the first network, seed and detector."""
    return max(i for i, key in enumerate(keys) if key[:3] == keys[0][:3])


def _by_layer(groups: Sequence[Group], table: str, name: str, texts: tuple[str, str]) -> ChosenFigures | None:
    """Draw a view per group and layer of a table."""
    keys, views = [], []
    for group in groups:
        for layer, rows in group.by_layer(table):
            keys.append((*group.key, layer))
            views.append(_ablation(group, layer, rows, table))
    if not views:
        return None
    start = _last_of_first(keys)
    figure = FigureBlock(f"{name}-curves", *texts, views, None, start=start)
    return ChosenFigures(Chooser(name, (*NAMES, "layer"), tuple(keys), start=start), (figure,))


def _ablation(group: Group, layer: str, rows: pd.DataFrame, table: str) -> View:
    """Draw one layer of one of the two ablations."""
    label = f"{group.title}, {layer}"
    if table == "temperatures":
        return temperature_view(rows, group.labels, label)
    monitor = group.tables["monitor"]
    tau = monitor.loc[monitor["layer"] == layer, "tau"].astype(float).to_numpy(np.float64)
    return tau_view(rows, group.labels, float(tau[-1]) if len(tau) else float("nan"), label)
