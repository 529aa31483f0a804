"""The pages in headless Chromium, at desktop and phone width: drawn, without errors, without sideways scrolling."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import TypedDict

import pytest

from tasks.report.pages import InterpretationPage, RunFacts
from tasks.report.site import render_site

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr", "--v=0"),
    "--virtual-time-budget=8000",
]

# Runs in the page: collects errors from the start, then opens everything, switches each figure to its last view, and
# tells the page around it what it saw.
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("unhandledrejection", (e) => problems.push(String(e.reason)));
for (const level of ["error", "warn"]) console[level] = (...words) => problems.push(words.join(" "));
addEventListener("load", () => setTimeout(() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const plots = [...document.querySelectorAll(".plot")];
  const before = plots.map((plot) => plot.getAttribute("aria-label"));
  for (const views of document.querySelectorAll(".views")) [...views.querySelectorAll("input")].at(-1).click();
  setTimeout(() => parent.postMessage({
    page: location.pathname.split("/").at(-1), width: innerWidth, problems,
    overflow: document.documentElement.scrollWidth - innerWidth,
    lines: plots.map((plot) => plot.querySelectorAll("g.trace.scatter").length),
    titles: plots.map((plot) => plot.querySelector(".ytitle").textContent),
    widths: plots.map((plot) => plot.querySelector(".main-svg").getBoundingClientRect().width),
    changed: plots.map((plot, i) => plot.getAttribute("aria-label") !== before[i]),
    thumbs: [...document.querySelectorAll("svg.thumb use")].map((use) => use.getBBox().width),
  }, "*"), 500);
}, 200));
</script>"""

# A window cannot be narrower than 500 pixels, a frame can.
FRAMES = """<!DOCTYPE html><pre id="seen"></pre><script>
const seen = [];
addEventListener("message", (e) => {
  seen.push(e.data);
  document.getElementById("seen").textContent = JSON.stringify(seen);
});
for (const [page, width] of FRAMES) {
  const frame = document.createElement("iframe");
  Object.assign(frame, { src: page, width, height: 900 });
  document.body.append(frame);
}
</script>"""


class Seen(TypedDict):
    """What the probe tells of a page; per figure: lines drawn, its axis title, its width, whether its text changed."""

    page: str
    width: int
    problems: list[str]
    overflow: float
    lines: list[int]
    titles: list[str]
    widths: list[float]
    changed: list[bool]
    thumbs: list[float]


def visit(folder: Path, pages: list[tuple[str, int]]) -> tuple[list[Seen], str]:
    """Open pages at the given widths; return what the probe saw, in order, and Chromium's console lines."""
    for name in {page for page, _ in pages}:
        page = folder / name
        page.write_text(page.read_text().replace("<head>", "<head>" + PROBE, 1))
    (folder / "frames.html").write_text(FRAMES.replace("FRAMES", json.dumps(pages)))
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1700,1000", "--dump-dom"]
    done = subprocess.run([*command, (folder / "frames.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr
    seen: list[Seen] = json.loads(html.unescape(found[1]) or "[]")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return sorted(seen, key=lambda each: (each["page"], -each["width"])), "\n".join(console)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_pages_draw_without_errors_and_fit_desktop_and_phone(
    facts: RunFacts, page: InterpretationPage, tmp_path: Path
) -> None:
    for path, content in render_site(facts, page).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    pages = [(name, width) for name in ("index.html", "interpretation.html") for width in (1280, 390)]
    seen, console = visit(tmp_path, pages)
    assert [(each["page"], each["width"]) for each in seen] == pages
    assert console == ""
    for each in seen:
        assert each["problems"] == []
        assert each["overflow"] <= 0, each
        assert all(each["changed"])
        assert all(0 < width <= each["width"] for width in each["widths"])
    assert [each["lines"] for each in seen] == [[1], [1], [5, 3], [5, 3]]  # band, two selectors, null and its half
    assert seen[2]["titles"] == ["shape distance Φ (rad)", "agreement with the unmodified network (%)"]
    assert seen[3]["thumbs"] == [96] * 6  # each refers to an image that is drawn, enlarged
