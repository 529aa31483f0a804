"""The files of question 1 in the report besides the site: tables as Parquet, coresets, plots for papers."""

from collections.abc import Sequence

from storage.results import table_bytes
from storage.stores import Store
from tasks.figures.interpretation.budgets import accuracy_measure, pairs
from tasks.figures.interpretation.still import accuracy_against_budget, distance_against_budget
from tasks.report.interpretation.results import InterpretationResults
from tasks.steps.interpretation.plan import Interpreted
from tasks.steps.interpretation.results import cells_of, coreset_table


def interpretation_files(
    store: Store, answers: Sequence[Interpreted], results: InterpretationResults, images: str
) -> dict[str, bytes]:
    """Return tables and plots by path below the report; coresets name training images, so `none` omits them."""
    names = ("classes", "by_budget", "over_repeats", "robustness", "transfer", "against_random", "with_budget")
    frames = {name: getattr(results, name) for name in names} | dict(results.methods)
    if images != "none":
        frames["coresets"] = coreset_table(store, cells_of(answers))
    files = {f"tables/{name}.parquet": table_bytes(frame) for name, frame in frames.items()}
    if "coresets" in frames:  # for trainings in programs that do not read Parquet
        files["tables/coresets.csv"] = frames["coresets"].to_csv(index=False, lineterminator="\n").encode()
    for network, interpreter, rows in pairs(results.over_repeats):
        title = f"{network}, {interpreter}"
        files[f"figures/{network}-{interpreter}-distance.png"] = distance_against_budget(rows, title=title)
        files[f"figures/{network}-{interpreter}-accuracy.png"] = accuracy_against_budget(
            rows, measure=accuracy_measure(rows), title=title
        )
    return files
