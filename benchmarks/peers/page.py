"""docs/peers.md: what the command measured, between two lines of a page that is written by hand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.peers.sections import Section, Table

PAGE = Path(__file__).resolve().parents[2] / "docs" / "peers.md"
BEGIN, END = "<!-- figures: written by python -m benchmarks.peers -->", "<!-- end of the figures -->"
TITLES = {
    "attribution": "Attribution",
    "shape": "Shape distance",
    "nmf": "NMF and codes",
    "extraction": "Extraction of activations",
    "costs": "Costs within layerlore",
}


def replace_figures(page: str, figures: str) -> str:
    """Return a page with other figures between the two lines."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"{PAGE.name}: expected the lines {BEGIN!r} and {END!r} once each")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{figures}\n{END}{rest.partition(END)[2]}"


def page_text(sections: Mapping[str, Section]) -> str:
    """Return the figures as Markdown: who is better, then the tables."""
    return "\n".join(_lines(sections)).rstrip() + "\n"


def _lines(sections: Mapping[str, Section]) -> Iterator[str]:
    """Yield the lines of the figures."""
    yield from _versions(sections)
    yield from _sentences("Where a peer is better", [one.peer_better for one in sections.values()])
    yield from _sentences("Where layerlore is better", [one.ours_better for one in sections.values()])
    for name, section in sections.items():
        yield f"## {TITLES[name]}"
        yield ""
        for table in section.tables:
            yield from _table(table)


def _versions(sections: Mapping[str, Section]) -> Iterator[str]:
    """Yield what was compared, and what could not be, with the reason."""
    peers = {str(peer["name"]): peer for section in sections.values() for peer in section.peers}
    yield "Versions: " + ", ".join(f"{name} {one['version']}" for name, one in peers.items() if one["version"]) + "."
    yield ""
    for name, one in peers.items():
        if not one["version"]:
            yield f"- {name} could not be installed here: `{one['reason']}`"
            yield ""


def _sentences(title: str, groups: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a list of sentences."""
    yield f"## {title}"
    yield ""
    lines = [sentence for group in groups for sentence in group]
    yield from (f"- {sentence}" for sentence in lines or ["Nowhere in this run."])
    yield ""


def _table(table: Table) -> Iterator[str]:
    """Yield a table with its notes."""
    yield f"**{table.title}**"
    yield ""
    for row in (table.columns, ["---"] * len(table.columns), *table.rows):
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
    yield ""
    for note in table.notes:
        yield note
        yield ""
