"""The results of VEBI for the page of question 1: sizes, coverage, paths and pictures, from finished stages."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from storage.results import read_table
from storage.specs import StageSpec
from storage.stages import open_finished
from storage.stores import Store
from storage.together import together
from tasks.figures.interpretation.coverage_map import FULL_DATA
from tasks.figures.overlay import overlay
from tasks.metrics.robustness import counts_for_robustness
from tasks.report.interpretation.unit_results import CoresetUnit, CoresetUnits, UnitImage, UnitResults
from tasks.steps.interpretation.plan import Cell, Interpreted
from tasks.steps.interpretation.units import DEFAULTS, METHOD

KEYS = ("network", "seed", "selector", "repeat", "budget")
CLASS_MEANS = ("units_shared", "accuracy_plain", "accuracy_without", "layers_compared", "layers_skipped")


def unit_results(store: Store, answers: Sequence[Interpreted], classes: pd.DataFrame) -> UnitResults | None:
    """Return what the page shows of units; None where no coreset has any.

    Parameters
    ----------
    classes : the table of classes of all interpreters
    """
    answers = [answer for answer in answers if METHOD in answer.references]
    if not answers:
        return None
    cells = [cell for answer in answers for cell in answer.cells if cell.interpreter == METHOD]
    first_seed = answers[0].seed
    shown = [answer for answer in answers if answer.seed == first_seed]
    pictured = [answer for answer in answers if METHOD in answer.pictures]
    return UnitResults(
        interpreter=METHOD,
        mu=float(answers[0].references[METHOD].parameters.get("mu", DEFAULTS["mu"])),
        sizes=_sizes(store, answers, cells, classes),
        coverage=_coverage(store, cells),
        paths=pd.concat([_paths(store, answer) for answer in shown], ignore_index=True),
        pictures=tuple(_pictures(store, answer) for answer in pictured),
    )


def robustness_with_units(robustness: pd.DataFrame, units: UnitResults | None) -> pd.DataFrame:
    """Add the units of a class to VEBI's rows: `units_mean`, over the budgets from 10 % to 50 % and all draws."""
    if units is None:
        return robustness
    counted = units.sizes[units.sizes["budget"].map(counts_for_robustness)]
    means = counted.groupby(["network", "selector"], sort=False)["units"].mean().rename("units_mean").reset_index()
    return robustness.merge(
        means.assign(interpreter=units.interpreter), on=["interpreter", "network", "selector"], how="left"
    )


def _sizes(store: Store, answers: Sequence[Interpreted], cells: Sequence[Cell], classes: pd.DataFrame) -> pd.DataFrame:
    """Return the table of sizes."""
    full = [
        ({"network": one.network, "seed": one.seed, "selector": FULL_DATA, "repeat": 0, "budget": 1.0}, spec)
        for one in answers
        for spec in [one.references[METHOD]]
    ]
    named = [({key: getattr(cell, key) for key in KEYS}, cell.features) for cell in cells]
    table = pd.DataFrame(together(store, partial(_size_of, store), full + named))
    means = classes[classes["interpreter"] == METHOD].groupby(list(KEYS), sort=False)[list(CLASS_MEANS)].mean()
    return table.merge(means.reset_index(), on=list(KEYS), how="left")


def _size_of(store: Store, named: tuple[Mapping[str, object], StageSpec]) -> dict[str, object]:
    """Return a row of the table of sizes."""
    keys, spec = named
    summary = open_finished(store, spec).summary
    sums = open_finished(store, spec.inputs["gram"]).summary
    return {
        **keys,
        "units": summary["units_mean"],
        "few": summary["few_units"],
        "never_predicted": summary["never_predicted"],
        "n_classes": len(summary["classes"]),
        "samples": sums["samples"],
        "added": sums["added"],
        **{f"{part}_seconds": seconds for part, seconds in summary["seconds"].items()},
    }


def _coverage(store: Store, cells: Sequence[Cell]) -> pd.DataFrame:
    """Return the means over classes and draws of the units at each ReLU call."""
    tables = together(store, partial(_coverage_of, store), cells)
    keys = ["network", "selector", "budget", "call"]
    return pd.concat(tables).groupby(keys, sort=False).mean().reset_index()


def _coverage_of(store: Store, cell: Cell) -> pd.DataFrame:
    """Return the means over classes of one coreset."""
    counts = np.asarray(open_finished(store, cell.evaluation).read("coverage"), np.float64).mean(axis=0)
    layers = open_finished(store, cell.features).summary["layers"]
    table = pd.DataFrame(counts, columns=["units", "units_reference", "units_shared"])
    keys = {key: getattr(cell, key) for key in ("network", "selector", "budget")}
    return table.assign(**keys, call=np.arange(len(layers)), size=layers)


def _paths(store: Store, answer: Interpreted) -> pd.DataFrame:
    """Return the paths on the full data and on the smallest coreset of each selector's first draw."""
    sets = {FULL_DATA: answer.references[METHOD]}
    for cell in answer.cells:  # by rising budget
        title = f"{cell.selector} {100 * cell.budget:g} %"
        known = any(name.startswith(f"{cell.selector} ") for name in sets)
        if cell.interpreter == METHOD and cell.budget < 1 and not known:
            sets[title] = cell.features
    names = open_finished(store, answer.learn.inputs["data"]).summary["class_names"]
    tables = [_path_table(store, spec).assign(title=title) for title, spec in sets.items()]
    table = pd.concat(tables, ignore_index=True).assign(network=answer.network)
    return table.assign(class_name=[names.get(str(label), str(label)) for label in table["label"]])


def _path_table(store: Store, spec: StageSpec) -> pd.DataFrame:
    """Return label, mu and number of units at each breakpoint of all classes; every path begins without units."""
    stage = open_finished(store, spec)
    files = [f"paths-{number:06d}.parquet" for number in range(stage.layout.partitions)]
    points = [read_table(stage.read_file(name), f"{stage.path}/files/{name}")[["label", "mu"]] for name in files]
    counts = pd.concat(points).groupby(["label", "mu"]).size().rename("units").reset_index()
    starts = pd.DataFrame({"label": [int(label) for label in stage.summary["classes"]], "mu": 0.0, "units": 0})
    return pd.concat([starts, counts]).sort_values(["label", "mu"], kind="stable").reset_index(drop=True)


def _pictures(store: Store, answer: Interpreted) -> CoresetUnits:
    """Return the units of a network that only coresets find."""
    stage = open_finished(store, answer.pictures[METHOD])
    names = open_finished(store, answer.held_out.inputs["data"]).summary["class_names"]
    units = tuple(_units(stage.summary["titles"], names, {name: stage.read(name) for name in stage.layout.arrays}))
    return CoresetUnits(answer.network, units, stage.summary["total"])


def _units(titles: Sequence[str], names: Mapping[str, str], read: Mapping[str, np.ndarray]) -> Iterator[CoresetUnit]:
    """Yield each unit with its images that excite it."""
    for row, (label, call, channel, elsewhere) in enumerate(read["unit"].tolist()):
        weights = dict(zip(titles, read["weight"][row].tolist(), strict=True))
        images = tuple(
            UnitImage(
                overlay(read["image"][row, rank], read["heat"][row, rank] / 255.0),
                int(read["sample_id"][row, rank]),
                names.get(str(int(read["image_label"][row, rank])), str(int(read["image_label"][row, rank]))),
                response,
            )
            for rank, response in enumerate(read["response"][row].tolist())
            if response > 0
        )
        found = {title: weight for title, weight in weights.items() if weight > 0}
        yield CoresetUnit(names.get(str(label), str(label)), call, channel, bool(elsewhere), found, images)
