"""When an answer came: the shares of classes in it, by epoch, above the snapshots at which neurons held their words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from tasks.figures.series import COLOURS
from tasks.figures.views import INK, Part, View, base_layout, in_percent, json_floats, light_axis, shorten

MAX_NAME = 22
ROW, LINES = 24, 220  # pixels of a neuron's row, and of the shares
OTHER = "#B9C0CA"


@dataclass(frozen=True)
class NeuronCourse:
    """Where one neuron held its word.

    Attributes
    ----------
    name : of the neuron and its word, for people
    when : (S,) places of the snapshots on the axis
    held : (S,) whether it was interpretable
    words : (S,) its best word at each
    """

    name: str
    when: NDArray[np.floating]
    held: NDArray[np.bool_]
    words: tuple[str, ...]


def course_view(
    shares: Mapping[str, NDArray[np.floating]], neurons: Sequence[NeuronCourse], axis: str, reach: float
) -> View:
    """Draw the summed shares of some classes up to each epoch, and below them a row of dots per neuron.

    Parameters
    ----------
    shares : (E,) share of each epoch in the whole, by name of the class, the most important first
    neurons : each a row; filled dots: it held a word
    axis : name of the axis: "epoch", or "step" without shares
    reach : the end of the axis
    """
    data = [_line(i, name, values) for i, (name, values) in enumerate(shares.items())]
    data += [part for neuron in neurons for part in _dots(neuron, "y2" if shares else "y")]
    height = (LINES if shares else 0) + ROW * len(neurons) + 110
    layout = base_layout("") | {"height": height, "hovermode": "closest"}
    layout["xaxis"] = light_axis(axis) | {"range": [-0.02 * reach, 1.02 * reach], "nticks": 8}
    below = ROW * len(neurons) / (height - 110) if neurons else 0.0
    rows = light_axis("") | {"type": "category", "showgrid": False, "autorange": "reversed", "ticks": ""}
    if shares:
        top = {"domain": [min(0.85, below + (0.06 if neurons else 0)), 1.0], "ticksuffix": " %"}
        layout["yaxis"] = light_axis("share so far") | top | {"zeroline": True, "zerolinecolor": INK}
        if neurons:
            layout["yaxis2"] = rows | {"domain": [0.0, min(0.8, below)]}
            layout["xaxis"] |= {"anchor": "y2"}  # type: ignore[operator]  # a dictionary, as `light_axis` made it
    else:
        layout["yaxis"] = rows
    return View("course", _in_words(shares, neurons, axis), data, layout)


def _line(index: int, name: str, values: NDArray[np.floating]) -> Part:
    """Return the summed share of a class after each epoch."""
    summed = 100 * np.concatenate([[0.0], np.cumsum(values)])
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": escape(shorten(name, MAX_NAME)),
        "x": list(range(len(summed))),
        "y": json_floats(np.round(summed, 3)),
        "line": {"color": COLOURS[index % len(COLOURS)], "width": 3 if index == 0 else 1.5},
        "marker": {"size": 5},
        "hovertemplate": f"{escape(name)}: %{{y:.1f}} % by epoch %{{x}}<extra></extra>",
    }


def _dots(neuron: NeuronCourse, axis: str) -> list[Part]:
    """Return the dots of one neuron: filled where it held a word."""
    place: Part = {"type": "scatter", "mode": "markers", "yaxis": axis, "showlegend": False}
    name, found = escape(shorten(neuron.name, MAX_NAME)), []
    for held in (False, True):
        at = np.flatnonzero(neuron.held == held)
        colour = COLOURS[0] if held else OTHER
        found.append(
            place
            | {
                "x": json_floats(neuron.when[at].astype(np.float64)),
                "y": [name] * len(at),
                "text": [f"{escape(neuron.words[i])}, {'held' if held else 'not held'}" for i in at],
                "hovertemplate": f"{name}: %{{text}}<extra></extra>",
                "marker": {"color": colour if held else "#ffffff", "size": 12, "line": {"color": colour, "width": 2}},
            }
        )
    return found


def _in_words(shares: Mapping[str, NDArray[np.floating]], neurons: Sequence[NeuronCourse], axis: str) -> str:
    """Say what the figure shows."""
    said = [f"{name}: {in_percent(float(values.sum()))} % in the end" for name, values in shares.items()]
    for neuron in neurons:
        first = first_held(neuron)
        said.append(f"{neuron.name}: {'not held at the end' if first is None else f'held from {axis} {first:g} on'}")
    return f"Shares of classes by {axis}, and when neurons held their words. " + "; ".join(said) + "."


def first_held(neuron: NeuronCourse) -> float | None:
    """Return the snapshot from which a neuron holds a word to the end; None where it does not hold one at the end."""
    free = np.flatnonzero(~neuron.held)
    first = 0 if not len(free) else int(free[-1]) + 1
    return float(neuron.when[first]) if first < len(neuron.when) else None
