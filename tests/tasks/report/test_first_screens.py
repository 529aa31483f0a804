"""Every page in headless Chromium: the answer and a picture on the first screen, nothing cut off, short enough."""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import pytest

from tasks.report.concepts.results import ConceptResults
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.pages import RunFacts
from tasks.report.tracing.results import TracingResults
from tests.tasks.report.chromium import CHROMIUM, visit
from tests.tasks.report.interpretation.card_tables import invented_cards
from tests.tasks.report.site_pages import site_of

HEIGHTS = {1280: 800, 390: 844}  # pixels of the first screen, by width
PAGES = ("index.html", "interpretation.html", "decomposition.html", "concepts.html", "tracing.html")
# Looks at the first screen, then opens all that is folded and looks for what is cut off.
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(words.join(" "));
addEventListener("load", () => setTimeout(() => {
  const box = (element) => element.getBoundingClientRect();
  const visible = (element) => element.getClientRects().length > 0 && box(element).height > 20;
  const drawn = "main .plot .main-svg, main svg.thumb, main canvas, main img, main .bars .bar, main .chances .bar";
  const pictures = [...document.querySelectorAll(drawn)]
    .filter((each) => each.getClientRects().length && box(each).height > 8);
  const lead = [...document.querySelectorAll("main .lead")].find(visible);
  const seen = {
    page: location.pathname.split("/").at(-1), width: innerWidth, problems,
    picture: Math.min(...pictures.map((each) => box(each).top + Math.min(box(each).height, 40))),
    answer: box(lead).bottom, words: lead.innerText, question: document.querySelector("h1").innerText,
    height: document.documentElement.scrollHeight,
    plotly: [...document.scripts].filter((each) => each.src.includes("plotly")).map((each) => each.getAttribute("src")),
    links: [...document.querySelectorAll("a[href^='#']")]
      .filter((each) => !document.getElementById(each.hash.slice(1))).map((each) => each.hash),
    folds: document.querySelectorAll("main details:not([open]) > summary").length,
  };
  const target = document.querySelector("main details.fold:not([open])");
  if (target) location.hash = target.querySelector("h2").id;
  setTimeout(() => {
    seen.unfolded = !target || target.open;
    seen.reached = [...document.querySelectorAll("summary")].every((each) => each.tabIndex === 0);
    for (const details of document.querySelectorAll("details")) details.open = true;
    setTimeout(() => {
      seen.overflow = document.documentElement.scrollWidth - innerWidth;
      seen.cut = [...document.querySelectorAll("main .scroll")]
        .filter((each) => each.getClientRects().length && each.scrollWidth > each.clientWidth + 1)
        .map((each) => each.getAttribute("aria-label") + ": " + each.scrollWidth);
      parent.postMessage(seen, "*");
    }, 200);
  }, 200);
}, 400));
</script>"""


class Seen(TypedDict):
    """What the probe saw of a page."""

    page: str
    width: int
    problems: list[str]
    picture: float
    answer: float
    words: str
    question: str
    height: float
    plotly: list[str]
    links: list[str]
    folds: int
    unfolded: bool
    reached: bool
    overflow: float
    cut: list[str]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
@pytest.mark.parametrize("cards", [True, False])
def test_answer_and_picture_of_every_page_are_on_the_first_screen(
    facts: RunFacts,
    page: InterpretationResults,
    decomposition: DecompositionResults,
    concepts: ConceptResults,
    tracing: TracingResults,
    tmp_path: Path,
    *,
    cards: bool,
) -> None:
    interpreted = replace(page, cards=invented_cards()) if cards else page
    setting = facts if cards else replace(facts, training_images="none")
    for path, content in site_of(setting, interpreted, decomposition, concepts, tracing).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    pages = [(name, width) for name in sorted(PAGES) for width in HEIGHTS]
    seen: list[Seen]
    seen, console = visit(tmp_path, pages, PROBE)
    assert [(each["page"], each["width"]) for each in seen] == pages
    assert console == ""
    for each in seen:
        where = (each["page"], each["width"])
        assert each["problems"] == [], where
        assert each["picture"] < HEIGHTS[each["width"]], where
        assert each["answer"] < HEIGHTS[each["width"]], where
        assert each["question"].endswith("?"), where
        assert each["words"].endswith((".", ")")), where
        assert each["overflow"] <= 0, where
        assert each["cut"] == [], where
        assert each["links"] == [], where
        assert each["folds"] > 0, where
        assert each["unfolded"], where
        assert each["reached"], where
        assert each["height"] < 5000, where
        assert each["plotly"] == ["assets/plotly.min.js"], where  # the file that all pages of the site share
    assert len(list(tmp_path.rglob("plotly*.js"))) == 1


def test_plotly_is_one_file_of_the_site_and_in_no_page(
    facts: RunFacts,
    page: InterpretationResults,
    decomposition: DecompositionResults,
    concepts: ConceptResults,
    tracing: TracingResults,
) -> None:
    site = site_of(facts, page, decomposition, concepts, tracing)
    large = [path for path, data in site.items() if len(data) > 1_000_000]
    assert large == ["assets/plotly.min.js"]
    for name in PAGES:
        sources = [part.split(b'"')[0] for part in site[name].split(b'src="')[1:]]
        assert all(not source.startswith((b"/", b"http", b"file:")) for source in sources)  # so the site may be moved
