"""The site as bytes: what is in it, and what never is."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from tasks.report.blocks import MAX_IMAGES
from tasks.report.decomposition.results import DecompositionResults
from tasks.report.formats import NBSP
from tasks.report.interpretation.gallery import MAX_COLUMNS
from tasks.report.interpretation.results import Gallery, GalleryRow, InterpretationResults
from tasks.report.pages import RunFacts
from tasks.report.tracing.results import TracingResults
from tests.tasks.report.site_pages import site_of

Classes = Callable[..., pd.DataFrame]
Build = Callable[..., InterpretationResults]
Pictures = Callable[..., Gallery]
Traces = Callable[..., TracingResults]

VOID = {"meta", "link", "input", "br", "image", "use"}


class Reader(HTMLParser):
    """Collects tags with their attributes and the text; checks that tags nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag without content."""
        self.tags.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """Close the innermost tag, which must be this one."""
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data.replace(NBSP, " ")

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def read(site: dict[str, bytes], path: str = "interpretation.html") -> Reader:
    """Parse one page."""
    return Reader(site[path].decode())


def test_numbers_of_the_tables_are_on_the_page(facts: RunFacts, page: InterpretationResults) -> None:
    text = read(site_of(facts, page)).text
    row = page.over_repeats.query("selector == 'random' and budget == 0.2").iloc[0]
    assert f"{row['phi_0_mean']:.3f} ± {row['phi_0_std']:.3f}" in text
    assert f"{100 * row['accuracy_mean']:.1f} ± {100 * row['accuracy_std']:.1f} %" in text
    robust = page.robustness.query("selector == 'moderate'").iloc[0]
    assert f"{robust['mean_0']:.3f}" in text
    assert "1 h 06 min" in text
    assert "sample 1001" in text
    assert "predicted 2 (wrong)" in text
    assert "97.5 %" in text


def test_overview_names_run_config_versions_and_setting(facts: RunFacts, page: InterpretationResults) -> None:
    text = read(site_of(replace(facts, training_images="ids"), page), "index.html").text
    for expected in ("2026-01-02 03:04 UTC", "name: digits\nstore: lore/", "torch 2.9.0", "by sample id only"):
        assert expected in text


def test_everything_is_escaped(
    facts: RunFacts, build_classes: Classes, build_page: Build, build_tracing: Traces
) -> None:
    evil = "</script><script>alert(1)</script>&\"'"
    classes = build_classes((evil, "b"), {evil: 2}, (0.1, 1.0), evil)
    image = np.zeros((4, 4, 3), np.uint8)
    gallery = Gallery(evil, (GalleryRow(image, 1, evil, evil, {evil: image}),))
    nasty = replace(facts, name=evil, created=evil, config_yaml=evil, store=evil, versions={evil: evil})
    nasty = replace(nasty, stages=facts.stages.assign(label=evil))
    tracing = build_tracing((evil, "b"), (evil, "fc"), 2)
    tables = ("networks", "layers", "shares", "evaluation")
    tracing = replace(tracing, **{name: getattr(tracing, name).assign(network=evil) for name in tables})
    tracing = replace(
        tracing,
        networks=tracing.networks.assign(model=evil, anchor=evil),
        evaluation=tracing.evaluation.assign(measure=evil, note=evil, baseline_name=evil),
        queries=tuple(replace(query, network=evil, split=evil, source=evil) for query in tracing.queries),
        held_out=((evil, evil),),
    )
    site = site_of(nasty, build_page(classes, (gallery,)), tracing)
    for path in ("index.html", "interpretation.html", "tracing.html"):
        assert b"<script>alert" not in site[path]
        assert evil in read(site, path).text
    none = site_of(replace(nasty, training_images="none"), tracing)
    assert b"<script>alert" not in none["tracing.html"]


def test_missing_values_are_dashes(facts: RunFacts, build_classes: Classes, build_page: Build) -> None:
    classes = build_classes(("a", "b"), {"random": 2}, (0.1, 0.5, 1.0))
    unknown = [name for name in classes.columns if name.startswith(("distance", "null", "accuracy", "agreement"))]
    site = site_of(facts, build_page(classes.assign(**dict.fromkeys(unknown, np.nan))))
    text = read(site).text
    assert "–" in text
    assert "no distance is known" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    assert b"NaN" not in site["interpretation.html"]


@pytest.mark.parametrize("budgets", [(0.1,), (1.0,), (0.01, 1.0)])
def test_one_class_one_selector_one_budget(
    facts: RunFacts, build_classes: Classes, build_page: Build, budgets: tuple[float, ...]
) -> None:
    reader = read(site_of(facts, build_page(build_classes(("only",), {"random": 1}, budgets))))
    assert "0 only" in reader.text
    assert "The config asks for no heat maps." in reader.text
    assert ("The numbers behind these verdicts" in reader.text) == (min(budgets) < 1)  # without any there is no list


def test_empty_tables_and_empty_gallery(facts: RunFacts, page: InterpretationResults) -> None:
    names = ("networks", "classes", "by_budget", "over_repeats", "robustness")
    empty = replace(page, **{name: getattr(page, name)[:0] for name in names}, galleries=(Gallery("small", ()),))
    text = read(site_of(replace(facts, stages=facts.stages[:0], curves=None), empty)).text
    for expected in ("No network was interpreted.", "No images.", "Nothing to list."):
        assert expected in text


def test_without_a_question_there_is_an_overview_only(facts: RunFacts) -> None:
    site = site_of(facts)
    assert [path for path in site if path.endswith(".html")] == ["index.html"]
    assert b"interpretation.html" not in site["index.html"]
    assert b"tracing.html" not in site["index.html"]
    assert b"decomposition.html" not in site["index.html"]


def test_overview_links_every_page_with_its_answer_in_a_line(
    facts: RunFacts, page: InterpretationResults, tracing: TracingResults, decomposition: DecompositionResults
) -> None:
    reader = read(site_of(facts, page, decomposition, tracing), "index.html")
    names = {"interpretation.html", "tracing.html", "decomposition.html"}
    assert names <= {a["href"] for a in reader.all("a")}
    assert len([a for a in reader.all("p") if a.get("class") == "lead line"]) == 3
    assert len([a for a in reader.all("figure") if a.get("class") == "picture"]) == 3
    assert "With 5 of 64 features for each class the network classifies 87.4 %" in reader.text
    assert "Networks together" in reader.text
    assert "moderate: the distance is below half of the null from 20 % on" in reader.text
    assert "The top-1 example is of the predicted class for 95.0 % of the queries in fc" in reader.text
    only = read(site_of(facts, tracing), "index.html")
    assert "interpretation.html" not in {a["href"] for a in only.all("a")}


def test_nothing_is_fetched_and_every_reference_exists(
    facts: RunFacts, page: InterpretationResults, tracing: TracingResults, decomposition: DecompositionResults
) -> None:
    site = site_of(facts, page, decomposition, tracing)
    for path in ("index.html", "interpretation.html", "tracing.html", "decomposition.html"):
        assert not re.search(rb"https?://|//cdn|@import", site[path])
        references = [a.get(key, "") for _, a in read(site, path).tags for key in ("href", "src")]
        ids = {attributes.get("id") for _, attributes in read(site, path).tags}
        for reference in filter(None, references):
            name, _, anchor = reference.partition("#")
            assert reference.startswith("data:") or (name in site if name else anchor in ids), reference
    assets = (site[f"assets/{name}"] for name in ("style.css", "site.js", "deciders.js"))
    assert not any(re.search(rb"https?:|url\(", asset) for asset in assets)


def test_figures_and_images_speak_to_those_who_do_not_see_them(facts: RunFacts, page: InterpretationResults) -> None:
    reader = read(site_of(facts, page))
    plots = [a for a in reader.all("div") if a.get("class") == "plot"]
    assert [a["id"] for a in plots] == ["distance-1", "accuracy-1"]
    assert all(a["role"] == "img" and a["aria-label"].startswith(("Shape distance", "top-1")) for a in plots)
    pictures = [a["aria-label"] for a in reader.all("svg") if a.get("role") == "img"]
    assert pictures[:2] == [
        "Validation image, sample 1000, class 0",
        "Heat map of the features from full data on sample 1000, class 0",
    ]
    assert len(pictures) == 6
    scrolling = [a for a in reader.all("div") if a.get("class") == "scroll"]
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolling)
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_figure_data_on_the_page_is_the_table(facts: RunFacts, page: InterpretationResults) -> None:
    html = site_of(facts, page)["interpretation.html"].decode()
    found = re.search(r'id="distance-1-views">(.*?)</script>', html)
    assert found is not None
    views = json.loads(found[1])
    assert [view["label"] for view in views] == ["α = 0", "α = 0.5", "α = 1"]
    (line,) = [trace for trace in views[1]["data"] if trace["name"] == "random"]
    rows = page.over_repeats.query("selector == 'random'").sort_values("budget")
    np.testing.assert_allclose(line["x"], 100 * rows["budget"])
    np.testing.assert_allclose(line["y"], rows["phi_05_mean"])


def test_csv_files_hold_the_tables(facts: RunFacts, page: InterpretationResults) -> None:
    site = site_of(facts, page)
    for name in ("networks", "over_repeats", "by_budget", "robustness", "classes"):
        pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(site[f"data/{name}.csv"])), getattr(page, name))
    assert next(csv.reader([site["data/stages.csv"].decode().splitlines()[0]]))[0] == "stage"


def test_a_large_class_table_is_left_to_the_store(
    facts: RunFacts, page: InterpretationResults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.report.interpretation.content.MAX_CSV_ROWS", 10)
    site = site_of(facts, page)
    assert "data/classes.csv" not in site
    assert b"data/classes.csv" not in site["interpretation.html"]
    assert f"The {len(page.classes)} rows of the table by class are in the store" in read(site).text


def test_equal_thumbnails_are_in_the_page_once(
    facts: RunFacts, page: InterpretationResults, build_gallery: Pictures
) -> None:
    gallery = build_gallery(2, ("full data",))
    image = gallery.rows[0].image
    rows = (gallery.rows[0], replace(gallery.rows[1], overlays={"full data": image, "random 10 %": image.copy()}))
    twice = (replace(gallery, rows=rows), Gallery("small again", rows))
    reader = read(site_of(facts, replace(page, galleries=twice)))
    assert len(reader.all("symbol")) == 3  # two images and one heat map
    assert len([a for a in reader.all("svg") if a.get("class") == "thumb"]) == 2 * (2 + 3)
    assert len({a["href"] for a in reader.all("image")}) == 3


def test_gallery_is_capped_and_says_so(facts: RunFacts, page: InterpretationResults, build_gallery: Pictures) -> None:
    titles = tuple(f"random {i} %" for i in range(MAX_COLUMNS + 3))
    gallery = build_gallery(MAX_IMAGES + 6, titles, size=2)
    text = read(site_of(facts, replace(page, galleries=(gallery,)))).text
    assert "The first 24 of 30 images. The first 11 of 15 heat maps of each image." in text
    assert "sample 1023" in text
    assert "sample 1024" not in text


def test_same_input_same_bytes(
    facts: RunFacts, page: InterpretationResults, tracing: TracingResults, decomposition: DecompositionResults
) -> None:
    first, second = (site_of(facts, page, decomposition, tracing) for _ in range(2))
    assert first == second
