"""What all still figures share: PNG bytes for a README or a paper."""

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MARKERS = ("o", "s", "D", "^", "P", "X")
STYLES = ("-", (0, (5, 2)), "-.", ":", "--", (0, (1, 1)))


def axes_of(title: str, height: float) -> tuple[Figure, Axes]:
    """Return a figure of its own canvas, 6.4 x `height` inches: no pyplot, so nothing global and nothing to close."""
    figure = Figure(figsize=(6.4, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def encode(figure: Figure, dpi: int) -> bytes:
    """Return a figure as a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": "layerlore"})
    return buffer.getvalue()
