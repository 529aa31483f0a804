"""The pages of the site that lie outside docs/ or are parts of a page: made while the site is built, kept nowhere.

`mkdocs.yml` names this file as a hook. Links between files become links between the pages that they are on.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = "docs"


@dataclass(frozen=True)
class Part:
    """A part of a Markdown file: from a heading to the next of its level; "" for the whole, "^" for what precedes all.

    Attributes
    ----------
    file : path in the repository
    heading : its text
    """

    file: str
    heading: str = ""


PARTS: dict[str, tuple[str, tuple[Part, ...]]] = {  # page: its title, and its parts
    "start.md": (
        "Start",
        (Part("README.md", "^"), Part("README.md", "Two commands"), Part("README.md", "What a run leaves behind")),
    ),
    "commands.md": ("Commands", (Part("README.md", "Commands"),)),
    "data.md": ("Your own data", (Part("README.md", "Your own data and network"),)),
    "network.md": (
        "Your own network",
        tuple(Part("README.md", name) for name in ("Networks", "Your own modules", "Activations alone", "Presets")),
    ),
    "card.md": ("One card for one image", (Part("README.md", "One card for one image"),)),
    "notebook.md": ("In a notebook", (Part("README.md", "In a notebook"),)),
    "resume.md": ("Stop and resume", (Part("README.md", "Stopping and going on"),)),
    "cluster.md": ("A cluster", (Part("README.md", "Clusters"),)),
    "limits.md": ("What is there, and what is not", (Part("README.md", "What is there, and what is not"),)),
    "papers.md": ("Papers", (Part("README.md", "Papers"),)),
    "deployments.md": ("", (Part("deployments/README.md"),)),
    "contributing.md": ("", (Part("CONTRIBUTING.md"),)),
    "changelog.md": ("", (Part("CHANGELOG.md"),)),
}
# Of these parts of README.md, the site has pages of docs/ that say the same at length.
LONGER = {
    "which-few-features-decide-each-class": "decomposition.md",
    "which-concepts-do-neurons-hold": "concepts.md",
    "who-taught-the-network-that": "tracing.md",
    "layerlore": "start.md",
}
_FENCE = re.compile(r"^ *```")
_BLOCK = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#{1,6}) (.+?)\s*$")
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\[\]]*\])*\])\(([^()\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are parts of other files."""
    for page, (title, parts) in PARTS.items():
        files.append(File.generated(config, page, content=page_text(page, title, parts)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page of docs/ into links within the site."""
    if page.file.src_uri in PARTS:
        return markdown  # its parts have theirs
    return with_links(markdown, f"{DOCS}/{page.file.src_uri}", page.file.src_uri)


def page_text(page: str, title: str, parts: tuple[Part, ...]) -> str:
    """Return a page that is made of parts."""
    made = [f"# {title}"] if title else []
    for part in parts:
        text = part_text(part, skip_nested=page_headings(page, part))
        made.append(with_links(_shifted(text, part, alone=len(parts) == 1), part.file, page))
    return "\n\n".join(made) + "\n"


def page_headings(page: str, part: Part) -> frozenset[str]:
    """Return the headings below a part that are on pages of their own."""
    others = {each.heading for name, (_, each_parts) in PARTS.items() if name != page for each in each_parts}
    return frozenset(others - {part.heading})


def part_text(part: Part, skip_nested: frozenset[str] = frozenset()) -> str:
    """Return a part of a file without its own heading, and without nested parts that are pages of their own."""
    lines = (ROOT / part.file).read_text(encoding="utf-8").splitlines()
    if not part.heading:
        return "\n".join(lines)
    kept: list[str] = []
    inside, skipped = (1 if part.heading == "^" else 0), 0
    for line, level, text in _outline(lines):
        if level and text == part.heading:
            inside = level
            continue
        if level and inside and level <= inside:
            if part.heading == "^" and level == 1:
                continue  # the title of the file
            break
        if level and part.heading == "^":
            break
        if level and inside:
            skipped = level if text in skip_nested else 0 if level <= skipped else skipped
        if inside and not skipped:
            kept.append(line)
    if not kept:
        raise ValueError(f"{part.file}: expected a heading {part.heading!r}, found none")
    return "\n".join(kept).strip()


def _outline(lines: list[str]) -> Iterator[tuple[str, int, str]]:
    """Yield each line with the level and the text of the heading that it is; 0 and "" for others."""
    fenced = False
    for line in lines:
        fenced ^= bool(_FENCE.match(line))
        found = None if fenced else _HEADING.match(line)
        yield line, len(found[1]) if found else 0, found[2] if found else ""


def _shifted(text: str, part: Part, *, alone: bool) -> str:
    """Return a part with its headings below the title of the page; of several parts each has a heading of its own."""
    if not part.heading:
        return text
    lines = text.splitlines()
    levels = [level for _, level, _ in _outline(lines) if level]
    least = 2 if alone or part.heading == "^" else 3
    shift = least - min(levels, default=least)
    moved = [f"{'#' * (level + shift)} {words}" if level else line for line, level, words in _outline(lines)]
    return "\n".join(moved if alone or part.heading == "^" else [f"## {part.heading}", "", *moved])


def with_links(text: str, file: str, page: str) -> str:
    """Return Markdown from a file of the repository with its links as links from a page of the site."""

    def replaced(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if re.match(r"[a-z]+:", target):
            return found[0]
        there = site_target(file, target, page)
        return label.strip("[]") if there is None else f"{label}({there})"

    pieces = _BLOCK.split(text)
    pieces[::2] = [_LINK.sub(replaced, prose) for prose in pieces[::2]]  # code blocks stay as they are
    return "".join(pieces)


def site_target(file: str, target: str, page: str) -> str | None:
    """Return what a link from a file means on the site, relative to a page; None for files that the site leaves out."""
    path, _, anchor = target.partition("#")
    name = file if not path else os.path.normpath(PurePosixPath(file).parent / path)
    found = page_of(str(name), anchor)
    if found is None:
        return None
    there, anchor = found
    return f"{os.path.relpath(there, PurePosixPath(page).parent)}{f'#{anchor}' if anchor else ''}"


def page_of(name: str, anchor: str) -> tuple[str, str] | None:
    """Return the page of the site that has a file of the repository at an anchor, and the anchor there."""
    whole = next((page for page, (_, parts) in PARTS.items() if parts == (Part(name),)), None)
    if whole is not None:
        return whole, anchor
    if name == "README.md":
        if anchor in LONGER:
            return LONGER[anchor], ""
        return _anchors().get(anchor, ("start.md", ""))
    if name.startswith(f"{DOCS}/") and (ROOT / name).is_file() and not name.endswith(".py"):
        return name.removeprefix(f"{DOCS}/"), anchor
    return None


@cache
def _anchors() -> Mapping[str, tuple[str, str]]:
    """Return the page and the anchor of each heading of README.md."""
    found: dict[str, tuple[str, str]] = {}
    for page, (_, parts) in PARTS.items():
        for part in (each for each in parts if each.file == "README.md" and each.heading != "^"):
            alone = len(parts) == 1
            found[slug(part.heading)] = page, "" if alone else slug(part.heading)
            nested = part_text(part, page_headings(page, part)).splitlines()
            found |= {slug(text): (page, slug(text)) for _, level, text in _outline(nested) if level}
    return found


def slug(heading: str) -> str:
    """Return the anchor of a heading, as mkdocs and GitHub name it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())
