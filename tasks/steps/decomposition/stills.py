"""What the report has of question 2 besides the site: its tables as Parquet, a few pictures for papers."""

from dataclasses import replace

from storage.results import table_bytes
from tasks.figures.decomposition.still import ablation_plot, against_depth, control_plot, grid_surface, retraining_plot
from tasks.figures.decomposition.still_sets import (
    coverage_plot,
    feature_map_plot,
    histogram_plot,
    overlap_plot,
    sample_need_plot,
)
from tasks.report.decomposition.gallery import allowed_rows
from tasks.report.decomposition.page import COLUMNS, DecompositionTables

FEW = 4  # rows of pictures


def decomposition_files(page: DecompositionTables, training_images: str) -> dict[str, bytes]:
    """Return tables and pictures by path below the report; pictures of the first seed of each network."""
    page = replace(page, gallery=allowed_rows(page, training_images))
    tables = {name: getattr(page, name) for name in COLUMNS}
    files = {f"tables/decomposition_{name}.parquet": table_bytes(table) for name, table in tables.items() if len(table)}
    if page.networks["network"].nunique() > 1:
        files["figures/decomposition-depth.png"] = against_depth(page.networks)
        files["figures/decomposition-overlap-depth.png"] = against_depth(page.networks, measure="overlap_mean")
    for network, rows in page.networks.groupby("network", sort=False):
        own = page.of(str(network), int(rows["seed"].iloc[0]))
        pictures = _pictures(own, f"{network}, seed {rows['seed'].iloc[0]}")
        files |= {f"figures/decomposition-{network}-{name}.png": data for name, data in pictures.items()}
    return files


def _pictures(page: DecompositionTables, title: str) -> dict[str, bytes]:
    """Return the pictures of one network and seed, by name."""
    network = page.networks.iloc[0]
    a_full, k2 = float(network["a_full"]), int(network["k2"])
    found = {"controls": control_plot(page.controls, a_full, k=k2, title=title)}
    if page.grid["k1"].nunique() > 1 and page.grid["k2"].nunique() > 1:
        found["grid"] = grid_surface(page.grid, title=title)
    found["coverage"] = coverage_plot(page.coverage, title=title)
    for scope in page.ablation["scope"].unique():
        found[f"noise-{scope}"] = ablation_plot(page.ablation, a_full, scope=str(scope), title=title)
    if len(page.retraining):
        found["retraining"] = retraining_plot(page.retraining, a_full, title=title)
    if len(page.sample_need):
        found["images-needed"] = sample_need_plot(page.sample_need, title=title)
    found["overlap"] = overlap_plot(page.overlaps[0], title=title)
    found["histogram"] = histogram_plot(page.histograms[0], title=title)
    if page.gallery:
        shown = page.gallery[:FEW]
        rows = [(row.true_class, [row.image, row.all, row.other, row.influential]) for row in shown]
        found["maps"] = feature_map_plot(rows, ["image", "all", "other", "influential"])
    return found
