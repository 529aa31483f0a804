"""The opening of the decomposition page in headless Chromium: the first screen, a selected feature, many classes."""

from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest

from tasks.report.pages import RunFacts
from tests.tasks.report.chromium import CHROMIUM, visit
from tests.tasks.report.decomposition.decomposition_features import invented_images, sample_id
from tests.tasks.report.decomposition.decomposition_tables import Decompositions
from tests.tasks.report.site_pages import site_of

# Reads the first screen, selects the second feature by keyboard, shows its classes only, closes by Escape, searches a
# class and a feature, takes the last block of classes, then the other network.
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(words.join(" "));
const find = (name) => document.getElementById("deciders-" + name);
const rows = () => [...find("classes").children];
const names = () => rows().map((row) => row.querySelector("h3").textContent);
const pressed = () => [...document.querySelectorAll("button.feature[aria-pressed=true] b")].map((b) => b.textContent);
const set = (name, value) => {
  find(name).value = value;
  find(name).dispatchEvent(new Event("input", { bubbles: true }));
};
addEventListener("load", () => setTimeout(() => {
  const card = rows()[0].querySelector(".features li"), box = card.getBoundingClientRect();
  const seen = {
    page: location.pathname.split("/").at(-1), width: innerWidth, problems,
    height: document.documentElement.scrollHeight, overflow: document.documentElement.scrollWidth - innerWidth,
    answer: find("answer").textContent, bottom: box.bottom, shown: names(), card: card.innerText.split("\\n"),
    alts: [...card.querySelectorAll("svg")].map((svg) => svg.getAttribute("aria-label")),
    drawn: [...card.querySelectorAll("use")].map((use) => use.getBoundingClientRect().width),
    boxes: card.querySelectorAll("rect.box").length, spilled: [...document.querySelectorAll(".features li")]
      .filter((li) => li.getBoundingClientRect().right > innerWidth).length,
  };
  const button = rows()[0].querySelectorAll("button.feature")[1];
  button.focus();
  seen.reached = document.activeElement === button;
  button.click();
  seen.selected = [...new Set(pressed())];
  seen.uses = rows().filter((row) => row.classList.contains("uses")).map((row) => row.querySelector("h3").textContent);
  seen.said = find("chosen").querySelector("p").textContent;
  seen.inPanel = [...find("chosen").querySelectorAll("li")].map((li) => li.textContent);
  find("chosen").querySelector("button").click();
  seen.only = names();
  button.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  find("chosen").closest("#deciders").dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
  seen.closed = [find("chosen").hidden, pressed().length, names().length];
  set("search", "CLASS 44");
  seen.found = names();
  set("search", "feature " + seen.selected[0].slice(8));
  seen.users = names();
  set("search", "");
  set("block", "2");
  seen.last = names();
  set("network", "1");
  seen.other = [find("answer").textContent, names()[0], names().length];
  parent.postMessage(seen, "*");
}, 300));
</script>"""


class Seen(TypedDict):
    """What the probe saw of the page, in the order of its steps."""

    page: str
    width: int
    problems: list[str]
    height: float
    overflow: float
    answer: str
    bottom: float
    shown: list[str]
    card: list[str]
    alts: list[str]
    drawn: list[float]
    boxes: int
    spilled: int
    reached: bool
    selected: list[str]
    uses: list[str]
    said: str
    inPanel: list[str]
    only: list[str]
    closed: list[object]
    found: list[str]
    users: list[str]
    last: list[str]
    other: list[object]


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_the_first_screen_a_selected_feature_and_many_classes(
    facts: RunFacts, build_decomposition: Decompositions, tmp_path: Path
) -> None:
    classes = tuple(f"class {i}" for i in range(45))
    page = build_decomposition(classes, (("one", "m", 20), ("two", "m", 56)), n_maps=0)
    sets = {n: rows["feature"].to_numpy(np.int64).reshape(45, 5) for n, rows in page.features.groupby("network")}
    images = [invented_images({"network": name}, classes, own, 8, limit=64) for name, own in sets.items()]
    page = replace(page, top_images=tuple(images))
    for path, content in site_of(facts, page).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    seen: list[Seen]
    seen, console = visit(tmp_path, [("decomposition.html", 1280), ("decomposition.html", 390)], PROBE)
    assert console == ""
    assert [each["width"] for each in seen] == [1280, 390]
    own = page.features[page.features["network"] == "one"]
    first, second = (own[(own["label"] == 0) & (own["rank"] == rank)].iloc[0] for rank in (1, 2))
    users = own[own["feature"] == second["feature"]]
    names = users["class_name"].tolist()
    number = int(first["feature"])
    images_of = [f"image {sample_id(number, i)}, class {classes[number % 45]}, value {9 - i}.00" for i in range(4)]
    alts = [f"{image}; outlined: where the feature is active" for image in images_of]
    for each in seen:
        assert each["problems"] == []
        assert (each["overflow"] <= 0, each["spilled"]) == (True, 0)
        assert each["bottom"] <= 800  # a whole card is on the first screen
        assert each["answer"].startswith("5 of 64 features decide each class")
        assert each["shown"] == list(classes[:20])
        assert each["card"][0].startswith(f"feature {first['feature']}")
        assert "for +0.500" in " ".join(each["card"])
        assert "top 5 in 100\u00a0% of images" in each["card"]
        assert (each["alts"], each["boxes"]) == (alts, 4)
        assert len(each["drawn"]) == 4
        assert all(30 <= width <= 60 for width in each["drawn"])
        assert len(each["inPanel"]) == 4
        assert each["inPanel"][0].endswith(f"value 9.00image {sample_id(int(second['feature']), 0)}")
        assert each["reached"]
        assert each["selected"] == [f"feature {second['feature']}"]
        assert each["uses"] == [name for name in names if name in classes[:20]]
        assert each["said"].startswith(
            f"Feature {second['feature']} is used by {len(names)} of 45 classes: class 0 (rank 2)"
        )
        assert each["only"] == names
        assert each["closed"] == [True, 0, 20]
        assert each["found"] == ["class 44"]
        assert each["users"] == names
        assert each["last"] == list(classes[40:])
        assert str(each["other"][0]).startswith("5 of 64 features decide each class")
        assert each["other"][0] != each["answer"]
        assert each["other"][1:] == ["class 0", 20]
