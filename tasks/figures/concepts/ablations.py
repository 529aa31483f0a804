"""What the two settings change: interpretable neurons by tau, and d_anchor by temperature and snapshot."""

import numpy as np
import pandas as pd

from tasks.figures.concepts.course import snapshot_axis
from tasks.figures.lines import line
from tasks.figures.views import GREY, INK, Part, View, base_layout, compact, json_floats, light_axis, spread_out

MAX_LINES = 4  # a fifth would have the null's colour


def tau_view(rows: pd.DataFrame, labels: dict[int, str], tau: float, label: str) -> View:
    """Draw how many neurons remain at each tau, some snapshots and the null of the last.

    Parameters
    ----------
    rows : of one network, seed, layer and detector, as `ConceptResults.tau_curves` describes them
    labels : name by snapshot
    tau : that the page counts with, NaN unknown
    label : of the view
    """
    snapshots = sorted(int(s) for s in rows["snapshot"].unique())
    data: list[Part] = []
    for i, s in enumerate(spread_out(len(snapshots), MAX_LINES)):
        mine = rows[rows["snapshot"] == snapshots[s]].sort_values("tau")
        x, y = mine["tau"].to_numpy(np.float64), mine["interpretable"].to_numpy(np.float64)
        data.append(line(x, y, labels.get(snapshots[s], str(snapshots[s])), i, "%{y:.0f}"))
    last = rows[rows["snapshot"] == max(snapshots, default=0)].sort_values("tau")
    null = last["null"].to_numpy(np.float64)
    if np.isfinite(null).any():
        dashed: Part = {
            "type": "scatter",
            "mode": "lines",
            "name": "by chance",
            "x": json_floats(last["tau"].to_numpy(np.float64)),
            "y": json_floats(null),
            "line": {"color": GREY, "width": 2, "dash": "7px,4px"},
            "hovertemplate": "%{y:.0f}",
        }
        data.append(dashed)
    layout = base_layout("interpretable neurons") | {"xaxis": light_axis("τ")}
    if np.isfinite(tau):
        rule = {"type": "line", "x0": tau, "x1": tau, "yref": "paper", "y0": 0, "y1": 1}
        layout["shapes"] = [rule | {"line": {"color": INK, "width": 1, "dash": "dot"}}]
    return View(label, _remaining(last, tau), data, layout)


def temperature_view(rows: pd.DataFrame, labels: dict[int, str], label: str) -> View:
    """Draw d_anchor by snapshot, a line per temperature.

    Parameters
    ----------
    rows : of one network, seed, layer and detector, as `ConceptResults.temperatures` describes them
    labels : name by snapshot
    label : of the view
    """
    data: list[Part] = []
    words = []
    temperatures = sorted(float(t) for t in rows["temperature"].unique())
    for i, t in enumerate(spread_out(len(temperatures), MAX_LINES)):
        mine = rows[rows["temperature"] == temperatures[t]].sort_values("snapshot")
        x, y = mine["snapshot"].to_numpy(np.float64), mine["d_anchor"].to_numpy(np.float64)
        data.append(line(x, y, f"T = {temperatures[t]:g}", i, "%{y:.3f}"))
        words.append(f"T = {temperatures[t]:g}: {compact(float(y[0]))} to {compact(float(y[-1]))}")
    layout = base_layout("d<sub>anchor</sub>") | {"xaxis": snapshot_axis(labels)}
    return View(label, f"d_anchor from the first to the last snapshot. {'; '.join(words)}.", data, layout)


def _remaining(last: pd.DataFrame, tau: float) -> str:
    """Say how many remain at the tau of the page."""
    if last.empty or not np.isfinite(tau):
        return "Interpretable neurons by tau."
    nearest = last.iloc[int(np.abs(last["tau"].to_numpy(np.float64) - tau).argmin())]
    text = f"Interpretable neurons by tau. At tau {compact(float(nearest['tau']))}: {int(nearest['interpretable'])}"
    null = float(nearest["null"])
    return f"{text}, by chance {null:.0f}." if np.isfinite(null) else f"{text}."
