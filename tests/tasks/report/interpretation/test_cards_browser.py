"""The cards in headless Chromium: the first screen, the choices by keyboard, desktop and phone."""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import pytest

from tasks.report.interpretation.results import InterpretationResults
from tasks.report.pages import RunFacts
from tests.tasks.report.chromium import CHROMIUM, visit
from tests.tasks.report.interpretation.card_tables import invented_cards
from tests.tasks.report.site_pages import site_of

# Reads the cards, then takes another selector, another class and another interpreter by the values of the fields.
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(words.join(" "));
const at = (id) => document.getElementById(id);
function put(name, value) {
  at("cards-" + name).value = value;
  at("cards-" + name).dispatchEvent(new Event("input", { bubbles: true }));
}
const texts = (selector) => [...document.querySelectorAll("#cards " + selector)].map((each) => each.textContent);
const now = () => ({
  line: at("cards-line").textContent, names: texts(".feature h3"), ties: texts(".tie"), layers: texts(".layer"),
  places: [...new Set(texts(".place"))],
  fields: ["class", "interpreter", "selector", "budget"].map((name) => at("cards-" + name).value),
});
addEventListener("load", () => setTimeout(() => {
  const first = now(), cards = [...document.querySelectorAll(".feature")].map((card) => card.getBoundingClientRect());
  const thumbs = [...document.querySelectorAll(".feature svg")].map((svg) => svg.getBoundingClientRect());
  const frame = document.querySelector(".feature svg rect").getBoundingClientRect();
  const alts = [...document.querySelectorAll(".feature svg")].map((svg) => svg.getAttribute("aria-label"));
  put("selector", "moderate");
  const moderate = now();
  put("class", at("cards-class").options[1].value);
  const other = now();
  put("interpreter", "vebi");
  const units = now();
  const closed = [...at("cards-selector").options].map((option) => option.disabled);
  for (const details of document.querySelectorAll("details")) details.open = true;
  setTimeout(() => parent.postMessage({
    page: location.pathname.split("/").at(-1), width: innerWidth, problems, first, moderate, other, units, closed, alts,
    bottom: Math.min(...cards.map((box) => box.bottom)),
    thumb: [thumbs[0].width, thumbs[0].height],
    frame: ["x", "y"].map((side) => frame[side] - thumbs[0][side]).concat([frame.width, frame.height]),
    overflow: document.documentElement.scrollWidth - innerWidth,
    hidden: at("cards-network").offsetParent === null,
    reached: [...document.querySelectorAll("#cards select")]
      .every((field) => field.tabIndex === 0 && field.labels.length === 1),
  }, "*"), 200);
}, 300));
</script>"""


class State(TypedDict):
    """What the cards say at a moment."""

    line: str
    names: list[str]
    ties: list[str]
    layers: list[str]
    places: list[str]
    fields: list[str]


class Seen(TypedDict):
    """What the probe saw."""

    page: str
    width: int
    problems: list[str]
    first: State
    moderate: State
    other: State
    units: State
    closed: list[bool]
    alts: list[str]
    bottom: float
    thumb: list[float]
    frame: list[float]
    overflow: int
    hidden: bool
    reached: bool


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_choices_change_the_cards(facts: RunFacts, page: InterpretationResults, tmp_path: Path) -> None:
    for path, content in site_of(facts, replace(page, cards=invented_cards())).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    seen: list[Seen]
    seen, console = visit(tmp_path, [("interpretation.html", 1280), ("interpretation.html", 390)], PROBE)
    assert console == ""
    assert [each["width"] for each in seen] == [1280, 390]
    for each in seen:
        assert each["problems"] == []
        assert each["overflow"] <= 0
        assert each["reached"]
        assert each["hidden"]  # there is one network
        assert each["bottom"] < 800  # a whole card is on the first screen
        first = each["first"]
        assert first["fields"] == ["0 zero", "ice", "random", "10\u00a0%"]
        assert first["names"] == ["component 2", "component 0", "component 1"]
        assert first["ties"] == ["✓ component 2, 30°", "✓ component 1, 12°", "component 0, 31°"]
        assert first["places"] == ["all data", "random 10\u00a0%"]
        assert "shows 2 of these" in first["line"]
        assert each["alts"][0] == "sample 120: framed where component 2 of all data responds"
        assert len(each["alts"]) == 3 * 2 * 2
        width, height = each["thumb"]
        assert height == pytest.approx(2 * width, rel=0.02)  # 4 x 8 pixels
        assert each["frame"] == pytest.approx([width / 4, 0, width / 2, height / 2], abs=1.5)
        assert each["moderate"]["fields"] == ["0 zero", "ice", "moderate", "10\u00a0%"]
        assert each["moderate"]["ties"] == ["component 0, 60°", "component 2, 80°", "component 1, 70°"]
        assert "shows 0 of these" in each["moderate"]["line"]
        assert each["other"]["fields"] == ["1 <b>one</b>", "ice", "moderate", "10\u00a0%"]
        assert "“<b>one</b>”" in each["other"]["line"]
        units = each["units"]  # the class stays; vebi has coresets of random alone
        assert units["fields"] == ["1 <b>one</b>", "vebi", "random", "10\u00a0%"]
        assert units["layers"] == [
            "ReLU 2 of 12",
            "ReLU 10 of 12",
            "Only random 10\u00a0% finds these",
            "ReLU 10 of 12",
        ]
        assert units["names"] == ["ReLU 2 of 12, channel 1", "ReLU 10 of 12, channel 3", "ReLU 10 of 12, channel 5"]
        assert units["ties"] == ["not found", "✓ the same unit"]
        assert each["closed"] == [False, True]
