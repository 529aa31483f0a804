"""The concepts page in headless Chromium: the first screen, the choices, and the explorer by keyboard."""

from pathlib import Path
from typing import TypedDict

import pytest

from tasks.report.concepts.results import ConceptResults
from tasks.report.pages import RunFacts
from tests.tasks.report.chromium import CHROMIUM, visit
from tests.tasks.report.concepts.test_concept_strips import mixed
from tests.tasks.report.site_pages import site_of

# Reads the first screen, then takes the last detector, moves the slider to the first snapshot, searches for a word and
# takes the last neuron that has it, as the keyboard would: by the values of the fields and their input events.
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(words.join(" "));
const widthOf = (element) => element.getBoundingClientRect().width;
const at = (id) => document.getElementById(id);
function put(field, value) {
  field.value = value;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
const shown = () => ({
  answer: document.querySelector(".lead.chosen").innerText,
  bars: at("holdings").getAttribute("aria-label"), plane: at("neurons").getAttribute("aria-label"),
  title: at("explorer-title").textContent,
});
addEventListener("load", () => setTimeout(() => {
  at("plane-section").closest("details").open = true;
  drawVisible();
  const box = at("holdings").getBoundingClientRect(), before = shown();
  put(at("held-2"), at("held-2").options[1].value);
  const other = shown(), followed = [at("plane-2").value, at("explorer-2").value];
  const slider = document.querySelector("input[type=range]"), last = slider.nextElementSibling.value;
  const plane = at("neurons").getAttribute("aria-label");
  put(slider, 0);
  put(at("explorer-search"), "dog");
  const found = [...at("explorer-neuron").options].map((option) => Number(option.value));
  put(at("explorer-neuron"), found.at(-1));
  const rows = [...at("explorer-rows").rows].map((row) => row.cells[0].textContent);
  const words = [...at("explorer-rows").querySelectorAll(".name")].map((name) => name.textContent);
  const seen = {
    count: at("explorer-count").value, when: at("explorer-when").textContent, title: at("explorer-title").textContent,
    thumbs: [...at("explorer-images").querySelectorAll("use")].map(widthOf),
  };
  put(at("explorer-search"), "no such word");
  const nothing = [at("explorer-title").textContent, at("explorer-neuron").length, at("explorer-rows").rows.length];
  at("neurons").emit("plotly_click", { points: [{ customdata: 1 }] });
  const clicked = at("explorer-title").textContent;
  for (const details of document.querySelectorAll("details")) details.open = true;
  setTimeout(() => parent.postMessage({
    page: location.pathname.split("/").at(-1), width: innerWidth, problems,
    top: box.top, bottom: box.bottom, before, other, followed, last, first: slider.nextElementSibling.value,
    moved: at("neurons").getAttribute("aria-label") !== plane, found, rows, words, seen, nothing, clicked,
    overflow: document.documentElement.scrollWidth - innerWidth,
    drawn: [...document.querySelectorAll(".plot .main-svg:first-child")].map(widthOf),
    reached: [...document.querySelectorAll("main select, main input")]
      .every((field) => field.tabIndex === 0 && field.labels.length === 1),
  }, "*"), 500);
}, 300));
</script>"""

# Takes a network of one snapshot, and the trained one again; reads the widths of what then stands next to the bars.
PICTURES = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
const widthOf = (element) => element.getBoundingClientRect().width;
const nextToBars = () => ({
  course: widthOf(document.getElementById("course")),
  thumbs: [...document.querySelectorAll(".held-words .thumb")].map(widthOf).filter((width) => width > 0),
});
function take(network) {
  const field = document.getElementById("held-0");
  field.value = network;
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
addEventListener("load", () => setTimeout(() => {
  const trained = nextToBars();
  take("left");
  const given = nextToBars();
  take("trained");
  const fold = document.getElementById("comparison").closest("details"), box = fold.querySelector(".table .scroll");
  fold.open = true;
  parent.postMessage({
    page: location.pathname.split("/").at(-1), width: innerWidth, problems, trained, given, again: nextToBars(),
    overflow: document.documentElement.scrollWidth - innerWidth,
    cut: box.scrollWidth - box.clientWidth, box: box.getBoundingClientRect().right,
  }, "*");
}, 300));
</script>"""


class State(TypedDict):
    """What the page shows: the first sentence, the two figures in words, the explorer's title."""

    answer: str
    bars: str
    plane: str
    title: str


class Neuron(TypedDict):
    """What the explorer shows of a neuron."""

    count: str
    when: str
    title: str
    thumbs: list[float]


class Seen(TypedDict):
    """What the probe saw of the page, before and after each choice."""

    page: str
    width: int
    problems: list[str]
    top: float
    bottom: float
    before: State
    other: State
    followed: list[str]
    last: str
    first: str
    moved: bool
    found: list[int]
    rows: list[str]
    words: list[str]
    seen: Neuron
    nothing: list[str | int]
    clicked: str
    overflow: float
    drawn: list[float]
    reached: bool


class Neighbours(TypedDict):
    """What stands next to the bars: the width of the course, 0 hidden, and of the thumbnails that are shown."""

    course: float
    thumbs: list[float]


class Pictured(TypedDict):
    """What the probe saw of a page with a trained network and networks of one snapshot."""

    page: str
    width: int
    problems: list[str]
    trained: Neighbours
    given: Neighbours
    again: Neighbours
    overflow: float
    cut: float
    box: float


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_the_first_screen_the_choices_and_the_explorer(
    facts: RunFacts, concepts: ConceptResults, tmp_path: Path
) -> None:
    for path, content in site_of(facts, concepts).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    seen: list[Seen]
    seen, console = visit(tmp_path, [("concepts.html", 1280), ("concepts.html", 390)], PROBE)
    assert console == ""
    assert [each["width"] for each in seen] == [1280, 390]
    words = concepts.words[(concepts.words["detector"] == "network-dissection") & (concepts.words["layer"] == "conv3")]
    dogs = sorted({int(n) for n in words.loc[words["word"] == "dog", "neuron"]})
    expected = words[words["neuron"] == dogs[-1]].sort_values(["snapshot", "rank"])["word"].tolist()
    for each in seen:
        assert each["problems"] == []
        assert each["overflow"] <= 0
        assert 0 < each["top"] < each["bottom"] <= 800  # the whole first figure is on the first screen
        assert len(each["drawn"]) == 5
        assert all(0 < width <= each["width"] for width in each["drawn"])
        assert each["reached"]
        assert all(each["other"][name] != each["before"][name] for name in ("answer", "bars", "plane", "title"))
        assert each["followed"] == ["network-dissection"] * 2
        assert (each["last"], each["first"], each["moved"]) == ("step 600", "step 0", True)
        assert each["found"] == dogs
        assert each["seen"]["count"] == f"({len(dogs)} of 24)"
        assert each["seen"]["title"] == f"Neuron {dogs[-1]} of conv3, small, seed 0, network-dissection"
        assert each["seen"]["thumbs"] == [72] * 4
        assert each["rows"] == [f"step {step}" for step in (0, 20, 60, 120, 300, 600)]
        assert [word.removeprefix("✓ ") for word in each["words"]] == expected
        assert each["nothing"] == ["No neuron has this word", 0, 0]
        assert each["clicked"] == "Neuron 1 of conv3, small, seed 0, network-dissection"


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_pictures_take_the_place_of_the_course_where_there_is_one_snapshot(facts: RunFacts, tmp_path: Path) -> None:
    for path, content in site_of(facts, mixed()).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    seen: list[Pictured]
    seen, console = visit(tmp_path, [("concepts.html", 1280), ("concepts.html", 390)], PICTURES)
    assert console == ""
    assert [each["width"] for each in seen] == [1280, 390]
    for each in seen:
        assert each["problems"] == []
        assert each["overflow"] <= 0
        assert each["trained"] == each["again"]
        assert each["trained"]["course"] > 200
        assert each["trained"]["thumbs"] == []
        assert each["given"]["course"] == 0
        assert each["given"]["thumbs"] == [72] * 24
        assert each["box"] <= each["width"]
    assert seen[0]["cut"] <= 0  # the comparison of the detectors is whole at 1280
