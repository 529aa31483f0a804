"""What a page of a site says and draws."""

import html
import json
import re

from tasks.report.formats import NBSP


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
