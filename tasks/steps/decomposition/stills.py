"""The files of question 2 in the report besides the site: tables as Parquet, a few pictures for papers."""

from storage.results import table_bytes
from tasks.figures.decomposition.still import ablation_plot, against_depth, control_plot, grid_surface, retraining_plot
from tasks.figures.decomposition.still_sets import (
    coverage_plot,
    feature_map_plot,
    histogram_plot,
    overlap_plot,
    sample_need_plot,
)
from tasks.report.decomposition.private import allowed
from tasks.report.decomposition.results import COLUMNS, DecompositionResults

FEW = 4  # number of rows of pictures


def decomposition_files(results: DecompositionResults, training_images: str) -> dict[str, bytes]:
    """Return tables and pictures by path below the report; pictures are of the first seed of each network."""
    results = allowed(results, training_images)
    tables = {name: getattr(results, name) for name in COLUMNS}
    files = {f"tables/decomposition_{name}.parquet": table_bytes(table) for name, table in tables.items() if len(table)}
    if results.networks["network"].nunique() > 1:
        files["figures/decomposition-depth.png"] = against_depth(results.networks)
        files["figures/decomposition-overlap-depth.png"] = against_depth(results.networks, measure="overlap_mean")
    for network, rows in results.networks.groupby("network", sort=False):
        own = results.of(str(network), int(rows["seed"].iloc[0]))
        pictures = _pictures(own, f"{network}, seed {rows['seed'].iloc[0]}")
        files |= {f"figures/decomposition-{network}-{name}.png": data for name, data in pictures.items()}
    return files


def _pictures(results: DecompositionResults, title: str) -> dict[str, bytes]:
    """Return the pictures of one network and seed, by name."""
    network = results.networks.iloc[0]
    a_full, k2 = float(network["a_full"]), int(network["k2"])
    found = {"controls": control_plot(results.controls, a_full, k=k2, title=title)}
    if results.grid["k1"].nunique() > 1 and results.grid["k2"].nunique() > 1:
        found["grid"] = grid_surface(results.grid, title=title)
    found["coverage"] = coverage_plot(results.coverage, title=title)
    for scope in results.ablation["scope"].unique():
        found[f"noise-{scope}"] = ablation_plot(results.ablation, a_full, scope=str(scope), title=title)
    if len(results.retraining):
        found["retraining"] = retraining_plot(results.retraining, a_full, title=title)
    if len(results.sample_need):
        found["images-needed"] = sample_need_plot(results.sample_need, title=title)
    found["overlap"] = overlap_plot(results.overlaps[0], title=title)
    found["histogram"] = histogram_plot(results.histograms[0], title=title)
    if results.gallery:
        shown = results.gallery[:FEW]
        rows = [(row.true_class, [row.image, row.all, row.other, row.influential]) for row in shown]
        found["maps"] = feature_map_plot(rows, ["image", "all", "other", "influential"])
    return found
