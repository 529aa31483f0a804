"""Figures over the depth of a family of networks: does more depth leave more accuracy to few features?"""

import re
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from tasks.figures.lines import line
from tasks.figures.series import Floats
from tasks.figures.views import Part, View, base_layout, fixed, whole_axis

MEASURES = {
    "ratio": ("r_A", "r_A = A_d / A_f", 1.0, 3, ""),
    "overlap_mean": ("overlap", "mean overlap of two classes (%)", 100.0, 1, " %"),
    "a_decomposed": ("A_d", "accuracy A_d (%)", 100.0, 1, " %"),
}


@dataclass(frozen=True)
class FamilyLine:
    """The networks of one family and number of classes, by depth.

    Attributes
    ----------
    name : of the family
    networks : names of n networks
    depth : (n,) float64, ascending
    mean, std : (n,) float64 over seeds; std NaN with one seed
    """

    name: str
    networks: tuple[str, ...]
    depth: Floats
    mean: Floats
    std: Floats


def family_of(model: str) -> str:
    """Return a model's name without what comes from its first size on: cifar-resnet20 is of cifar-resnet."""
    family = re.match(r"(.+?)[-_]?b?(?=\d)", model)
    return family[1] if family else model


def family_lines(networks: pd.DataFrame, column: str) -> list[FamilyLine]:
    """Split networks into families, each with its means over seeds.

    Parameters
    ----------
    networks : columns network, seed, model, depth, n_classes and `column`
    column : such as "ratio"
    """
    finite = networks[np.isfinite(networks["depth"].astype(float)) & np.isfinite(networks[column].astype(float))]
    finite = finite.assign(family=[family_of(str(model)) for model in finite["model"]])
    several = finite.groupby("family")["n_classes"].nunique()
    lines = []
    for (family, n_classes), rows in finite.groupby(["family", "n_classes"], sort=False):
        by_network = rows.groupby("network", sort=False).agg(
            depth=("depth", "first"), mean=(column, "mean"), std=(column, "std")
        )
        by_network = by_network.sort_values("depth", kind="stable")
        name = f"{family}, {n_classes} classes" if several[str(family)] > 1 else str(family)
        numbers = (by_network[part].to_numpy(np.float64) for part in ("depth", "mean", "std"))
        lines.append(FamilyLine(name, tuple(map(str, by_network.index)), *numbers))
    return lines


def depth_views(networks: pd.DataFrame) -> list[View]:
    """Draw r_A, overlap and A_d against depth, a line per family; no view where no family has two depths."""
    views = []
    for column, (label, title, scale, digits, unit) in MEASURES.items():
        lines = [each for each in family_lines(networks, column) if len(np.unique(each.depth)) > 1]
        if not lines:
            continue
        data: list[Part] = []
        for i, each in enumerate(lines):
            spread = [round(float(s), 5) for s in scale * np.nan_to_num(each.std)]
            whiskers = {"type": "data", "array": spread, "thickness": 1.2, "width": 4}
            template = f"%{{text}}: %{{y:.{digits}f}}{unit}<extra></extra>"
            trace = {
                **line(each.depth, np.round(scale * each.mean, 5), each.name, i, template),
                "text": [escape(name) for name in each.networks],
                "showlegend": True,
                **({"error_y": whiskers} if np.isfinite(each.std).any() else {}),
            }
            data.append(trace)
        xaxis = whole_axis("layers with weights", [n for each in lines for n in each.depth])
        layout = base_layout(title) | {"xaxis": xaxis, "hovermode": "closest"}
        words = "; ".join(
            f"{each.name}: "
            + ", ".join(f"{n} {fixed(scale * m, digits)}{unit}" for n, m in zip(each.networks, each.mean, strict=True))
            for each in lines
        )
        views.append(View(label, f"{title} by depth. {words}.", data, layout))
    return views
