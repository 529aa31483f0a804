"""Ridge plots: the densities of the step cosines by class, one above the other (Pfahler and Morik 2022, Alg. 3)."""

from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from tasks.figures.series import Floats
from tasks.figures.views import (
    GREY,
    INK,
    Part,
    View,
    base_layout,
    compact,
    in_percent,
    json_floats,
    light_axis,
    shorten,
)

POINTS = 121  # of each curve; its peak is added, so a narrow one is not cut
OVERLAP = 1.5  # the highest ridge in units of the distance between two
NEGLIGIBLE = 1e-3  # of the highest density: what lies beyond does not widen the picture
HIGHLIGHT, OTHER = "#0072B2", "#5F6E80"
MAX_NAME = 12  # of a class next to its ridge, where a phone leaves little room


@dataclass(frozen=True)
class Ridges:
    """Densities of the step cosines of one query and layer, by the class of the step.

    Attributes
    ----------
    grid : (G,) float, ascending, cosine
    classes : names of C classes, by falling predicted probability
    probabilities : (C,) float, 0..1
    densities : (C, G) float, weighted by ||D_t f||; zeros for a class without any weight
    totals : (C,) float, the sum of these weights, which a density hides
    highlighted : row of the predicted class
    bandwidth : what the densities are smoothed by, to be printed
    """

    grid: NDArray[np.floating]
    classes: tuple[str, ...]
    probabilities: NDArray[np.floating]
    densities: NDArray[np.floating]
    totals: NDArray[np.floating]
    highlighted: int
    bandwidth: str

    def __post_init__(self) -> None:
        """Refuse densities that are not a row per class on the grid."""
        n = len(self.classes)
        shapes = (np.shape(self.densities), np.shape(self.probabilities), np.shape(self.totals))
        if shapes != ((n, len(self.grid)), (n,), (n,)):
            raise ValueError(
                f"densities, probabilities and totals of shapes {shapes}: expected a row for each of {n} classes "
                f"and {len(self.grid)} grid points"
            )
        if n and not 0 <= self.highlighted < n:
            raise ValueError(f"highlighted: expected a row of {n} classes, found {self.highlighted}")

    def mean_cosines(self) -> Floats:
        """Return each class's weighted mean cosine on the grid (C,), NaN without any weight."""
        step = np.gradient(self.grid) if len(self.grid) > 1 else np.ones(len(self.grid))
        mass = (self.densities * step).sum(axis=1)
        moment = (self.densities * step * self.grid).sum(axis=1)
        means: Floats = np.divide(moment, mass, out=np.full(len(mass), np.nan), where=mass > 0)
        return means

    def reach(self) -> float:
        """Return the cosine r such that -r..r holds all that is not negligible."""
        widest = float(np.abs(self.grid).max(initial=0.0)) or 1.0
        seen = np.abs(self.grid)[(self.densities > NEGLIGIBLE * self.densities.max(initial=0.0)).any(axis=0)]
        return min(widest, 1.05 * float(seen.max())) if seen.size and seen.max() > 0 else widest

    def baselines(self) -> list[int]:
        """Return the height of each class's ridge, the most probable class on top."""
        return list(range(len(self.classes) - 1, -1, -1))

    def curve(self, row: int) -> tuple[Floats, Floats]:
        """Return the cosines within reach and how high the ridge of a class is there, in units of the distance."""
        reach, density = self.reach(), self.densities[row]
        x = np.linspace(-reach, reach, POINTS)
        if density.any():
            x = np.union1d(x, self.grid[np.argmax(density)])
        highest = self.densities.max(initial=0.0) or 1.0
        return x, OVERLAP / highest * np.interp(x, self.grid, density, left=0.0, right=0.0)


def ridge_view(label: str, ridges: Ridges | None) -> View:
    """Draw a layer's ridges, the predicted class in colour, bold and marked.

    Parameters
    ----------
    label : the layer
    ridges : None where no densities were made: the view says so
    """
    if ridges is None or not ridges.classes:
        text = f"There is no ridge plot of layer {label}."
        note = {"text": escape(text), "showarrow": False, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
        hidden: Part = {"visible": False}
        return View(label, text, [], base_layout("") | {"annotations": [note], "xaxis": hidden, "yaxis": hidden})
    return View(label, in_words(label, ridges), _traces(ridges), _layout(ridges))


def in_words(label: str, ridges: Ridges) -> str:
    """Say what a ridge plot shows: each class's probability, total weight and mean cosine."""
    means = ridges.mean_cosines()
    classes = []
    for i, name in enumerate(ridges.classes):
        mark = "predicted, " if i == ridges.highlighted else ""
        mean = f"mean cosine {means[i]:+.3f}" if np.isfinite(means[i]) else "no updates"
        chance = in_percent(float(ridges.probabilities[i]))
        classes.append(f"{name} ({mark}{chance} %): total weight {compact(ridges.totals[i])}, {mean}")
    return f"Ridge plot of layer {label}, most probable class first. " + "; ".join(classes) + "."


def _traces(ridges: Ridges) -> list[Part]:
    """Return a closed outline per class; the lower are in front of the higher."""
    traces: list[Part] = []
    means = ridges.mean_cosines()
    for i, (name, base) in enumerate(zip(ridges.classes, ridges.baselines(), strict=True)):
        x, height = ridges.curve(i)
        colour = HIGHLIGHT if i == ridges.highlighted else OTHER
        mean = f"<br>mean cosine {means[i]:+.3f}" if np.isfinite(means[i]) else ""
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": escape(name),
                "text": f"{escape(name)}, {in_percent(float(ridges.probabilities[i]))} %"
                f"<br>total weight {compact(ridges.totals[i])}{mean}",
                "hoveron": "fills",
                "hoverinfo": "text",
                "x": _digits(np.concatenate([x[:1], x, x[-1:]])),
                "y": _digits(base + np.concatenate([[0.0], height, [0.0]])),
                "fill": "toself",
                "fillcolor": f"rgba({','.join(str(c) for c in _rgb(colour))},{0.8 if colour == HIGHLIGHT else 0.4})",
                "line": {"color": colour, "width": 2.5 if colour == HIGHLIGHT else 1.2},
                "showlegend": False,
            }
        )
    return traces


def _layout(ridges: Ridges) -> Part:
    """Return classes at the left, total weights at the right, zero in the middle."""
    n, reach = len(ridges.classes), ridges.reach()
    labels = []
    for i, (name, share) in enumerate(zip(ridges.classes, ridges.probabilities, strict=True)):
        shown = f"{escape(shorten(name, MAX_NAME))} {in_percent(share)} %"
        labels.append(f"<b>▶ {shown}</b>" if i == ridges.highlighted else shown)
    side: Part = {"xref": "paper", "x": 1.02, "xanchor": "left", "showarrow": False, "align": "left"}
    notes: list[Part] = [
        side | {"y": base, "text": f"<b>{text}</b>" if i == ridges.highlighted else text}
        for i, (base, text) in enumerate(zip(ridges.baselines(), map(compact, ridges.totals), strict=True))
    ]
    grey = {"font": {"color": GREY, "size": 12}, "yref": "paper", "y": 1, "yanchor": "bottom"}
    notes.append(side | grey | {"text": "total<br>weight"})
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    yaxis = light_axis("") | {
        "showline": False,
        "ticks": "",
        "ticklabelstandoff": 6,
        "title": {},
        "range": [-0.3, n - 1 + OVERLAP + 0.1],
    }
    return base_layout("") | {
        "height": 400 if n <= 8 else 120 + 32 * n,
        "hovermode": "closest",
        "margin": {"l": 0, "r": 60, "t": 48, "b": 56},
        "xaxis": light_axis("step cosine") | {"range": [-reach, reach], "nticks": 6, "tickangle": 0},
        "yaxis": yaxis | {"tickmode": "array", "tickvals": ridges.baselines(), "ticktext": labels},
        "annotations": notes,
        "shapes": [zero | {"line": {"color": INK, "width": 1, "dash": "4px,3px"}}],
    }


def _rgb(colour: str) -> list[int]:
    """Return the parts of a colour such as "#0072B2"."""
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]


def _digits(values: Floats) -> list[float | None]:
    """Keep four decimals, a fraction of a pixel, so that many plots fit in a page."""
    return json_floats(np.round(values, 4))
