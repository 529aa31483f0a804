"""The documentation as a site: it builds without a warning, its links lead somewhere, and it misses no page."""

import importlib
import importlib.util
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest
import yaml
from PIL import Image

from configs.schema import Config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
MAX_PICTURE = 120_000  # bytes of a picture of the gallery


class _Links(HTMLParser):
    """The links of a page, and the anchors on it."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] or "" for name in ("href", "src") if name in found]
        self.anchors |= {found[name] or "" for name in ("id", "name") if name in found}


def module_of(path: Path) -> ModuleType:
    """Return a script of docs as a module; docs is not a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def test_every_link_leads_to_a_page_and_to_an_anchor_on_it(site: Path) -> None:
    pages = {path: _Links() for path in site.rglob("*.html")}
    for path, page in pages.items():
        page.feed(path.read_text(encoding="utf-8"))
    broken = []
    for path, page in pages.items():
        for link in page.links if path.name != "404.html" else ():
            if re.match(r"[a-z]+:", link):
                assert link.startswith(("https://", "data:", "mailto:")), (path.name, link)
                continue
            name, _, anchor = unquote(link).partition("#")
            there = (path.parent / name.partition("?")[0]).resolve() if name else path
            if not there.exists() or (anchor and there in pages and anchor not in pages[there].anchors):
                broken.append((path.name, link))
    assert broken == []


def test_the_pages_of_the_repository_are_on_the_site(site: Path) -> None:
    for file in DOCS.glob("*.md"):
        assert (site / f"{file.stem}.html").is_file(), file.name
    for name in ("start", "data", "network", "cluster", "resume", "commands", "limits", "deployments", "changelog"):
        assert (site / f"{name}.html").is_file(), name


def test_no_text_is_on_the_site_twice() -> None:
    """Each heading of README.md is on one page, and its text is in no page of docs."""
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    script = module_of(DOCS / "site_pages.py")
    places: dict[str, list[str]] = {}
    for page, (_, parts) in script.PARTS.items():
        for part in (each for each in parts if each.file == "README.md"):
            text = script.part_text(part, script.page_headings(page, part))
            for paragraph in (each for each in text.split("\n\n") if len(each) > 60):
                places.setdefault(paragraph, []).append(page)
    assert places
    assert {paragraph: pages for paragraph, pages in places.items() if len(pages) > 1} == {}
    docs = "\n".join(file.read_text(encoding="utf-8") for file in DOCS.glob("*.md"))
    assert [paragraph for paragraph in places if paragraph in docs] == []


def test_a_part_that_is_missing_is_named() -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    script = module_of(DOCS / "site_pages.py")
    with pytest.raises(ValueError, match=r"README.md: expected a heading 'Nowhere', found none"):
        script.part_text(script.Part("README.md", "Nowhere"))


def test_links_between_files_become_links_between_pages() -> None:
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    script = module_of(DOCS / "site_pages.py")
    cases = {
        ("docs/concepts.md", "../README.md#clusters"): "cluster.md",
        ("docs/concepts.md", "../README.md#networks"): "network.md#networks",
        ("docs/concepts.md", "methods.md#tracing"): "methods.md#tracing",
        ("README.md", "docs/store.md#on-s3"): "store.md#on-s3",
        ("README.md", "deployments/README.md"): "deployments.md",
        ("README.md", "#which-concepts-do-neurons-hold"): "concepts.md",
        ("deployments/README.md", "../docs/faults.md"): "faults.md",
        ("README.md", "LICENSE"): None,
        ("docs/store.md", "make_store_reference.py"): None,
    }
    found = {case: script.site_target(*case, "any.md") for case in cases}
    assert found == cases
    assert script.with_links("[a](docs/store.md)\n```\n[b](docs/store.md)\n```\n", "README.md", "x.md") == (
        "[a](store.md)\n```\n[b](docs/store.md)\n```\n"
    )


def equations() -> list[tuple[str, str, str]]:
    """Return the rows of docs/equations.md."""
    text = (DOCS / "equations.md").read_text(encoding="utf-8")
    return re.findall(r"^\| (?!equation|---)(.+?) \| `([\w.]+)` \| (.+?) \|$", text, flags=re.MULTILINE)


def test_every_equation_has_a_function_and_keys_that_exist() -> None:
    rows = equations()
    assert len(rows) > 25
    for _, function, listed in rows:
        module, _, name = function.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name)), function
        for key in re.findall(r"`([\w.]+)`", listed):
            assert known(key), key


def known(key: str) -> bool:
    """Say whether a config has a key; NAME stands for any name."""
    schema = Config.model_json_schema()
    found = [schema]
    for word in key.split("."):
        found = [inner for each in found for inner in _below(each, word, schema["$defs"])]
    return bool(found)


def _below(node: dict[str, object], word: str, definitions: dict[str, dict[str, object]]) -> list[dict[str, object]]:
    """Return what a part of a schema has at a word: a property, or any entry of a mapping for NAME."""
    reached, waiting = [], [node]
    while waiting:
        each = waiting.pop()
        reference = each.get("$ref")
        if isinstance(reference, str):
            waiting.append(definitions[reference.rpartition("/")[2]])
        for group in ("anyOf", "oneOf", "allOf"):
            waiting += each.get(group, [])  # type: ignore[arg-type]  # a list of schemas
        properties = each.get("properties", {})
        assert isinstance(properties, dict)
        if word in properties:
            reached.append(properties[word])
        patterns = each.get("patternProperties", {})  # of mappings with names as keys
        assert isinstance(patterns, dict)
        reached += patterns.values() if word == "NAME" else ()
    return reached


def test_a_key_that_does_not_exist_is_seen() -> None:
    assert known("networks.NAME.train.batches")
    assert known("concepts.teachers.neurons")
    assert not known("concepts.teacher")
    assert not known("networks.train")


def test_the_gallery_shows_the_pictures_of_its_script() -> None:
    script = module_of(DOCS / "make_gallery.py")
    shown = re.findall(r"\(images/gallery/([\w-]+)\.webp\)", (DOCS / "gallery.md").read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(picture.name for picture in script.PICTURES)
    for picture in script.PICTURES:
        file = script.FOLDER / f"{picture.name}.webp"
        assert file.stat().st_size <= MAX_PICTURE
        with Image.open(file) as image:
            assert image.format == "WEBP"
            assert image.width <= script.WIDTH
    assert {file.stem for file in script.FOLDER.iterdir()} == set(shown)


def test_the_site_is_configured_in_one_place() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    assert config["docs_dir"] == "docs"
    assert config["hooks"] == ["docs/site_pages.py"]
    listed = re.findall(r": ([\w-]+\.md)$", text, flags=re.MULTILINE)
    assert len(set(listed)) == len(listed)
