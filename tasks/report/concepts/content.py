"""The page of the concepts question, from its tables to what its template shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from tasks.report.blocks import FigureBlock
from tasks.report.cells import Table
from tasks.report.concepts import tables
from tasks.report.concepts.answers import answer, other_answers
from tasks.report.concepts.downloads import concept_csv, concept_files
from tasks.report.concepts.explorer import Explorer, explorer_of
from tasks.report.concepts.figures import (
    ChosenFigures,
    course_figure,
    holdings_figure,
    plane_figures,
    tau_figures,
    temperature_figures,
)
from tasks.report.concepts.findings import NAMES, observations, trust_findings
from tasks.report.concepts.groups import MAX_GROUPS, Group, groups_of
from tasks.report.concepts.measures import concept_measures
from tasks.report.concepts.opening import opening_of
from tasks.report.concepts.paradigms import paradigm_observations
from tasks.report.concepts.results import ConceptFacts, ConceptResults
from tasks.report.concepts.strips import Strip, strip_of
from tasks.report.concepts.taught import TaughtBlock, taught_block, taught_csv, taught_files
from tasks.report.findings import Finding
from tasks.report.opening import Opening
from tasks.report.pages import Page

MAX_SECTIONS = 12
Data = tuple[dict[str, pd.DataFrame], tuple[str, ...]]  # files, and what they leave out


@dataclass(frozen=True)
class Watched:
    """What one network, seed and detector show."""

    title: str
    answer: str
    others: str
    findings: list[Finding]
    states: tuple[str, ...]


@dataclass(frozen=True)
class ConceptContent:
    """Everything the template needs."""

    facts: ConceptFacts
    opening: Opening
    watched: list[Watched]
    main: ChosenFigures
    course: FigureBlock | None
    with_course: tuple[int, ...]
    strips: dict[int, Strip]
    plane: ChosenFigures | None
    plane_notes: tuple[str, ...]
    explorer: Explorer | None
    taught: TaughtBlock
    comparisons: list[Table]
    verdicts: Table | None
    further: list[Finding]
    paradigms: list[Finding]
    attacked: Table | None
    truth: Table | None
    trust: list[Finding]
    tau: ChosenFigures | None
    temperature: ChosenFigures | None
    folded: list[tuple[str, list[Table]]]
    networks: Table
    detectors: Table
    csv: dict[str, pd.DataFrame]
    notes: tuple[str, ...]


def lay_out_concepts(results: ConceptResults, files: Mapping[str, bytes]) -> Page:
    """Lay the page out.

    Parameters
    ----------
    results : only what may be shown: images and sample ids are printed as they are given
    files : further files of this question in the report, by path below the report; Parquet tables and stills of the
        results are added
    """
    results = results.completed()
    shown = results.titled()
    groups, n_groups = groups_of(shown)
    content = concept_content(shown, groups, n_groups, concept_csv(results))
    sections = [(w.title, [Finding("Concepts", w.answer), *w.findings]) for w in content.watched[:MAX_SECTIONS]]
    rest = [*content.paradigms, *content.trust, *content.further]
    return Page(
        name="concepts",
        template="concepts/page.html.j2",
        content=content,
        opening=content.opening,
        measures=concept_measures(results),
        networks=content.networks,
        sections=(*sections, ("Detectors", rest)) if rest else tuple(sections),
        has_figures=bool(groups),
        csv={**content.csv, **taught_csv(results.taught)},
        files={**concept_files(results, groups), **taught_files(results.taught), **files},
    )


def concept_content(results: ConceptResults, groups: Sequence[Group], n_groups: int, data: Data) -> ConceptContent:
    """Compute what the page shows.

    Parameters
    ----------
    results : with every column in every table
    groups : the rows by network, seed and detector that are shown
    n_groups : how many there are
    data : the data files of the page, and what they leave out
    """
    watched = [_watched(group, groups) for group in groups]
    explorer = explorer_of(results, groups)
    course, with_course = course_figure(groups)
    images = {} if explorer is None else explorer.images
    plane, plane_notes = plane_figures(groups, results.anchors)
    csv, notes = data
    if n_groups > len(groups):
        notes = (f"The first {MAX_GROUPS} of {n_groups} networks, seeds and detectors are shown.", *notes)
    first = strip_of(groups[0], images) if groups else None
    thumbs = {} if explorer is None else {thumb.digest: thumb for thumb in explorer.thumbnails}
    said = watched[0].answer if watched else ""
    return ConceptContent(
        facts=results.facts,
        opening=opening_of(groups, said, first, thumbs, results.accuracies),
        watched=watched,
        main=holdings_figure(groups),
        course=course,
        with_course=with_course,
        strips={i: strip_of(group, images) for i, group in enumerate(groups) if i not in with_course},
        plane=plane,
        plane_notes=plane_notes,
        explorer=explorer,
        taught=taught_block(results.taught, results.monitor),
        comparisons=tables.comparison_tables(groups),
        verdicts=_verdicts(groups, watched),
        further=list(results.observations),
        paradigms=[
            seen.finding for seen in paradigm_observations(results.facts.paradigms, results.monitor, results.categories)
        ],
        attacked=tables.attacked_table(results.attacked, results.monitor) if len(results.attacked) else None,
        truth=tables.truth_table(results.truth) if len(results.truth) else None,
        trust=trust_findings(results.truth),
        tau=tau_figures(groups),
        temperature=temperature_figures(groups),
        folded=_folded(results, groups),
        networks=tables.networks_table(results.monitor),
        detectors=tables.detectors_table(results.facts, results.monitor),
        csv=csv,
        notes=notes,
    )


def _watched(group: Group, groups: Sequence[Group]) -> Watched:
    """Answer for one network, seed and detector of those that are shown."""
    rows = group.tables
    seen = observations(rows)
    same = [g for g in groups if g.key[:2] == group.key[:2] and g is not group]
    return Watched(
        title=group.title,
        answer=answer(rows["monitor"], rows["common"], _network(group, groups)),
        others=other_answers(rows["monitor"], {other.detector: other.tables["monitor"] for other in same}),
        findings=[observation.finding for observation in seen],
        states=tuple(observation.state for observation in seen),
    )


def _verdicts(groups: Sequence[Group], watched: Sequence[Watched]) -> Table | None:
    """List which observation held; None where nothing can be said of any."""
    if all(state == "cannot be said" for each in watched for state in each.states):
        return None
    return tables.verdicts_table([(g, w.states) for g, w in zip(groups, watched, strict=True)], NAMES)


def _network(group: Group, groups: Sequence[Group]) -> str:
    """Name the network and the seed where the page has several."""
    seed = f"seed {group.seed}" if len({g.seed for g in groups}) > 1 else ""
    if len({g.network for g in groups}) > 1:
        return f"{group.network} ({seed})" if seed else group.network
    return seed


def _folded(results: ConceptResults, groups: Sequence[Group]) -> list[tuple[str, list[Table]]]:
    """Return title and tables of the long lists, those without rows left out."""
    parts: list[tuple[str, list[Table]]] = []
    if len(results.common):
        parts.append(("Most common concepts", [tables.common_table(results.common, groups)]))
    if len(results.changes):
        both = [tables.change_counts(results.changes, groups), tables.changes_table(results.changes, groups)]
        parts.append(("Neurons that became or ceased to be interpretable", both))
    if len(results.anchor_distances):
        both = [tables.nearest_table(results.anchor_distances), tables.tracked_table(results.anchor_distances)]
        parts.append(("Anchors and the neurons near them", [table for table in both if table.rows]))
    parts.append(("Every layer at every snapshot", [tables.monitor_table(results.monitor)]))
    return parts
