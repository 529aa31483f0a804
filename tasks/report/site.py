"""The report as files: a static site that needs no server and no network."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from tasks.figures.interactive import training_views
from tasks.report import tables
from tasks.report.blocks import FigureBlock
from tasks.report.decomposition.content import DecompositionContent, decomposition_content
from tasks.report.decomposition.page import DecompositionPage
from tasks.report.interpretation.content import InterpretationContent, interpretation_content
from tasks.report.interpretation.findings import Finding
from tasks.report.pages import InterpretationPage, RunFacts
from tasks.report.tracing.content import TracingContent, tracing_content
from tasks.report.tracing.page import TracingPage

Content = InterpretationContent | DecompositionContent | TracingContent
QUESTIONS = {
    "interpretation": "Which features does a network rely on, and how little data shows them?",
    "decomposition": "Which few features decide each class?",
    "tracing": "Who taught the network that?",
}
TRAINING_IMAGES = {
    "show": "may be shown",
    "ids": "by sample id only; no training image is in this report",
    "none": "none leaves the store; neither training images nor their ids are in this report",
}


@dataclass(frozen=True)
class Answer:
    """What the overview says of a page: its question, the answer in a line, and the findings behind it."""

    path: str
    question: str
    line: str
    sections: tuple[tuple[str, list[Finding]], ...]


def render_site(
    facts: RunFacts,
    interpretation: InterpretationPage | None = None,
    tracing: TracingPage | None = None,
    decomposition: DecompositionPage | None = None,
) -> dict[str, bytes]:
    """Render the report of a run.

    Parameters
    ----------
    facts : what ran; its `training_images` decides what of the training set may be in any file
    interpretation : results of the interpretation question, None where it was not asked
    tracing : results of the tracing question, None where it was not asked
    decomposition : results of the decomposition question, None where it was not asked

    Returns
    -------
    content by path relative to the site's folder; `index.html` is where to begin
    """
    contents: dict[str, Content] = {}
    if interpretation is not None:
        contents["interpretation"] = interpretation_content(interpretation, facts)
    if decomposition is not None:
        contents["decomposition"] = decomposition_content(decomposition, facts)
    if tracing is not None:
        contents["tracing"] = tracing_content(tracing, facts)
    pages = [("index.html", "Overview"), *((f"{name}.html", name.capitalize()) for name in contents)]
    common = {"facts": facts, "pages": pages, "training_images": TRAINING_IMAGES.get(facts.training_images, "")}
    environment = _environment()
    curves = _curves(facts)
    overview = common | {
        "here": "index.html",
        "stages": tables.stage_table(facts.stages),
        "cost": tables.cost_table(facts.stages),
        "curves": curves,
        "answers": [_answer(name, content) for name, content in contents.items()],
        "networks": [content.networks for content in contents.values()],
        "has_figures": curves is not None,
    }
    site = {"index.html": _page(environment, "overview.html.j2", overview)}
    for name, content in contents.items():
        here = common | {"here": f"{name}.html", "content": content, "has_figures": _has_figures(content)}
        site[f"{name}.html"] = _page(environment, f"{name}.html.j2", here)
    return site | _data(facts, contents.values()) | _assets()


def _has_figures(content: Content) -> bool:
    """Say whether plotly.js is needed: by a section, or by a query of a network without one."""
    return bool(content.sections) or (isinstance(content, TracingContent) and bool(content.cards))


def _answer(name: str, content: Content) -> Answer:
    """Return a page's card: the answer in a line is its first finding."""
    sections = tuple((section.title, section.findings) for section in content.sections)
    if isinstance(content, DecompositionContent) and content.across:
        sections += (("Networks together", content.across),)
    lines = [f"{title}: {findings[0].text}" for title, findings in sections if findings]
    return Answer(f"{name}.html", QUESTIONS[name], lines[0] if lines else "There is nothing to compare yet.", sections)


def _environment() -> Environment:
    """Templates of this package; everything they print is escaped."""
    loader = PackageLoader("tasks.report")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _page(environment: Environment, template: str, context: dict[str, object]) -> bytes:
    """Render one page."""
    return environment.get_template(template).render(context).encode()


def _curves(facts: RunFacts) -> FigureBlock | None:
    """The figure of the training curves."""
    if facts.curves is None or facts.curves.empty:
        return None
    caption = "Training: accuracy and loss after each epoch."
    return FigureBlock("curves", "Training", caption, training_views(facts.curves), None)


def _data(facts: RunFacts, contents: Iterable[Content]) -> dict[str, bytes]:
    """The tables behind the pages, as CSV."""
    frames: dict[str, pd.DataFrame] = {"data/stages.csv": facts.stages}
    if facts.curves is not None:
        frames["data/curves.csv"] = facts.curves
    for content in contents:
        frames |= content.csv
    return {path: frame.to_csv(index=False, lineterminator="\n").encode() for path, frame in frames.items()}


def _assets() -> dict[str, bytes]:
    """Style, script and plotly.js, which all pages share."""
    templates = files("tasks.report") / "templates"
    own = {f"assets/{name}": (templates / name).read_bytes() for name in ("style.css", "site.js")}
    return own | {"assets/plotly.min.js": str(get_plotlyjs()).encode()}
