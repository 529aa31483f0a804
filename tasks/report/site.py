"""The report as files: a static site that needs no server and no network."""

from importlib.resources import files

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from tasks.figures.interactive import training_views
from tasks.report import tables
from tasks.report.blocks import FigureBlock
from tasks.report.interpretation import InterpretationContent, interpretation_content
from tasks.report.pages import InterpretationPage, RunFacts

TRAINING_IMAGES = {
    "show": "may be shown; this report shows validation images only",
    "ids": "by sample id only; no training image is in this report",
    "none": "none leaves the store; no training image is in this report",
}


def render_site(facts: RunFacts, interpretation: InterpretationPage | None = None) -> dict[str, bytes]:
    """Render the report of a run.

    Parameters
    ----------
    facts : what ran
    interpretation : results of the interpretation question, None where it was not asked

    Returns
    -------
    content by path relative to the site's folder; `index.html` is where to begin
    """
    content = None if interpretation is None else interpretation_content(interpretation, facts)
    pages = [("index.html", "Overview")]
    if content is not None:
        pages.append(("interpretation.html", "Interpretation"))
    common = {"facts": facts, "pages": pages, "training_images": TRAINING_IMAGES.get(facts.training_images, "")}
    environment = _environment()
    curves = _curves(facts)
    overview = common | {
        "here": "index.html",
        "stages": tables.stage_table(facts.stages),
        "cost": tables.cost_table(facts.stages),
        "curves": curves,
        "interpretation": content,
        "has_figures": curves is not None,
    }
    site = {"index.html": _page(environment, "overview.html.j2", overview)}
    if content is not None:
        here = common | {"here": "interpretation.html", "content": content, "has_figures": bool(content.sections)}
        site["interpretation.html"] = _page(environment, "interpretation.html.j2", here)
    return site | _data(facts, content) | _assets()


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


def _data(facts: RunFacts, content: InterpretationContent | None) -> dict[str, bytes]:
    """The tables behind the pages, as CSV."""
    frames: dict[str, pd.DataFrame] = {"data/stages.csv": facts.stages}
    if facts.curves is not None:
        frames["data/curves.csv"] = facts.curves
    if content is not None:
        frames |= content.csv
    return {path: frame.to_csv(index=False, lineterminator="\n").encode() for path, frame in frames.items()}


def _assets() -> dict[str, bytes]:
    """Style, script and plotly.js, which all pages share."""
    templates = files("tasks.report") / "templates"
    own = {f"assets/{name}": (templates / name).read_bytes() for name in ("style.css", "site.js")}
    return own | {"assets/plotly.min.js": str(get_plotlyjs()).encode()}
