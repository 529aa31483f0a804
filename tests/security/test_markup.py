"""HTML and scripts in every text that a user or a data set gives, and what the written site makes of them."""

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tasks.steps.report import write_report

if TYPE_CHECKING:
    from tests.conftest import Run

Tree = dict[str, Any]  # Any: YAML

CLASSES = ("<img src=x onerror=alert(1)>", "<\"'&;a href=javascript:alert(2)>", "c")  # folders, so without a slash
NAMED = "</script><script>alert(3)</script><b onmouseover=alert(4)>"  # from the config, so with one
OWN = 'document.documentElement.className = "js";'
MARKS = ("alert(1)", "alert(2)", "alert(3)", "alert(4)")


class Page(HTMLParser):
    """Tags with their attributes, the content of scripts, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in_script = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)
        else:
            self.text += data

    @property
    def figures(self) -> list[str]:
        """The content of the scripts but for the site's own line."""
        return [script for script in self.scripts if script != OWN]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, new_run: "Callable[[Tree], Run]") -> Path:
    """The report of a run that asks three questions of data whose classes, files and config are hostile."""
    folder = tmp_path_factory.mktemp("markup")
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(CLASSES):
            place = folder / NAMED.replace("/", "") / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 120, (8, 8), dtype=np.uint8) + np.uint8(100 * label)
                Image.fromarray(pixels).save(place / f"{number}<script>alert(3)<script>.png")
    run = new_run(hostile_config(folder)).finish()
    write_report(run.job.store, run.plan.made(), created="now", reused=frozenset())
    return Path(run.config.store, "reports", "markup")


def hostile_config(folder: Path) -> Tree:
    """Return a config over the image folders below `folder`."""
    images = folder / NAMED.replace("/", "")
    train = {
        "data": "d",
        "epochs": 2,
        "optimizer": {"lr": 0.05},
        "batches": {"kind": "single-class", "size": 2, "ghosts": 2},
    }
    return {
        "name": "markup",
        "store": str(folder / "<store>"),
        "cluster": {"kind": "serial"},
        "data": {
            "d": {
                "source": "image-folder",
                "paths": {split: str(images / split) for split in ("train", "val")},
                "class_names": {2: NAMED},
            }
        },
        "networks": {
            "small": {
                "model": "small-cnn",
                "arguments": {"width": 4, "classes": 3},
                "train": {**train, "record": {}},
                "preprocessing": {"mode": "L"},
            }
        },
        "interpretation": {
            "networks": ["small"],
            "selectors": {"random": {}},
            "budgets": [0.5, 1.0],
            "interpreters": {"ice": {"components": 2}},
            "gallery": 2,
        },
        "decomposition": {"networks": ["small"], "k1": 2, "k2": 2, "draws": 2, "ablation": {"draws": 2}, "gallery": 2},
        "tracing": {"networks": ["small"], "queries": {"count": 2}, "k": 2, "ridges": {"classes": 2}},
    }


def pages(site: Path) -> list[Path]:
    """Return the site's pages."""
    return sorted(site.rglob("*.html"))


def strings(value: Any) -> Iterator[str]:  # Any: JSON
    """Yield every text in a JSON value."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)
    elif isinstance(value, str):
        yield value


def test_the_hostile_texts_are_on_the_pages(site: Path) -> None:
    assert [page.name for page in pages(site)] == [
        "decomposition.html",
        "index.html",
        "interpretation.html",
        "tracing.html",
    ]
    for page in pages(site):
        text = Page(page.read_text()).text
        assert NAMED in text, page
        assert page.name == "index.html" or all(name in text for name in CLASSES[:2]), page


def test_no_text_becomes_a_tag_or_an_attribute(site: Path) -> None:
    for page in pages(site):
        for tag, attributes in Page(page.read_text()).tags:
            assert not [name for name in attributes if name.startswith("on")], (page, tag, attributes)
            assert tag not in ("img", "iframe", "object", "embed", "base", "form", "b"), (page, tag)
            for name in ("href", "src"):
                target = attributes.get(name) or "#"
                assert re.match(r"#|assets/|data/|[a-z]+\.html|data:image/png;base64,|data:,$", target), (page, target)


def test_scripts_are_the_sites_own_or_data(site: Path) -> None:
    for path in pages(site):
        page = Page(path.read_text())
        tags = [attributes for tag, attributes in page.tags if tag == "script"]
        code = [attributes for attributes in tags if attributes.get("type") != "application/json"]
        assert [attributes for attributes in code if not str(attributes.get("src")).startswith("assets/")] == [{}], path
        assert len(tags) - len(code) == len(page.figures), path
        for content in page.figures:
            assert json.loads(content), path
            assert not set("<>&") & set(content), path


def test_figures_print_the_texts_as_text(site: Path) -> None:
    """Plotly reads some HTML in labels: what stands in its data must be escaped once more."""
    found = 0
    for path in pages(site):
        contents = [json.loads(content) for content in Page(path.read_text()).figures]
        for view in (
            view for content in contents if isinstance(content, list) for view in content
        ):  # else not Plotly's
            for text in strings([view["data"], view["layout"]]):
                found += any(mark in text for mark in MARKS)
                assert not re.search(r"<(?!/?(?:b|i|br|sub|sup|extra)>)", text), (path, text)
    assert found


def test_no_other_file_of_the_site_is_html(site: Path) -> None:
    kinds = {file.suffix for file in site.rglob("*") if file.is_file()}
    assert kinds <= {".html", ".css", ".js", ".csv", ".png", ".parquet", ""}, kinds
    assert all(file.resolve().is_relative_to(site.resolve()) for file in site.rglob("*"))


def test_no_text_becomes_a_file_name(site: Path) -> None:
    store = site.parents[1]
    assert store.name == "<store>"
    names = {part for file in store.rglob("*") for part in file.relative_to(store).parts}
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9_.-]+", name)] == []
    assert sorted(path.name for path in store.parent.iterdir()) == sorted([NAMED.replace("/", ""), "<store>"])
