"""The figures of one network's section, each with its caption, its caps in words and its table."""

from collections.abc import Iterator

from tasks.figures.decomposition.class_dots import MAX_CLASSES as MAX_DOTS
from tasks.figures.decomposition.class_dots import class_views
from tasks.figures.decomposition.grid_map import MAX_SIDE, grid_of, grid_views
from tasks.figures.decomposition.index_histogram import MAX_BY_INDEX, MAX_RANKED, histogram_view
from tasks.figures.decomposition.method_bars import ablation_views, control_views
from tasks.figures.decomposition.overlap_map import MAX_CLASSES as MAX_MAPPED
from tasks.figures.decomposition.overlap_map import MAX_LABELLED, overlap_view
from tasks.figures.decomposition.retraining_curves import retraining_views
from tasks.figures.decomposition.sample_need import sample_need_views
from tasks.report.blocks import FigureBlock
from tasks.report.decomposition import tables
from tasks.report.decomposition.noise import NO_CONTROL, TOO_WIDE, has_no_control
from tasks.report.decomposition.results import DecompositionResults

MAX_HISTOGRAMS = 12
CONTROLS = (
    "Accuracy of the head decomposed with k features per class, by the method that chooses them. Methods: Algorithm 1 "
    "(its histogram), largest class mean, class mean minus overall mean, largest weight W, largest |W|, largest class "
    "mean × W, Algorithm 1 combined with the largest weights, and random sets. Whiskers: ± 1 standard deviation over "
    "draws. Dashed: the full head."
)
ABLATION = (
    "Accuracy of the full head over all classes, with noise in place of some features. Whiskers: ± 1 standard "
    "deviation over draws. This is a perturbation test, not an accuracy: with scope label the true label decides which "
    "features are replaced."
)
MANY_OTHERS = " There are many more other features than influential ones, so the control of equal size decides."
RETRAINING = (
    "The decomposed network on held-out images after each epoch of retraining; epoch 0 is before. With the head alone "
    "the features stay as they are. Dashed: the full head."
)
SAMPLES = (
    "Sets from only the first images of each class: the share of the full sets that they find, and the accuracy of "
    "the head decomposed by them. Dotted: sets from all images; dashed: the full head."
)
OVERLAP = "The share of one class's set that is also in the other's; the diagonal is left out."


def network_figures(i: int, title: str, results: DecompositionResults) -> Iterator[FigureBlock]:
    """Yield the figures of section `i`, those whose tables are not empty.

    Parameters
    ----------
    title : network and seed, as they are printed
    results : of one network and seed, with every column in every table
    """
    network = results.networks.iloc[0]
    full, decomposed = float(network["a_full"]), float(network["a_decomposed"])
    if grid := grid_views(results.grid):
        yield FigureBlock(f"grid-{i}", f"Grid, {title}", _grid_caption(results), grid, tables.grid_table(results.grid))
    if controls := control_views(results.controls, full):
        table = tables.controls_table(results.controls)
        yield FigureBlock(f"controls-{i}", f"Controls, {title}", CONTROLS, controls, table)
    if ablation := ablation_views(results.ablation, full):
        table = tables.ablation_table(results.ablation)
        yield FigureBlock(f"noise-{i}", f"Noise, {title}", _ablation_caption(results), ablation, table)
    if len(results.retraining):
        table = tables.retraining_table(results.retraining)
        views = retraining_views(results.retraining, full)
        yield FigureBlock(f"retraining-{i}", f"Retraining, {title}", RETRAINING, views, table)
    if classes := class_views(results.classes, results.coverage):
        table = tables.classes_table(results.classes, results.coverage)
        yield FigureBlock(f"classes-{i}", f"Classes, {title}", _classes_caption(results), classes, table)
    if samples := sample_need_views(results.sample_need, full, decomposed):
        table = tables.sample_table(results.sample_need)
        yield FigureBlock(f"samples-{i}", f"Images needed, {title}", SAMPLES, samples, table)
    yield from _set_figures(i, title, results)


def _set_figures(i: int, title: str, results: DecompositionResults) -> Iterator[FigureBlock]:
    """Yield the figures of the sets themselves."""
    for overlap in results.overlaps[:1]:
        n, caption = len(overlap.classes), OVERLAP
        if n > MAX_MAPPED:
            caption += f" Of {n:,} classes the {MAX_MAPPED} that share most with the others."
        if n > MAX_LABELLED:
            caption += " Columns are in the order of the rows."
        table = tables.pairs_table(overlap)
        yield FigureBlock(f"overlap-{i}", f"Overlap, {title}", caption, [overlap_view(overlap)], table)
    if results.histograms:
        views = [histogram_view(histogram) for histogram in results.histograms[:MAX_HISTOGRAMS]]
        yield FigureBlock(f"histogram-{i}", f"Histogram, {title}", _histogram_caption(results), views, None)


def _grid_caption(results: DecompositionResults) -> str:
    """Say what the cells are and what the cap leaves out."""
    text = "Each cell is a decomposed head on held-out images. Outlined: k2 = k1, which the paper calls best."
    grid = grid_of(results.grid)
    for name, n in (("k1", len(grid.k1)), ("k2", len(grid.k2))):
        if n > MAX_SIDE:
            text += f" {MAX_SIDE} of {n} values of {name}, evenly spread."
    return text


def _ablation_caption(results: DecompositionResults) -> str:
    """Say what the bars are, and which of them cannot be."""
    rows, network = results.ablation, results.networks.iloc[0]
    controlled = set(rows["scope"][rows["which"] == "equal-size"])
    scopes = [str(s) for s in dict.fromkeys(rows["scope"]) if s not in controlled and has_no_control(network, str(s))]
    text = ABLATION + (MANY_OTHERS if controlled else "")
    if scopes:
        text += f" Scope {', '.join(scopes)}: {NO_CONTROL}: {TOO_WIDE}."
    return f"{text} Dashed: the full head without noise."


def _classes_caption(results: DecompositionResults) -> str:
    """Say what the dots are and what the cap leaves out."""
    parts = []
    if len(results.classes):
        parts.append("Accuracy of the full and the decomposed head by class, the class that loses most on top.")
    if len(results.coverage):
        parts.append(
            "Coverage by class, the least covered on top: the share of the l1 norm in the image's own k1 largest "
            "features. For the set of the class: its share of the l1 norm, of the counts and of the positive "
            "contribution to the own logit."
        )
    n = max(len(results.classes), len(results.coverage))
    if n > MAX_DOTS:
        parts.append(f"{MAX_DOTS} of {n:,} classes, evenly spread in this order.")
    return " ".join(parts)


def _histogram_caption(results: DecompositionResults) -> str:
    """Say what the bars are and what the caps leave out."""
    text = (
        "How often each feature is among the largest k1 of an image of the class, as a share of all counts of the "
        "class. In colour: the set of the class."
    )
    widest, n = max(len(h.frequencies) for h in results.histograms), len(results.histograms)
    if widest > MAX_BY_INDEX:
        text += f" The {MAX_RANKED} most frequent of {widest:,} features, the most frequent first."
    if n > MAX_HISTOGRAMS:
        text += f" The first {MAX_HISTOGRAMS} of {n} classes."
    return text
