"""Pictures of `benchmarks.scale`: time against n, and memory against n."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

LIMIT = 8e9 / 2**20  # MB that all processes may hold together
STYLES = {"fewer classes": ("o", "-"), "fewer per class": ("s", "--")}
SHOWN = ("selection", "strongest", "histogram", "coverage", "head scores", "exact sums", "shape", "trace", "manifest")

Row = dict[str, Any]  # Any: JSON


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Write scale-time.png and scale-memory.png."""
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    _curves(axes, rows, "cpu")
    n = np.array(sorted({row["samples"] for row in rows}), dtype=float)
    low = min(row["cpu"] for row in rows if row["piece"] in SHOWN)
    axes.plot(n, low * n / n[0], color="0.6", linewidth=4, alpha=0.5, zorder=0, label="in proportion to n")
    axes.set(xscale="log", yscale="log", xlabel="samples n", ylabel="CPU seconds, all processes")
    axes.set_title("Time against the number of samples")
    _finish(figure, axes, folder / "scale-time.png")
    figure, axes = plt.subplots(figsize=(8, 5.2), layout="constrained")
    _curves(axes, rows, "together")
    axes.axhline(LIMIT, color="black", linestyle=":", label="limit: 8 GB")
    whole = n[-1] * 2048 * 2 / 2**20
    axes.plot(n, whole * n / n[-1], color="0.6", linewidth=4, alpha=0.5, zorder=0, label="the features themselves")
    axes.set(xscale="log", yscale="log", xlabel="samples n", ylabel="peak memory, MB, sum over processes")
    axes.set_title("Peak memory against the number of samples")
    _finish(figure, axes, folder / "scale-memory.png")


def _curves(axes: Axes, rows: Sequence[Row], key: str) -> None:
    """Draw a line per piece and axis; the full size ends both axes."""
    whole = max(row["samples"] for row in rows)
    for index, piece in enumerate(SHOWN):
        for axis, (marker, line) in STYLES.items():
            mine = [r for r in rows if r["piece"] == piece and (r["axis"] == axis or r["samples"] == whole)]
            mine.sort(key=lambda row: row["samples"])
            label = f"{piece}" if axis == "fewer classes" else None
            n, values = [r["samples"] for r in mine], [r[key] for r in mine]
            axes.plot(n, values, marker=marker, linestyle=line, color=f"C{index}", markersize=5, label=label)


def _finish(figure: Any, axes: Axes, path: Path) -> None:  # Any: matplotlib's stub of `subplots`
    """Add the legend and write the picture."""
    axes.plot([], [], color="black", linestyle="--", marker="s", markersize=5, label="fewer samples per class")
    axes.plot([], [], color="black", linestyle="-", marker="o", markersize=5, label="fewer classes")
    axes.grid(alpha=0.3, which="both", linewidth=0.5)
    figure.legend(loc="outside right center", fontsize="small", frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
