"""The files of question 1 in the report besides the site: tables as Parquet, coresets, plots for papers."""

from collections.abc import Sequence

from storage.results import table_bytes
from storage.stores import Store
from tasks.figures.interpretation.budgets import accuracy_measure, pairs
from tasks.figures.interpretation.coverage_map import FULL_DATA
from tasks.figures.interpretation.still import accuracy_against_budget, distance_against_budget
from tasks.figures.interpretation.unit_still import coverage_by_layer, units_against_mu
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.interpretation.unit_results import UnitResults
from tasks.steps.interpretation.card_results import feature_table
from tasks.steps.interpretation.plan import Interpreted
from tasks.steps.interpretation.results import cells_of, coreset_table


def interpretation_files(
    store: Store, answers: Sequence[Interpreted], results: InterpretationResults, images: str
) -> dict[str, bytes]:
    """Return tables and plots by path below the report; coresets name training images, so `none` omits them."""
    names = ("classes", "by_budget", "over_repeats", "robustness", "transfer", "against_random", "with_budget")
    frames = {name: getattr(results, name) for name in names} | dict(results.methods)
    if results.units is not None:
        frames |= {"unit_sizes": results.units.sizes, "unit_paths": results.units.paths}
    if results.cards is not None:
        frames["features"] = feature_table(results.cards)
    if images != "none":
        frames["coresets"] = coreset_table(store, cells_of(answers))
    files = {f"tables/{name}.parquet": table_bytes(frame) for name, frame in frames.items()}
    for name in {"coresets", "features"} & set(frames):  # for programs that do not read Parquet
        files[f"tables/{name}.csv"] = frames[name].to_csv(index=False, lineterminator="\n").encode()
    for network, interpreter, rows in pairs(results.over_repeats):
        title = f"{network}, {interpreter}"
        files[f"figures/{network}-{interpreter}-distance.png"] = distance_against_budget(rows, title=title)
        files[f"figures/{network}-{interpreter}-accuracy.png"] = accuracy_against_budget(
            rows, measure=accuracy_measure(rows), title=title
        )
    return files | _unit_figures(results.units)


def _unit_figures(units: UnitResults | None) -> dict[str, bytes]:
    """Return the pictures of units by layer and against mu, by network."""
    files: dict[str, bytes] = {}
    for network, rows in units.coverage.groupby("network", sort=False) if units is not None else ():
        assert units is not None
        if (rows["budget"] < 1).any():
            files[f"figures/{network}-units.png"] = coverage_by_layer(rows, title=f"{network}: units by layer")
        paths = units.paths[(units.paths["network"] == network) & (units.paths["title"] == FULL_DATA)]
        files[f"figures/{network}-units-mu.png"] = units_against_mu(paths, units.mu, title=f"{network}, {FULL_DATA}")
    return files
