"""Names of layers that are short and still differ."""

from collections.abc import Sequence
from html import escape

from tasks.figures.layer_names import BETWEEN, short_name
from tasks.figures.views import shorten, shorten_path

MOST_TWO_LINES = 4  # layers of an axis that have room for what they are


def short_layers(layers: Sequence[str], length: int) -> list[str]:
    """Cut dotted names to at most `length` characters: what all share at either end is left out first.

    Names that would be the same after that are replaced by their places, "#1", "#2", ...
    """
    layers = [short_name(layer) for layer in layers]
    if all(len(layer) <= length for layer in layers):
        return list(layers)
    parts = [layer.split(".") for layer in layers]
    if len(parts) > 1:
        parts = _without_common_end(parts)
        parts = [names[::-1] for names in _without_common_end([names[::-1] for names in parts], left=1)]
    short = [shorten_path(".".join(names), length) for names in parts]
    return short if len(set(short)) == len(short) else [f"#{i}" for i in range(1, len(short) + 1)]


def axis_layers(layers: Sequence[str]) -> list[str]:
    """Return escaped names for an axis; below each what the layer is, where there are few."""
    few = len(layers) <= MOST_TWO_LINES
    names = [escape(name) for name in short_layers(layers, 12 if few else 10)]
    texts = [escape(shorten(layer.partition(BETWEEN)[2].partition(",")[0], 22)) if few else "" for layer in layers]
    return [f"{name}<br>{text}" if text else name for name, text in zip(names, texts, strict=True)]


def _without_common_end(parts: list[list[str]], left: int = 0) -> list[list[str]]:
    """Drop the last names while all share them, but for the first `left` of these."""
    common = 0
    while all(len(names) > common + 1 and names[-1 - common] == parts[0][-1 - common] for names in parts):
        common += 1
    dropped = max(0, common - left)
    return [names[: len(names) - dropped] for names in parts]
