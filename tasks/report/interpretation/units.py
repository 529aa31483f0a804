"""The section on VEBI's units: where they lie, how many there are, and those that only a coreset finds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tasks.figures.interpretation.coverage_map import FULL_DATA, coverage_of, coverage_views, relu_name
from tasks.figures.interpretation.mu_paths import class_paths, path_views
from tasks.figures.overlay import Thumbnail, thumbnail
from tasks.figures.views import compact, spread_out
from tasks.report import formats
from tasks.report.blocks import FigureBlock, Shown
from tasks.report.cells import Column, Table
from tasks.report.interpretation.unit_results import CoresetUnit, CoresetUnits, UnitImage, UnitResults
from tasks.report.interpretation.unit_sizes import sizes_table

MAX_CLASSES = 30  # of the table of a path
MAX_SETS = 3  # named for each unit that only coresets find
SHARES = (0.1, 0.25, 0.5, 1.0)  # of mu, in the same table
COVERAGE_CAPTION = (
    "Where the units of a class lie: rows are the ReLU calls of the network in the order of a forward pass. "
    "“units” counts them, mean over classes and draws. “in common” is the share of the full data's units that the "
    "coreset finds too; a grey cell: the full data has none there."
)
PATH_CAPTION = (
    "Units of each class against the bound mu, thin lines, and their median. The dashed line is the mu of this run. "
    "A line that is level before it reaches mu: the bound does not matter to this class."
)


@dataclass(frozen=True)
class PicturedUnit:
    """A unit that only coresets find: what it is, which coresets find it, and its images."""

    title: str
    about: str
    found: str
    images: tuple[Shown, ...]


@dataclass(frozen=True)
class UnitSection:
    """What one network shows of its units."""

    network: str
    sizes: Table
    coverage: FigureBlock | None
    paths: FigureBlock
    pictured: tuple[PicturedUnit, ...]
    total: int | None

    @property
    def shown(self) -> str:
        """How many of the units that only coresets find are shown."""
        if self.total is None:
            return "This run has no pictures of them: the config asks for no gallery, or for no coreset."
        if self.total == 0:
            return "Every unit that a coreset finds for a class is also one of the full data's."
        return f"{len(self.pictured)} of {self.total:,} are shown: sets take turns, the smallest budgets first."


def unit_sections(results: UnitResults | None) -> tuple[list[UnitSection], list[Thumbnail]]:
    """Lay out a section for each network with units, and the thumbnails of all."""
    if results is None:
        return [], []
    pictures = {one.network: one for one in results.pictures}
    thumbnails: list[Thumbnail] = []
    sections = []
    for i, network in enumerate(results.sizes["network"].unique(), start=1):
        coverage = _of(results.coverage, network)
        pictured, made = _pictured(pictures.get(str(network)), coverage["call"].nunique())
        thumbnails += made
        sections.append(
            UnitSection(
                network=str(network),
                sizes=sizes_table(_of(results.sizes, network)),
                coverage=_coverage(i, str(network), coverage),
                paths=_paths(i, str(network), _of(results.paths, network), results.mu),
                pictured=pictured,
                total=pictures[str(network)].total if network in pictures else None,
            )
        )
    return sections, thumbnails


def unit_csv(results: UnitResults | None) -> dict[str, pd.DataFrame]:
    """Return the tables of units as files of the site; `relu` counts from 1."""
    if results is None:
        return {}
    coverage = results.coverage.assign(call=results.coverage["call"] + 1).rename(columns={"call": "relu"})
    return {"data/units.csv": results.sizes, "data/unit_coverage.csv": coverage}


def _coverage(i: int, network: str, rows: pd.DataFrame) -> FigureBlock | None:
    """Return the map of layers and sets; None where no coreset is smaller than the full data."""
    if not (rows["budget"] < 1).any():
        return None
    found = coverage_of(rows)
    columns = (Column("ReLU", numeric=False), Column("units"), Column(FULL_DATA), *map(Column, found.sets))
    size = dict(zip(rows["call"], rows["size"], strict=True))
    lines = tuple(
        (
            relu_name(call, len(found.calls)),
            formats.count(float(size[call])),
            formats.count(full),
            *_cells(units, shared),
        )
        for call, full, units, shared in zip(found.calls, found.full, found.units, found.shared, strict=True)
    )
    caption = "Units of a class by ReLU, and in brackets the share of the full data's units that the set finds too"
    table = Table(caption, columns, lines, csv="data/unit_coverage.csv")
    return FigureBlock(f"coverage-{i}", f"Units by layer, {network}", COVERAGE_CAPTION, coverage_views(rows), table)


def _cells(units: np.ndarray, shared: np.ndarray) -> tuple[str, ...]:
    """Print the units of each set, with the share where the full data has any."""
    return tuple(
        formats.count(float(number)) + (f" ({formats.share(float(share))})" if np.isfinite(share) else "")
        for number, share in zip(units, shared, strict=True)
    )


def _paths(i: int, network: str, rows: pd.DataFrame, mu: float) -> FigureBlock:
    """Return the figure of units against mu, with the numbers of the full data."""
    paths = class_paths(rows[rows["title"] == FULL_DATA])
    bounds = np.array(SHARES) * mu
    columns = (
        Column("class", numeric=False),
        *(Column(f"mu = {bound:g}") for bound in bounds),
        Column("sum of weights"),
    )
    lines = tuple(
        (path.name, *(formats.count(n) for n in path.at(bounds)), compact(min(mu, float(path.mu[-1]))))
        for path in (paths[k] for k in spread_out(len(paths), MAX_CLASSES))
    )
    note = f"{MAX_CLASSES} of {len(paths):,} classes." if len(paths) > MAX_CLASSES else ""
    table = Table(
        "Units of a class on the full data at four bounds, and the sum of its weights at the last",
        columns,
        lines,
        note=note,
    )
    return FigureBlock(f"path-{i}", f"Units against mu, {network}", PATH_CAPTION, path_views(rows, mu), table)


def _pictured(found: CoresetUnits | None, calls: int) -> tuple[tuple[PicturedUnit, ...], list[Thumbnail]]:
    """Return the units that only coresets find, and the thumbnails of their images."""
    thumbnails: list[Thumbnail] = []
    units = []
    for unit in found.units if found is not None else ():
        title = f"{relu_name(unit.call, calls)}, channel {unit.channel}"
        made = [thumbnail(image.overlay) for image in unit.images]
        thumbnails += made
        shown = tuple(Shown(thumb.digest, _alt(title, image)) for thumb, image in zip(made, unit.images, strict=True))
        units.append(PicturedUnit(title, _about(unit), _found(unit.weights), shown))
    return tuple(units), thumbnails


def _about(unit: CoresetUnit) -> str:
    """Say which class it is for, and whether the full data uses it at all."""
    other = "the full data finds it for another class" if unit.elsewhere else "the full data finds it for no class"
    return f"class {unit.class_name}; {other}"


def _found(weights: Mapping[str, float]) -> str:
    """Name the first coresets that find a unit, with its weight."""
    said = [f"{title} (weight {compact(weight)})".replace(" ", formats.NBSP) for title, weight in weights.items()]
    more = f" and {len(said) - MAX_SETS} more" if len(said) > MAX_SETS else ""
    return ", ".join(said[:MAX_SETS]) + more


def _alt(title: str, image: UnitImage) -> str:
    """Say what a picture shows."""
    return (
        f"{title} on validation image {image.sample_id} of class {image.true_class}, response {compact(image.response)}"
    )


def _of(table: pd.DataFrame, network: object) -> pd.DataFrame:
    """Return the rows of a network."""
    return table[table["network"] == network]
