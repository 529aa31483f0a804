"""Titles of layers, such as "3 · Linear 32 → 10, output": the name in the network, and what the layer is."""

from html import escape

from tasks.figures.views import shorten, shorten_path

BETWEEN = " · "
MOST_TWO_LINES = 8  # layers of an axis that have room for what they are


def joined_title(name: str, text: str) -> str:
    """Return the title of a layer."""
    return f"{name}{BETWEEN}{text}"


def short_name(title: str) -> str:
    """Return the name in the network of a layer's title."""
    return title.partition(BETWEEN)[0]


def axis_names(titles: list[str], length: int) -> list[str]:
    """Return escaped names for an axis; below each what the layer is, where there are few."""
    names = [escape(shorten_path(short_name(title), length)) for title in titles]
    if len(titles) > MOST_TWO_LINES:
        return names
    texts = [escape(shorten(title.partition(BETWEEN)[2].partition(",")[0], length + 4)) for title in titles]
    return [f"{name}<br>{text}" if text else name for name, text in zip(names, texts, strict=True)]
