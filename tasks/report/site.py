"""The report as files: a static site that needs no server and no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from tasks.figures.overlay import unique_thumbnails
from tasks.figures.training_curves import training_views
from tasks.report import tables
from tasks.report.blocks import FigureBlock
from tasks.report.cautions import shortened
from tasks.report.cells import Table
from tasks.report.findings import Finding
from tasks.report.measures import PATH, compare, figures_table, joined
from tasks.report.opening import Opening
from tasks.report.pages import Page, RunFacts

TRAINING_IMAGES = {
    "show": "may be shown",
    "ids": "by sample id only; this report has no training image",
    "none": "they stay in the store; this report has neither training images nor their ids",
}


@dataclass(frozen=True)
class OverviewCard:
    """A page's card on the overview: its question, the answer with a picture, and the findings behind it."""

    path: str
    question: str
    opening: Opening
    sections: tuple[tuple[str, list[Finding]], ...]


def render_site(facts: RunFacts, pages: Sequence[Page], questions: Mapping[str, str]) -> dict[str, bytes]:
    """Render the report of a run.

    Parameters
    ----------
    facts : what ran
    pages : a page per question that was asked, in the order of the navigation
    questions : each question as people ask it, by name of its page

    Returns
    -------
    content by path relative to the site's folder; `index.html` is where to begin
    """
    environment = _environment()
    common = _frame(facts, [page.name for page in pages]) | {"cost": tables.cost_table(facts.stages)}
    site = {"index.html": _render(environment, "overview.html.j2", common | _overview(facts, pages, questions))}
    for page in pages:
        path, question = f"{page.name}.html", questions[page.name]
        here = {"here": path, "question": question, "content": page.content, "has_figures": page.has_figures}
        here["opening"] = page.opening
        site[path] = _render(environment, page.template, common | here)
        site |= page.scripts
    return site | _data(facts, pages) | _assets()


def render_next_to(facts: RunFacts, pages: Sequence[str], template: str, context: dict[str, object]) -> bytes:
    """Render a page that lies next to those of a run's report and leads to them.

    Parameters
    ----------
    pages : names of the report's pages
    template : path of its template below tasks/report
    context : what the template shows: `here`, `has_figures`, `content`
    """
    return _render(_environment(), template, _frame(facts, pages) | context)


def _frame(facts: RunFacts, pages: Sequence[str]) -> dict[str, object]:
    """Return what all pages of a run share."""
    return {
        "facts": facts,
        "pages": [("index.html", "Overview"), *((f"{name}.html", name.capitalize()) for name in pages)],
        "training_images": TRAINING_IMAGES.get(facts.training_images, ""),
    }


def _overview(facts: RunFacts, pages: Sequence[Page], questions: Mapping[str, str]) -> dict[str, object]:
    """Return what the overview shows."""
    curves = _curves(facts)
    return {
        "here": "index.html",
        "stages": tables.stage_table(facts.stages),
        "curves": curves,
        "answers": [
            OverviewCard(f"{page.name}.html", questions[page.name], page.opening, page.sections) for page in pages
        ],
        "figures": _figures(pages),
        "warnings": shortened(text for page in pages for text in page.opening.warnings),
        "thumbnails": unique_thumbnails(picture.thumbnail for page in pages for picture in page.opening.pictures),
        "networks": [page.networks for page in pages],
        "has_figures": curves is not None,
    }


def _figures(pages: Sequence[Page]) -> Table | None:
    """Return the main figures of the networks side by side, None where there is only one network and seed."""
    measured = joined([page.measures for page in pages])
    if len(measured[["network", "seed"]].drop_duplicates()) < 2:
        return None
    return figures_table(*compare({"": measured}), csv=PATH)


def _environment() -> Environment:
    """Return the shared templates and, by folder, those of the questions; everything they print is escaped."""
    loader = ChoiceLoader([PackageLoader("tasks.report"), PackageLoader("tasks.report", "")])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _render(environment: Environment, template: str, context: dict[str, object]) -> bytes:
    """Render one page."""
    return environment.get_template(template).render(context).encode()


def _curves(facts: RunFacts) -> FigureBlock | None:
    """Return the figure of the training curves."""
    if facts.curves is None or facts.curves.empty:
        return None
    caption = "Training: accuracy and loss after each epoch."
    return FigureBlock("curves", "Training", caption, training_views(facts.curves), None)


def _data(facts: RunFacts, pages: Sequence[Page]) -> dict[str, bytes]:
    """Return the tables behind the pages, as CSV."""
    frames: dict[str, pd.DataFrame] = {"data/stages.csv": facts.stages, PATH: joined([page.measures for page in pages])}
    if facts.curves is not None:
        frames["data/curves.csv"] = facts.curves
    for page in pages:
        frames.update(page.csv)
    return {path: frame.to_csv(index=False, lineterminator="\n").encode() for path, frame in frames.items()}


def _assets() -> dict[str, bytes]:
    """Return style, scripts and plotly.js."""
    from plotly.offline import get_plotlyjs

    templates = files("tasks.report") / "templates"
    assets = {f"assets/{name}": (templates / name).read_bytes() for name in ("style.css", "site.js", "deciders.js")}
    return assets | {"assets/plotly.min.js": str(get_plotlyjs()).encode()}
