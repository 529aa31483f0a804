"""The page of the tracing question, from its tables to what its template shows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from tasks.figures.overlay import Thumbnail, unique_thumbnails
from tasks.figures.tracing.class_share import MAX_LAYERS, class_share_views, class_shares
from tasks.figures.tracing.growth import growth_views
from tasks.figures.tracing.layer_bars import MAX_LAYERS as MAX_BARS
from tasks.figures.tracing.layer_bars import layer_views
from tasks.report.blocks import FigureBlock
from tasks.report.cells import Table
from tasks.report.findings import Finding
from tasks.report.opening import Opening
from tasks.report.pages import Page
from tasks.report.tracing import tables
from tasks.report.tracing.downloads import tracing_csv
from tasks.report.tracing.every import Every, lay_out_every
from tasks.report.tracing.findings import tracing_findings
from tasks.report.tracing.first import First, first_screen
from tasks.report.tracing.measures import tracing_measures
from tasks.report.tracing.opening import opening_of
from tasks.report.tracing.paper import paper_table
from tasks.report.tracing.privacy import redacted
from tasks.report.tracing.queries import MAX_EXAMPLES, Card, query_cards
from tasks.report.tracing.results import TracingResults
from tasks.report.tracing.suspects import Suspects, suspect_strips
from tasks.report.tracing.titles import titled
from tasks.report.tracing.twins import twin_sentence

MAX_SECTIONS = 12
GROWTH_CAPTION = (
    "How much the answers change with the weights before each step, relative to the end. A curve that rises by many "
    "powers of ten towards the first steps belongs to a training that is too rough for its derivative."
)
LAYERS_CAPTION = (
    "Parts of the squared norm of each layer's representation, and the share of the queries' top-k examples that are "
    "of the predicted class (@1 and @10); means over queries."
)


@dataclass(frozen=True)
class TracedNetwork:
    """What one network and seed show."""

    id: str
    title: str
    findings: list[Finding]
    figures: tuple[FigureBlock, ...]
    layers: Table


@dataclass(frozen=True)
class TracingContent:
    """Everything the template needs."""

    opening: Opening
    first: First | None
    sections: list[TracedNetwork]
    networks: Table
    paper: Table
    evaluation: Table
    cards: list[Card]
    cards_note: str
    every: Every | None
    suspects: list[Suspects]
    max_examples: int
    thumbnails: list[Thumbnail]
    csv: dict[str, pd.DataFrame]
    notes: tuple[str, ...]


def lay_out_tracing(results: TracingResults, training_images: str, files: Mapping[str, bytes]) -> Page:
    """Lay the page out.

    Parameters
    ----------
    results : the whole results; what `training_images` does not allow is taken out here
    training_images : the config's `report.training_images`
    files : further files of this question in the report, by path below the report
    """
    shown = titled(redacted(results, training_images))
    every, scripts = lay_out_every(shown.every, shown.images)
    content = replace(tracing_content(results, training_images), every=every)
    return Page(
        name="tracing",
        template="tracing/page.html.j2",
        content=content,
        opening=content.opening,
        measures=tracing_measures(results),
        networks=content.networks,
        sections=tuple((section.title, section.findings) for section in content.sections),
        has_figures=bool(content.sections) or bool(content.cards),  # a query may be of a network without a section
        csv=content.csv,
        files=files,
        scripts=scripts,
    )


def tracing_content(results: TracingResults, training_images: str) -> TracingContent:
    """Compute what the page shows but for the chooser; what `training_images` does not allow is taken out first."""
    results = redacted(results, training_images)
    csv, notes = tracing_csv(results)
    results = titled(results)
    cards, thumbnails, cards_note = query_cards(results.queries, results.images, results.n_queries)
    strips, pictures = suspect_strips(results.suspects, results.teachers, results.images)
    pairs = list(_pairs(results))
    if len(pairs) > MAX_SECTIONS:
        notes = (f"The first {MAX_SECTIONS} of {len(pairs)} networks and seeds have a section.", *notes)
    first, pictured = first_screen(cards, results.evaluation), unique_thumbnails([*thumbnails, *pictures])
    return TracingContent(
        opening=opening_of(results, first, cards, pictured),
        first=first,
        sections=[_section(i, results, *pair) for i, pair in enumerate(pairs[:MAX_SECTIONS], start=1)],
        networks=tables.networks_table(results.networks),
        paper=paper_table(results.networks),
        evaluation=tables.evaluation_table(results.evaluation),
        cards=cards,
        cards_note=cards_note,
        every=None,
        suspects=strips,
        max_examples=MAX_EXAMPLES,
        thumbnails=pictured,
        csv=csv,
        notes=notes,
    )


def _pairs(results: TracingResults) -> Iterator[tuple[str, int]]:
    """Yield network and seed, in the order of the tables."""
    seen = pd.concat([frame[["network", "seed"]] for frame in (results.networks, results.layers, results.shares)])
    for network, seed in seen.drop_duplicates().itertuples(index=False):
        yield str(network), int(seed)


def _section(i: int, results: TracingResults, network: str, seed: int) -> TracedNetwork:
    """Lay one network and seed out."""
    layers, shares, evaluation = (
        _of(frame, network, seed) for frame in (results.layers, results.shares, results.evaluation)
    )
    units = layers["layer"][layers["unit"].astype(bool)] if "unit" in layers else layers["layer"][:0]
    figures, whole = [], layers[~layers["layer"].isin(units)]
    if len(whole):
        bars = f" {MAX_BARS} of {len(whole)} layers, evenly spread." if len(whole) > MAX_BARS else ""
        title = f"Layers, {network}, seed {seed}"
        figures.append(FigureBlock(f"layers-{i}", title, LAYERS_CAPTION + bars, layer_views(whole), None))
    if len(shares):
        title = f"Classes over training, {network}, seed {seed}"
        figures.append(FigureBlock(f"shares-{i}", title, _shares_caption(shares), class_share_views(shares), None))
    growth = _of(results.growth, network, seed)
    if len(growth):
        title = f"Growth of the adjoint, {network}, seed {seed}"
        views = growth_views(growth.reset_index(drop=True))
        figures.append(FigureBlock(f"growth-{i}", title, GROWTH_CAPTION, views, None))
    return TracedNetwork(
        id=f"traced-{i}",
        title=f"{network}, seed {seed}",
        findings=tracing_findings(
            whole,
            shares[~shares["layer"].isin(units)],
            evaluation,
            twin_sentence(_without_units(results), network, seed),
        ),
        figures=tuple(figures),
        layers=tables.layers_table(layers),
    )


def _without_units(results: TracingResults) -> pd.DataFrame:
    """Return the table of networks with the numbers of their traced layers, units not counted."""
    layers = results.layers
    whole = layers[~layers["unit"].astype(bool)] if "unit" in layers else layers
    counts = whole.groupby("network")["layer"].nunique()
    return results.networks.assign(layers=results.networks["network"].map(counts).fillna(0).astype(int))


def _shares_caption(shares: pd.DataFrame) -> str:
    """Say what the areas are and what the caps leave out."""
    made = class_shares(shares)
    text = (
        "γ by class of the updates and epoch, mean over queries. Above zero: added to the representation. Below zero: "
        "took away from it. Dashed: the sum."
    )
    if made.n_others:
        n_shown = len(made.classes) - 1
        text += f" The {n_shown} largest of {n_shown + made.n_others} classes by themselves."
    if made.joined > 1:
        text += f" Epochs are summed in runs of {made.joined}, each drawn at its last epoch."
    if len(made.layers) > MAX_LAYERS:
        text += f" {MAX_LAYERS} of {len(made.layers)} layers, evenly spread."
    return text


def _of(frame: pd.DataFrame, network: str, seed: int) -> pd.DataFrame:
    """Return the rows of one network and seed."""
    return frame[(frame["network"] == network) & (frame["seed"] == seed)]
