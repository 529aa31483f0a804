"""The page of the interpretation question, from its tables to what its template shows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from tasks.figures.interpretation.against_budget import accuracy_views, distance_views
from tasks.figures.interpretation.budgets import pairs
from tasks.figures.overlay import Thumbnail, unique_thumbnails
from tasks.report.blocks import FigureBlock, GalleryBlock
from tasks.report.cells import Table
from tasks.report.findings import Finding
from tasks.report.interpretation import coresets, tables
from tasks.report.interpretation.cards import Cards, cards_of
from tasks.report.interpretation.findings import findings
from tasks.report.interpretation.gallery import gallery_blocks
from tasks.report.interpretation.measures import interpretation_measures
from tasks.report.interpretation.observations import Observation, observations
from tasks.report.interpretation.opening import opening_of
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.interpretation.unit_sizes import unit_findings
from tasks.report.interpretation.units import UnitSection, unit_csv, unit_sections
from tasks.report.opening import Opening
from tasks.report.pages import MAX_CSV_ROWS, Page

DISTANCE_CAPTION = (
    "Shape distance Φ between the features learned on a coreset and those learned on the full data, mean over classes. "
    "The band is ± 1 standard deviation over repeats and seeds. Dashed: the null distance; dotted: half of it; "
    "dash and dot: the level with 95 % of the data, where the config has this budget."
)
ACCURACY_CAPTION = (
    "Validation images classified from maps rebuilt with the coreset's features, or with a class's units set to 0, "
    "mean over classes. The band is ± 1 standard deviation over repeats and seeds. Dashed: the unmodified network; "
    "dash and dot: the level with 95 % of the data, where the config has this budget."
)
TRANSFER_CAPTION = (
    "Shape distance Φ between the features learned on a coreset and those of the full data, α = 0, mean over classes. "
    "A selector's name alone means the network's own coresets; 'from' names the network that selected."
)


@dataclass(frozen=True)
class Section:
    """What one network and interpreter show."""

    id: str
    network: str
    interpreter: str
    findings: list[Finding]
    figures: tuple[FigureBlock, FigureBlock]
    classes: Table

    @property
    def title(self) -> str:
        """Network and interpreter."""
        return f"{self.network}, {self.interpreter}"


@dataclass(frozen=True)
class Transfer:
    """What the section on transferred coresets shows."""

    findings: list[Finding]
    figures: list[FigureBlock]
    table: Table


@dataclass(frozen=True)
class InterpretationContent:
    """Everything the template needs."""

    opening: Opening
    observations: list[tuple[str, list[Observation]]]
    sections: list[Section]
    budgets: list[tuple[str, Table]]
    networks: Table
    robustness: Table
    transfer: Transfer | None
    topics: Table | None
    neighbours: list[Finding]
    galleries: list[GalleryBlock]
    thumbnails: list[Thumbnail]
    units: list[UnitSection]
    csv: dict[str, pd.DataFrame]
    dropped_csv: str
    cards: Cards | None


def lay_out_interpretation(results: InterpretationResults, files: Mapping[str, bytes]) -> Page:
    """Lay the page out.

    Parameters
    ----------
    results : the whole results
    files : further files of this question in the report, by path below the report
    """
    content = interpretation_content(results)
    first = () if content.cards is None else (("Features of a class", [Finding("Features", content.cards.line)]),)
    return Page(
        name="interpretation",
        template="interpretation/page.html.j2",
        content=content,
        opening=content.opening,
        measures=interpretation_measures(results),
        networks=content.networks,
        sections=(*first, *((section.title, section.findings) for section in content.sections)),
        has_figures=bool(content.sections),
        csv=content.csv,
        files=files,
        scripts={} if content.cards is None else content.cards.scripts,
    )


def interpretation_content(results: InterpretationResults) -> InterpretationContent:
    """Compute what the page shows."""
    topics = results.methods.get("topics")
    csv = {
        "data/networks.csv": results.networks,
        "data/over_repeats.csv": results.over_repeats,
        "data/by_budget.csv": results.by_budget,
        "data/robustness.csv": results.robustness,
        **unit_csv(results.units),
        **({"data/transfer.csv": results.transfer} if len(results.transfer) else {}),
        **({"data/topics.csv": topics} if topics is not None else {}),
    }
    dropped = ""
    if len(results.classes) <= MAX_CSV_ROWS:
        csv["data/classes.csv"] = results.classes
    else:
        dropped = (
            f"The {len(results.classes):,} rows of the table by class are in the store as Parquet, not in this site."
        )
    galleries, thumbnails = gallery_blocks(results.galleries)
    units, pictured = unit_sections(results.units)
    cards = None if results.cards is None else cards_of(results.cards)
    on_cards = set() if cards is None else {thumb.digest for thumb in cards.thumbnails}
    robustness = results.robustness
    sections = _sections(results, "" if dropped else "data/classes.csv")
    said = [f"{section.title}: {section.findings[0].text}" for section in sections if section.findings]
    return InterpretationContent(
        opening=opening_of(results, cards, next(iter(said), "")),
        observations=_observations(results),
        sections=sections,
        budgets=_by_network(results.over_repeats),
        networks=tables.networks_table(results.networks),
        robustness=tables.robustness_table(own_coresets(robustness)),
        transfer=_transfer(results) if len(results.transfer) else None,
        topics=coresets.topics_table(topics) if topics is not None else None,
        neighbours=coresets.neighbour_findings(own_coresets(results.selections)),
        galleries=galleries,
        thumbnails=[thumb for thumb in unique_thumbnails([*thumbnails, *pictured]) if thumb.digest not in on_cards],
        units=units,
        csv=csv,
        dropped_csv=dropped,
        cards=cards,
    )


def own_coresets(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of coresets that the network itself selected; all rows where no column says which."""
    return table[table["coreset_from"] == table["network"]] if "coreset_from" in table else table


def _observations(results: InterpretationResults) -> list[tuple[str, list[Observation]]]:
    """Judge the paper's observations for each network."""
    over_repeats, robustness = (own_coresets(table) for table in (results.over_repeats, results.robustness))
    frames = (over_repeats, robustness, results.against_random, results.with_budget)
    return [
        (str(network), observations(*(table[table["network"] == network] if len(table) else table for table in frames)))
        for network in dict.fromkeys(over_repeats["network"])
    ]


def _by_network(over_repeats: pd.DataFrame) -> list[tuple[str, Table]]:
    """Return the table of all coresets of each network."""
    return [(str(name), coresets.budget_table(rows)) for name, rows in over_repeats.groupby("network", sort=False)]


def _transfer(results: InterpretationResults) -> Transfer:
    """Compare the coresets of other networks with each network's own."""
    figures, over_repeats = [], results.over_repeats
    for i, network in enumerate(dict.fromkeys(results.transfer["network"]), start=1):
        rows = over_repeats[(over_repeats["network"] == network) & (over_repeats["budget"] < 1)]
        views = [replace(distance_views(part)[0], label=name) for _, name, part in pairs(rows)]
        title = f"Own and transferred coresets, {network}"
        figures.append(FigureBlock(f"transfer-{i}", title, TRANSFER_CAPTION, views, None))
    table = coresets.transfer_table(results.transfer)
    return Transfer(coresets.transfer_findings(results.transfer_summary), figures, table)


def _sections(results: InterpretationResults, class_csv: str) -> list[Section]:
    """One section per network and interpreter."""
    over_repeats = own_coresets(results.over_repeats)
    robustness = own_coresets(results.robustness)
    return [
        Section(
            id=f"pair-{i}",
            network=network,
            interpreter=interpreter,
            findings=[
                *findings(rows, _of(robustness, network, interpreter)),
                *unit_findings(results.units, network, interpreter),
            ],
            figures=_figures(i, network, interpreter, rows),
            classes=tables.class_table(_of(own_coresets(results.classes), network, interpreter), class_csv),
        )
        for i, (network, interpreter, rows) in enumerate(pairs(over_repeats), start=1)
    ]


def _figures(i: int, network: str, interpreter: str, rows: pd.DataFrame) -> tuple[FigureBlock, FigureBlock]:
    """The two figures of a section."""
    of = f"{network}, {interpreter}"
    distance, accuracy = distance_views(rows), accuracy_views(rows)
    return (
        FigureBlock(f"distance-{i}", f"Distance, {of}", DISTANCE_CAPTION, distance, tables.distance_table(rows)),
        FigureBlock(f"accuracy-{i}", f"Accuracy, {of}", ACCURACY_CAPTION, accuracy, tables.accuracy_table(rows)),
    )


def _of(frame: pd.DataFrame, network: str, interpreter: str) -> pd.DataFrame:
    """The rows of one network and interpreter."""
    return frame[(frame["network"] == network) & (frame["interpreter"] == interpreter)]
