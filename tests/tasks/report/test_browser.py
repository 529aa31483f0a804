"""The pages in headless Chromium, at desktop and phone width: drawn, without errors, without sideways scrolling."""

from pathlib import Path
from typing import TypedDict

import pytest

from tasks.report.decomposition.results import DecompositionResults
from tasks.report.interpretation.results import InterpretationResults
from tasks.report.pages import RunFacts
from tasks.report.tracing.results import TracingResults
from tests.tasks.report.chromium import CHROMIUM, visit
from tests.tasks.report.site_pages import site_of

# Runs in the page: collects errors from the start, then opens everything, switches each figure to another view and the
# queries to the last, and reports to the page around it what it saw of the visible figures.
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(words.join(" "));
addEventListener("load", () => setTimeout(() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const before = new Map();
  for (const plot of document.querySelectorAll(".plot")) before.set(plot, plot.getAttribute("aria-label"));
  for (const views of document.querySelectorAll(".views")) {
    if (views.offsetParent) [...views.querySelectorAll("input")].filter((input) => !input.checked).at(-1).click();
  }
  const plots = [...before.keys()].filter((plot) => plot.offsetParent);
  setTimeout(() => parent.postMessage({
    page: location.pathname.split("/").at(-1), width: innerWidth, problems,
    overflow: document.documentElement.scrollWidth - innerWidth,
    lines: plots.map((plot) => plot.querySelectorAll("g.trace.scatter").length),
    titles: plots.map((plot) => (plot.querySelector(".ytitle") ?? plot.querySelector(".xtitle")).textContent),
    widths: plots.map((plot) => plot.querySelector(".main-svg").getBoundingClientRect().width),
    changed: plots.filter((plot) => plot.closest(".switch").querySelectorAll("input").length > 1)
      .map((plot) => plot.getAttribute("aria-label") !== before.get(plot)),
    maps: document.querySelectorAll(".heatmaplayer image").length,
    bars: document.querySelectorAll(".barlayer .trace").length,
    spilled: plots.flatMap((plot) => [...plot.querySelectorAll("text")].map((text) => text.getBoundingClientRect())
      .filter((box) => box.width && (box.left < 0 || box.right > innerWidth)).map((box) => Math.round(box.right))),
    cards: [...document.querySelectorAll(".card")].map((card) => card.offsetParent !== null),
    layers: [...document.querySelectorAll(".card .panel.chosen code")].map((code) => code.textContent),
    thumbs: [...document.querySelectorAll("svg.thumb use")].map((use) => use.getBoundingClientRect().width)
      .filter((width) => width),
  }, "*"), 500);
}, 200));
</script>"""


class Seen(TypedDict):
    """What the probe reports of a page; per visible figure: lines, axis title, width, whether its text changed."""

    page: str
    width: int
    problems: list[str]
    overflow: float
    lines: list[int]
    titles: list[str]
    widths: list[float]
    changed: list[bool]
    maps: int
    bars: int
    spilled: list[float]
    cards: list[bool]
    layers: list[str]
    thumbs: list[float]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_pages_draw_without_errors_and_fit_desktop_and_phone(
    facts: RunFacts,
    page: InterpretationResults,
    tracing: TracingResults,
    decomposition: DecompositionResults,
    tmp_path: Path,
) -> None:
    for path, content in site_of(facts, page, decomposition, tracing).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    names = ("decomposition.html", "index.html", "interpretation.html", "tracing.html")
    pages = [(name, width) for name in names for width in (1280, 390)]
    seen: list[Seen]
    seen, console = visit(tmp_path, pages, PROBE)
    assert [(each["page"], each["width"]) for each in seen] == pages
    assert console == ""
    for each in seen:
        assert each["problems"] == []
        assert each["overflow"] <= 0, each
        assert all(each["changed"])
        assert each["spilled"] == []
        assert all(0 < width <= each["width"] for width in each["widths"])
    for each in seen[:2]:  # the last view of each figure of two networks, and depth before them
        assert each["lines"] == [1, *2 * [0, 1, 1, 2, 4, 3, 0, 0]]
        assert (each["maps"], each["bars"]) == (4, 2 * (1 + 3 + 2))
        assert each["titles"][:3] == ["accuracy A_d (%)", "k2, kept for each class", "accuracy (%)"]
        assert each["thumbs"][-16:] == [96] * 2 * 2 * 4  # of the feature maps, after the small ones of the cards
        assert all(30 < width < 60 for width in each["thumbs"][:-16])
    seen = seen[2:]
    drawn = [each["lines"] for each in seen[:4]]
    assert drawn == [[1], [1], [5, 3], [5, 3]]  # band, two selectors, null and its half
    assert seen[2]["titles"] == ["shape distance Φ (rad)", "agreement with the unmodified network (%)"]
    assert seen[3]["thumbs"] == [96] * 6  # each refers to an image that is drawn, enlarged
    for each in seen[4:]:
        assert each["lines"][:2] == [3, 2]  # ridges of three classes; agreement @1 and @10
        assert each["titles"][:2] == ["step cosine", "class agreement (%)"]
        assert each["cards"] == [False, False, True]
        assert each["layers"] == ["conv2"] * 3  # chosen in one query, shown in all
        first = 144 if each["width"] > 390 else 88  # the query on the first screen; its card has it again
        *strips, small, large = sorted(each["thumbs"])
        assert [small, large] == sorted([96, first])
        assert len(strips) >= 8  # both strips of one panel, with those of the first screen
        assert all(width == 64 if each["width"] > 390 else 30 < width <= 64 for width in strips[-8:])
