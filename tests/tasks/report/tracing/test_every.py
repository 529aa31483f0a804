"""The chooser of all queries: its data files, what privacy leaves of them, and the page in headless Chromium."""

import copy
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from storage.stages import open_finished
from tasks.figures.sheets import sheets
from tasks.report.formats import signed, signed_share
from tasks.report.tracing.every import lay_out_every
from tasks.steps.report import write_report
from tasks.steps.tracing.every import every_query
from tasks.steps.tracing.results import tracing_results
from tests.flows.test_explain_now import pixels
from tests.plans import traces
from tests.tasks.report.chromium import CHROMIUM, visit
from tests.tasks.steps.tracing.conftest import mlp_tree

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML
QUERIES = 30


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, new_run: Callable[[Tree], "Run"]) -> "Run":
    """A finished run of an MLP with more queries than the page has cards: not to be changed."""
    tree = mlp_tree(tmp_path_factory.mktemp("every") / "store")
    tree["data"]["digits"]["per_class"]["val"] = 3
    tree["tracing"] |= {"queries": {"count": QUERIES}, "bias": False}
    return new_run(tree).finish()


TITLES = ["1 · Linear 64 → 7", "3 · Linear 7 → 10, output"]  # of the layers 1 and 3


def report(run: "Run", images: str, store: Path, new_run: "Callable[[Tree], Run]") -> Path:
    """Write the report of a run with some privacy and return its folder."""
    made = new_run({**copy.deepcopy(run.at(str(store)).tree), "report": {"training_images": images}})
    write_report(made.job.store, made.plan.made(), created="today", reused=frozenset())
    return store / "reports" / made.config.name


def data_of(path: Path) -> Any:  # Any: JSON
    """Return what a data file hands over."""
    text = path.read_text()
    return json.loads("[" + text[text.index("(") + 1 : text.rindex(")")] + "]")[-1]


def test_every_query_is_in_a_data_file(run: "Run", tmp_path: Path, new_run: "Callable[[Tree], Run]") -> None:
    folder = report(run, "show", tmp_path / "copy", new_run)
    trace = traces(run.plan)[0]
    queries, influence = (open_finished(run.job.store, spec) for spec in (trace.queries, trace.influence))
    index = data_of(folder / "queries" / "index.js")
    ids = queries.read("sample_id").tolist()
    assert [row[:3] for row in index["queries"]] == [[0, i, sample] for i, sample in enumerate(ids)]
    assert [panel["name"] for panel in index["networks"][0]["panels"]] == [*TITLES, "logit"]
    blocks = [data_of(folder / "queries" / f"block-{i}.js") for i in range(2)]
    assert [len(block) for block in blocks] == [25, 5]
    with Image.open(folder / "queries" / "queries-0-0.png") as picture:
        shown = picture.copy()
    with Image.open(folder / "queries" / "examples-0.png") as picture:
        examples = np.asarray(picture)
    for query in (0, 24, 25, 29):
        for number, ranking in enumerate([("1", "gamma"), ("3", "gamma"), ("3", "logit")]):
            at = influence.summary["rankings"].index(list(ranking))
            top, sums = (influence.read(f"top_{part}")[at, query] for part in ("id", "sum"))
            whole = float(influence.read("reference")[at, query])
            listed = blocks[query // 25][query % 25][number][2]
            assert [item[0] for item in listed] == top[sums > 0].tolist()
            assert [item[4] for item in listed] == [signed(float(value)) for value in sums[sums > 0]]
            assert [item[3] for item in listed] == [signed_share(float(value) / whole) for value in sums[sums > 0]]
            assert all(item[1].endswith(str(item[0])) for item in listed)
    x, y, width, height = index["queries"][29][7][1:]
    np.testing.assert_array_equal(np.asarray(shown)[y : y + height, x : x + width, :3], queries.read("image")[29])
    sample, (_, x, y, width, height) = blocks[1][4][0][2][0][0], blocks[1][4][0][2][0][5]
    np.testing.assert_array_equal(examples[y : y + height, x : x + width, 0], pixels(sample))
    assert len(pd.read_csv(folder / "data" / "tracing_queries.csv")) == QUERIES


@pytest.mark.parametrize("images", ["ids", "none"])
def test_privacy_holds_for_every_query(
    run: "Run", tmp_path: Path, new_run: "Callable[[Tree], Run]", images: str
) -> None:
    folder = report(run, images, tmp_path / "copy", new_run)
    assert not list((folder / "queries").glob("examples-*"))
    panels = data_of(folder / "queries" / "index.js")["networks"][0]["panels"]
    block = data_of(folder / "queries" / "block-0.js")
    if images == "ids":
        assert all(len(item) == 5 for query in block for panel in query for end in panel[2:4] for item in end)
        return
    assert [panel["name"] for panel in panels] == TITLES  # of the logit there are only examples
    assert all(panel[2:4] == [[], []] and panel[4] for query in block for panel in query)
    (trace,) = traces(run.plan)
    for sample in open_finished(run.job.store, trace.influence).read("top_id")[0, 0].tolist():
        text = "".join(file.read_text() for file in (folder / "queries").glob("*.js"))
        assert f"/{sample}" + '"' not in text.replace(index_keys(folder), "")


def index_keys(folder: Path) -> str:
    """Return the data file with the queries' own keys, which are of the validation split."""
    return (folder / "queries" / "index.js").read_text()


def test_few_queries_need_no_chooser(run: "Run", traced_run: "Run") -> None:
    assert tracing_results(traced_run.job.store, traces(traced_run.plan), "show").every == ()
    assert lay_out_every((), {}) == (None, {})
    assert len(tracing_results(run.job.store, traces(run.plan), "show").every) == 1


def test_many_queries_name_fewer_examples(run: "Run", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.report.tracing.every.MAX_BYTES", QUERIES * 3 * 2 * 90 * 2)  # two at either end
    every, files = lay_out_every(every_query(run.job.store, traces(run.plan)), {})
    assert every is not None
    assert every.note == "2 examples at either end of each layer, to keep the files small."
    text = files["queries/block-0.js"].decode()
    block = json.loads(text[text.index(",") + 1 : text.rindex(")")])
    assert {len(end) for query in block for panel in query for end in panel[2:4]} <= {0, 1, 2}


def test_images_are_found_on_their_sheet() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in [(4, 6), (6, 3)] * 130]
    files, places = sheets(images, 6)
    assert [place[0] for place in places] == [0] * 256 + [1] * 4
    opened = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files]
    for image, (sheet, x, y, width, height) in zip(images, places, strict=True):
        np.testing.assert_array_equal(opened[sheet][y : y + height, x : x + width], image)
    assert sheets([], 6) == ([], [])


# Finds a query by its id, chooses it, then another layer, then the wrong ones.
PROBE = """<script>
const problems = [];
addEventListener("error", (e) => problems.push(String(e.message || e.target.src || e.target.href)), true);
addEventListener("load", () => setTimeout(() => {
  const at = (id) => document.getElementById("every-" + id);
  const texts = (query) => [...document.querySelectorAll(query)].map((e) => e.textContent);
  const put = (id, value) => { at(id).value = value; at(id).dispatchEvent(new Event("input", { bubbles: true })); };
  const all = at("count").textContent, first = at("list").children.length;
  at("more").click();
  const more = at("list").children.length;
  put("search", "SAMPLE");
  const found = texts("#every-list b");
  at("list").querySelector("button").click();
  setTimeout(() => {
    const title = at("card").querySelector("h3").textContent, select = at("card").querySelector("select");
    const strips = at("card").querySelectorAll(".strip li").length, layer = select.value;
    select.value = "logit";
    select.dispatchEvent(new Event("input"));
    const logit = texts("#every-card h4"), names = texts("#every-card .strip li:first-child .id");
    put("search", "");
    at("wrong").click();
    setTimeout(() => parent.postMessage({
      page: location.pathname.split("/").at(-1), width: innerWidth, problems, all, first, more, found, title, strips,
      layer, logit, names, wrong: texts("#every-list .wrong").length, listed: at("list").children.length,
      overflow: document.documentElement.scrollWidth - innerWidth,
      thumbs: [...document.querySelectorAll("#every-card .strip svg")].map((svg) => svg.getBoundingClientRect().width),
    }, "*"), 100);
  }, 500);
}, 500));
</script>"""


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_any_query_is_found_and_shown(run: "Run", tmp_path: Path, new_run: "Callable[[Tree], Run]") -> None:
    folder = report(run, "show", tmp_path / "copy", new_run)
    queries = open_finished(run.job.store, traces(run.plan)[0].queries)
    ids, wrong = queries.read("sample_id").tolist(), queries.read("logits").argmax(1) != queries.read("label")
    probe = PROBE.replace("SAMPLE", str(ids[27]))
    seen, console = visit(folder, [("tracing.html", 1280), ("tracing.html", 390)], probe)
    assert console == ""
    assert [each["width"] for each in seen] == [1280, 390]
    for each in seen:
        assert each["problems"] == []
        assert each["overflow"] <= 0
        assert each["all"] == f"{QUERIES} queries, the first 24 listed"
        assert (each["first"], each["more"]) == (24, QUERIES)
        assert "Query 27" in each["found"]
        assert each["title"].startswith("Query ")
        assert each["layer"] == TITLES[-1]
        assert 0 < each["strips"] <= 20
        assert each["logit"] == ["Raised most", "Lowered most"]
        assert each["names"][0].startswith("logit ")
        assert each["wrong"] == each["listed"] == min(24, int(wrong.sum()))
        assert set(each["thumbs"]) == {72}
