"""A site of invented results, and what its pages say and draw."""

import html
import json
import re
from collections.abc import Mapping

from tasks.report.concepts.content import lay_out_concepts
from tasks.report.concepts.results import ConceptResults
from tasks.report.decomposition.content import lay_out_decomposition
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.formats import NBSP
from tasks.report.interpretation.content import lay_out_interpretation
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.pages import Page, RunFacts
from tasks.report.site import render_site
from tasks.report.tracing.content import lay_out_tracing
from tasks.report.tracing.results import TracingResults

QUESTIONS: Mapping[str, str] = {
    "interpretation": "Which features does a network rely on, and how little data shows them?",
    "decomposition": "Which few features decide each class?",
    "concepts": "Which concepts do neurons hold, and when in training did they come?",
    "tracing": "Who taught the network that?",
}
Results = InterpretationResults | DecompositionResults | ConceptResults | TracingResults


def site_of(facts: RunFacts, *results: Results) -> dict[str, bytes]:
    """Render the report of a run whose `training_images` decides what of the training set may be in any file."""
    return render_site(facts, [page_of(each, facts.training_images) for each in results], QUESTIONS)


def page_of(results: Results, training_images: str = "show") -> Page:
    """Lay out the page of one question."""
    if isinstance(results, InterpretationResults):
        return lay_out_interpretation(results, {})
    if isinstance(results, DecompositionResults):
        return lay_out_decomposition(results, training_images, {})
    if isinstance(results, ConceptResults):
        return lay_out_concepts(results, {})
    return lay_out_tracing(results, training_images, {})


def text_of(site: dict[str, bytes], page: str) -> str:
    """Return the words of a page, one space between."""
    shown = re.sub(r"<(script|style).*?</\1>", " ", site[page].decode(), flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]*>", " ", shown)).replace(NBSP, " ")
    return re.sub(r"\s+", " ", words)


def views_of(site: dict[str, bytes], page: str, figure: str) -> dict[str, list[dict[str, list[float]]]]:
    """Return what a figure of a page draws, by the label of its choice."""
    found = re.search(rf'id="{figure}-views">(.*?)</script>', site[page].decode())
    assert found is not None
    return {view["label"]: view["data"] for view in json.loads(found[1])}
