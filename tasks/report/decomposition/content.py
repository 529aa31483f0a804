"""The page of the decomposition question, from its tables to what its template shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.figures.decomposition.depth import depth_views
from tasks.figures.overlay import Thumbnail, unique_thumbnails
from tasks.report.blocks import FigureBlock, GalleryBlock
from tasks.report.cells import Table
from tasks.report.decomposition import tables
from tasks.report.decomposition.authors import compare_authors
from tasks.report.decomposition.claims import claims_table
from tasks.report.decomposition.cost import head_times_table
from tasks.report.decomposition.deciders import Deciders, deciders_of
from tasks.report.decomposition.downloads import decomposition_csv
from tasks.report.decomposition.figures import network_figures
from tasks.report.decomposition.findings import family_findings, network_findings
from tasks.report.decomposition.gallery import MAX_NETWORKS, feature_map_blocks
from tasks.report.decomposition.measures import decomposition_measures
from tasks.report.decomposition.opening import opening_of
from tasks.report.decomposition.private import allowed
from tasks.report.decomposition.results import COLUMNS, DecompositionResults
from tasks.report.findings import Finding
from tasks.report.opening import Opening
from tasks.report.pages import Page

MAX_SECTIONS = 12
RANKS = {"abs": "magnitude", "value": "value", "contribution": "contribution to the class's logit"}
GROUPS = {"label": "the image's class", "prediction": "the class predicted"}
DEPTH_CAPTION = (
    "Networks of a family by depth: the part of the accuracy that few features keep, the mean overlap of two classes' "
    "sets, and the accuracy with few features. Whiskers: ± 1 standard deviation over seeds."
)


@dataclass(frozen=True)
class DecomposedNetwork:
    """What one network and seed show."""

    id: str
    title: str
    findings: list[Finding]
    figures: tuple[FigureBlock, ...]
    head_times: Table | None
    gates: Table | None


@dataclass(frozen=True)
class DecompositionContent:
    """Everything the template needs.

    `thumbnails` has every picture of the page once. `ranked` and `grouped` say how features were counted; `filled`
    names the tables and tuples that are not empty.
    """

    opening: Opening
    deciders: Deciders | None
    sections: list[DecomposedNetwork]
    across: list[Finding]
    claims: Table | None
    depth: FigureBlock | None
    authors: Table | None
    networks: Table
    settings: Table
    ranked: str
    grouped: str
    galleries: list[GalleryBlock]
    thumbnails: list[Thumbnail]
    refused: tuple[tuple[str, str], ...]
    csv: dict[str, pd.DataFrame]
    notes: tuple[str, ...]
    filled: frozenset[str]


def lay_out_decomposition(results: DecompositionResults, training_images: str, files: Mapping[str, bytes]) -> Page:
    """Lay the page out.

    Parameters
    ----------
    results : the whole results; what `training_images` does not allow is taken out here
    training_images : the config's `report.training_images`
    files : further files of this question in the report, by path below the report
    """
    content = decomposition_content(results, training_images)
    sections = tuple((section.title, section.findings) for section in content.sections)
    return Page(
        name="decomposition",
        template="decomposition/page.html.j2",
        content=content,
        opening=content.opening,
        measures=decomposition_measures(results.completed()),
        networks=content.networks,
        sections=(*sections, ("Networks together", content.across)) if content.across else sections,
        has_figures=bool(content.sections),
        csv=content.csv,
        files=files,
    )


def decomposition_content(results: DecompositionResults, training_images: str) -> DecompositionContent:
    """Compute what the page shows; what `training_images` does not allow is taken out first."""
    results = allowed(results.completed(), training_images)
    pairs = _pairs(results)
    parts = [results.of(*pair) for pair in pairs[:MAX_SECTIONS]]
    compared = compare_authors(results)
    csv, notes = decomposition_csv(results, compared)
    galleries, thumbnails = feature_map_blocks(results.gallery)
    depth, deciders = depth_views(results.networks), deciders_of(results)
    return DecompositionContent(
        opening=opening_of(results, deciders),
        deciders=deciders,
        sections=[_section(i, part) for i, part in enumerate(parts, start=1)],
        across=family_findings(results.networks),
        claims=claims_table(parts) if len(parts) > 1 else None,
        depth=FigureBlock("depth", "Depth", DEPTH_CAPTION, depth, None) if depth else None,
        authors=tables.authors_table(compared) if len(compared) else None,
        networks=tables.results_table(results.networks),
        settings=tables.settings_table(results.networks),
        ranked=_worded(results.networks["rank_by"], RANKS),
        grouped=_worded(results.networks["group_by"], GROUPS),
        galleries=galleries,
        thumbnails=unique_thumbnails([*(deciders.thumbnails if deciders else ()), *thumbnails]),
        refused=tuple((network, reason.rstrip(".")) for network, reason in results.refused),
        csv=csv,
        notes=(*_caps(results, len(pairs)), *notes),
        filled=frozenset(
            name for name in (*COLUMNS, "histograms", "overlaps", "gallery") if len(getattr(results, name))
        ),
    )


def _pairs(results: DecompositionResults) -> list[tuple[str, int]]:
    """Return networks and seeds in the order of their table."""
    pairs = results.networks[["network", "seed"]].drop_duplicates()
    return [(str(network), int(seed)) for network, seed in pairs.itertuples(index=False)]


def _worded(kinds: pd.Series, words: dict[str, str]) -> str:
    """Put what the networks were asked into words; without any, the first of these."""
    worded = dict.fromkeys(words.get(kind, kind) for kind in kinds.dropna().astype(str))
    text = " or ".join(worded or [next(iter(words.values()))])
    return f"{text} (see Networks)" if len(worded) > 1 else text


def _caps(results: DecompositionResults, n_pairs: int) -> Sequence[str]:
    """Say what the caps leave out of the whole page."""
    notes = []
    if n_pairs > MAX_SECTIONS:
        notes.append(f"The first {MAX_SECTIONS} of {n_pairs} networks and seeds have a section.")
    n_networks = len({row.network for row in results.gallery})
    if n_networks > MAX_NETWORKS:
        notes.append(f"Feature maps of the first {MAX_NETWORKS} of {n_networks} networks are shown.")
    return notes


def _section(i: int, results: DecompositionResults) -> DecomposedNetwork:
    """Lay one network and seed out."""
    title = f"{results.networks['network'].iloc[0]}, seed {results.networks['seed'].iloc[0]}"
    return DecomposedNetwork(
        id=f"decomposed-{i}",
        title=title,
        findings=network_findings(results),
        figures=tuple(network_figures(i, title, results)),
        head_times=head_times_table(results.head_times) if len(results.head_times) else None,
        gates=tables.gates_table(results.gates) if len(results.gates) else None,
    )
