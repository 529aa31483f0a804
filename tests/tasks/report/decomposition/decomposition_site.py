"""What the decomposition page of a site says and draws, and pages with parts taken out."""

import re
from dataclasses import replace

from tasks.report.decomposition.results import DecompositionResults
from tests.tasks.report import site_pages


def text_of(site: dict[str, bytes]) -> str:
    """Return the words of the page, one space between."""
    return site_pages.text_of(site, "decomposition.html")


def views_of(site: dict[str, bytes], figure: str) -> dict[str, list[dict[str, list[float]]]]:
    """Return what a figure draws, by the label of its choice."""
    return site_pages.views_of(site, "decomposition.html", figure)


def figures_in(site: dict[str, bytes]) -> list[str]:
    """Return the ids of all figures."""
    return re.findall(r'<div class="plot" id="([^"]*)"', site["decomposition.html"].decode())


def without(page: DecompositionResults, *names: str) -> DecompositionResults:
    """Empty some tables and tuples."""
    return replace(page, **{name: getattr(page, name)[:0] for name in names})
