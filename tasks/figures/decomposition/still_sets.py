"""Still figures of the sets of features for a README or a paper: PNG bytes."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.figures.decomposition.class_dots import COVERAGES
from tasks.figures.decomposition.index_histogram import CHOSEN, OTHER, Histogram
from tasks.figures.decomposition.overlap_map import Overlap, shown_classes
from tasks.figures.decomposition.still import plain, titled_axes
from tasks.figures.overlay import Image
from tasks.figures.series import COLOURS
from tasks.figures.still import MARKERS, encode
from tasks.figures.views import GREY, shorten, spread_out

MAX_NAME = 16
MAX_CLASSES = 40


def histogram_plot(histogram: Histogram, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw how often each feature is counted for a class, the chosen ones in colour.

    Parameters
    ----------
    histogram : of one class
    title : above the picture
    dpi : dots per inch of the 6.4 x 3.2 inch picture

    Returns
    -------
    a PNG file
    """
    figure, axes = titled_axes(title, 3.2)
    features, percent, chosen = histogram.bars()
    places = features if len(features) == len(histogram.frequencies) else np.arange(1, len(features) + 1)
    for name, mask, colour in (("in the set of the class", chosen, CHOSEN), ("other features", ~chosen, OTHER)):
        axes.bar(places[mask], percent[mask], 0.85, color=colour, label=name)
    axes.set(xlabel=histogram.place_title(), ylabel="share of counts (%)")
    axes.legend(frameon=False)
    return encode(figure, dpi)


def overlap_plot(overlap: Overlap, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw what the sets of every two classes share, the diagonal blank.

    Parameters
    ----------
    overlap : of many classes those that share most with the others are drawn
    title : above the picture
    dpi : dots per inch of the 6.4 x 5.6 inch picture

    Returns
    -------
    a PNG file
    """
    chosen = shown_classes(overlap)
    figure, axes = titled_axes(title, 5.6)
    axes.set_facecolor("#d9dee6")
    drawn = axes.imshow(100 * overlap.others()[np.ix_(chosen, chosen)], cmap="Blues", vmin=0)
    names = [shorten(overlap.classes[i], MAX_NAME).replace("$", r"\$") for i in chosen]
    size = 9 if len(names) <= 12 else 6
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="common part of two sets (%)")
    return encode(figure, dpi)


def sample_need_plot(rows: pd.DataFrame, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw what part of the full sets the first images of each class find, and the accuracy with them.

    Parameters
    ----------
    rows : of one network and seed, as `tasks.figures.decomposition.sample_need.sample_need_views` takes them
    title : above the picture
    dpi : dots per inch of the 6.4 x 4 inch picture

    Returns
    -------
    a PNG file
    """
    rows = rows.sort_values("n_images", kind="stable")
    figure, axes = titled_axes(title, 4.0)
    n = rows["n_images"].to_numpy(np.float64)
    for i, (column, name) in enumerate((("overlap", "part of the full sets found"), ("accuracy", "accuracy"))):
        values = 100 * rows[column].to_numpy(np.float64)
        axes.plot(n, values, color=COLOURS[i], marker=MARKERS[i], linestyle=("-", "--")[i], label=name)
    axes.set_xscale("log")
    axes.set_xticks(n, [f"{int(x):,}" for x in n])
    axes.minorticks_off()
    axes.set(xlabel="images of each class", ylabel="%")
    axes.grid(color="#e6e9ee")
    axes.legend(frameon=False)
    return encode(figure, dpi)


def coverage_plot(coverage: pd.DataFrame, *, title: str = "", dpi: int = 150) -> bytes:
    """Draw what few features hold by class, the least covered on top; of many classes some, evenly spread.

    Parameters
    ----------
    coverage : of one network and seed, as `tasks.figures.decomposition.class_dots.class_views` takes them
    title : above the picture
    dpi : dots per inch of the 6.4 inch wide picture

    Returns
    -------
    a PNG file
    """
    rows = coverage.iloc[np.argsort(coverage["l1_share"].to_numpy(np.float64), kind="stable")]
    rows = rows.iloc[spread_out(len(rows), MAX_CLASSES)]
    figure, axes = titled_axes(title, 1.6 + 0.2 * len(rows))
    places = np.arange(len(rows))
    for i, (column, name) in enumerate(COVERAGES.items()):
        values = 100 * rows[column].to_numpy(np.float64)
        axes.plot(values, places, color=COLOURS[i], marker=MARKERS[i], linestyle="none", label=name)
    axes.set_yticks(places, [plain(shorten(str(name), MAX_NAME)) for name in rows["class_name"]])
    axes.invert_yaxis()
    axes.set_xlabel("share held by few features (%)")
    axes.grid(color="#e6e9ee")
    figure.legend(loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    return encode(figure, dpi)


def feature_map_plot(rows: Sequence[tuple[str, Sequence[Image]]], titles: Sequence[str], *, dpi: int = 150) -> bytes:
    """Draw images in rows, such as image, all, other and influential features.

    Parameters
    ----------
    rows : a name, such as the class, and (H, W, 3) uint8 pictures, one per title
    titles : above the columns
    dpi : dots per inch of the picture, 1.3 inches for each image

    Returns
    -------
    a PNG file
    """
    if wrong := [name for name, pictures in rows if len(pictures) != len(titles)]:
        raise ValueError(f"rows {', '.join(wrong)}: expected {len(titles)} pictures, {', '.join(titles)}")
    figure = Figure(figsize=(1.3 * len(titles) + 0.9, 1.3 * max(len(rows), 1) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(max(len(rows), 1), len(titles), squeeze=False)
    for axes in grid.ravel():
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for (name, pictures), line in zip(rows, grid, strict=False):
        line[0].set_ylabel(shorten(name, MAX_NAME), color=GREY, parse_math=False)
        for picture, axes in zip(pictures, line, strict=True):
            axes.imshow(picture, interpolation="nearest")
    for name, axes in zip(titles, grid[0], strict=True):
        axes.set_title(name, fontsize=9, parse_math=False)
    return encode(figure, dpi)
