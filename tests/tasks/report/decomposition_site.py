"""What the decomposition page of a site says and draws, and pages with parts taken out."""

import html
import json
import re
from dataclasses import replace

from tasks.report.formats import NBSP
from tasks.report.pages_decomposition import DecompositionPage


def text_of(site: dict[str, bytes]) -> str:
    """Return the words of the page, one space between."""
    page = re.sub(r"<(script|style).*?</\1>", " ", site["decomposition.html"].decode(), flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]*>", " ", page)).replace(NBSP, " ")
    return re.sub(r"\s+", " ", words)


def views_of(site: dict[str, bytes], figure: str) -> dict[str, list[dict[str, list[float]]]]:
    """Return what a figure draws, by the label of its choice."""
    found = re.search(rf'id="{figure}-views">(.*?)</script>', site["decomposition.html"].decode())
    assert found is not None
    return {view["label"]: view["data"] for view in json.loads(found[1])}


def figures_in(site: dict[str, bytes]) -> list[str]:
    """Return the ids of all figures."""
    return re.findall(r'<div class="plot" id="([^"]*)"', site["decomposition.html"].decode())


def without(page: DecompositionPage, *names: str) -> DecompositionPage:
    """Empty some tables and tuples."""
    return replace(page, **{name: getattr(page, name)[:0] for name in names})
