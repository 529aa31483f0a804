"""How often each feature is among the largest of a class's images (Algorithm 1's histogram)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.figures.series import COLOURS, Floats
from tasks.figures.views import Part, View, base_layout, fixed, json_floats, shorten, whole_axis

MAX_BY_INDEX = 128  # features with a bar each, in their own order; of more the most frequent
MAX_RANKED = 80
MAX_NAME = 18
CHOSEN, OTHER = COLOURS[0], "#8A93A3"


@dataclass(frozen=True)
class Histogram:
    """Relative index frequencies of one class.

    Attributes
    ----------
    network, seed : which network
    class_name : of the class
    frequencies : (d,) float, share of the class's counts that each feature holds, 0..1, sums to 1
    chosen : (k,) int, the set of the class
    """

    network: str
    seed: int
    class_name: str
    frequencies: NDArray[np.floating]
    chosen: NDArray[np.integer]

    def __post_init__(self) -> None:
        """Refuse a set that is not of these features."""
        d, chosen = len(self.frequencies), np.asarray(self.chosen)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < d):
            raise ValueError(
                f"class {self.class_name!r}: expected chosen features below {d}, found {chosen.min()}..{chosen.max()}"
            )

    def shown(self) -> NDArray[np.intp]:
        """Return the features that have a bar: all by index, or of many the most frequent, most first."""
        d = len(self.frequencies)
        return np.arange(d) if d <= MAX_BY_INDEX else np.argsort(-self.frequencies, kind="stable")[:MAX_RANKED]

    def bars(self) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
        """Return features (n,), their frequencies in percent (n,) and whether they are chosen (n,)."""
        features = self.shown()
        return features, 100 * np.asarray(self.frequencies, np.float64)[features], np.isin(features, self.chosen)

    def place_title(self) -> str:
        """Say what the bars are ordered by."""
        d = len(self.frequencies)
        return "feature" if d <= MAX_BY_INDEX else f"rank among {d:,} features"


def histogram_view(histogram: Histogram) -> View:
    """Draw one class's histogram, the chosen features in colour."""
    features, percent, chosen = histogram.bars()
    places = features if len(histogram.frequencies) <= MAX_BY_INDEX else np.arange(1, len(features) + 1)
    data: list[Part] = []
    for name, mask, colour in (("in the set of the class", chosen, CHOSEN), ("other features", ~chosen, OTHER)):
        bar: Part = {
            "type": "bar",
            "name": name,
            "x": places[mask].tolist(),
            "y": json_floats(np.round(percent[mask], 4)),
            "marker": {"color": colour},
            "customdata": features[mask].tolist(),
            "showlegend": True,
            "hovertemplate": "feature %{customdata}: %{y:.2f} %<extra></extra>",
        }
        data.append(bar)
    layout = base_layout("share of the class's counts (%)") | {
        "barmode": "overlay",
        "bargap": 0.15,
        "hovermode": "closest",
        "xaxis": whole_axis(histogram.place_title(), places.tolist()),
    }
    return View(shorten(histogram.class_name, MAX_NAME), _in_words(histogram), data, layout)


def _in_words(histogram: Histogram) -> str:
    """Name the most frequent features."""
    percent = 100 * np.asarray(histogram.frequencies, np.float64)
    order = np.argsort(-percent, kind="stable")[:5]
    said = ", ".join(f"{i} {fixed(percent[i], 1)} %" + (" (chosen)" if i in histogram.chosen else "") for i in order)
    held = percent[np.asarray(histogram.chosen, np.int64)].sum()
    return (
        f"Share of the counts of class {histogram.class_name} by feature; most frequent: {said}. "
        f"Its {len(histogram.chosen)} chosen features hold {fixed(held, 1)} %."
    )
