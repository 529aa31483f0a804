"""README and other pages say what works: commands parse, configs validate, links and pictures are there."""

import re
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from configs.load import load_config, presets
from configs.schema import Config
from tasks.detectors.defaults import NETWORK_DISSECTION
from tasks.detectors.methods import METHODS
from tasks.steps.concepts.detectors import DETECTORS, check_detectors
from tasks.steps.concepts.milan import milan_settings
from tasks.steps.concepts.network_dissection import dissection_settings
from tests.docs_pages import PAGES, ROOT, Tree, blocks, commands, parsed, text_of

STORE_COMMANDS = ("card", "compare", "status", "verify", "gc", "explain", "materialise")
# Commands in running text that name a command alone.
BARE = ("layerlore run", "layerlore watch", "layerlore verify")


def trees(page: str) -> list[Tree]:
    """A page's configs: the whole one, then each fragment laid over it."""
    whole, *fragments = [yaml.safe_load(block) for block in blocks(page, "yaml")]
    return [whole, *({**whole, **fragment} for fragment in fragments)]


@pytest.mark.parametrize("page", PAGES)
def test_commands_are_known_and_their_configs_load(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text(blocks("README.md", "yaml")[0], encoding="utf-8")
    for command in commands(page):
        if command in BARE:
            continue
        name, parameters = parsed(command)
        if "config" in parameters:
            load_config(parameters["config"], parameters["set_"] or [])
        elif name == "presets" and parameters["name"] is not None:
            assert parameters["name"] in presets()
        else:
            assert name in (*STORE_COMMANDS, "presets")


def test_the_readme_shows_every_command() -> None:
    shown = {parsed(command)[0] for command in commands("README.md")}
    assert shown == {
        "run",
        "watch",
        "plan",
        "report",
        "status",
        "explain",
        "card",
        "compare",
        "verify",
        "gc",
        "presets",
    }


def test_configs_validate() -> None:
    configs = [Config.model_validate(tree) for tree in trees("README.md")]
    assert configs[0].networks["classifier"].model == "resnet18"
    assert {config.data["pets"].source for config in configs} == {
        "image-folder",
        "npz",
        "csv",
        "broden",
        "hugging-face",
        "import",
    }
    assert {config.cluster.kind for config in configs} == {"local", "address", "dask_jobqueue.SLURMCluster"}


def test_the_configs_of_the_tracing_page_validate() -> None:
    whole, checked, private = [Config.model_validate(tree) for tree in trees("docs/tracing.md")]
    assert whole.tracing is not None
    assert whole.tracing.queries.count == 20
    assert checked.tracing is not None
    assert checked.tracing.evaluation.mislabel
    assert private.report.training_images == "ids"


def test_the_configs_of_the_page_of_sequences_validate() -> None:
    archive, texts = [Config.model_validate(tree) for tree in trees("docs/sequences.md")]
    assert archive.data["reviews"].source == "sequence-npz"
    assert archive.networks["reader"].model == "lstm"
    assert texts.data["reviews"].source == "texts"


def test_the_configs_of_the_graphs_page_validate() -> None:
    files, geometric = [Config.model_validate(tree) for tree in trees("docs/graphs.md")]
    assert files.data["molecules"].source == "graph-npz"
    assert files.tracing is not None
    assert geometric.data["molecules"].source == "torch-geometric"
    assert geometric.networks["deep"].arguments["edges"] == 4


def test_the_configs_of_the_concepts_page_validate() -> None:
    configs = [Config.model_validate(tree) for tree in trees("docs/concepts.md")]
    asked = [config.concepts for config in configs if config.concepts is not None]
    training, weights, folder, words, captions, thresholds = asked
    assert configs[0].networks["small"].train is not None
    assert configs[0].networks["small"].train.snapshots == (0, 90, 270)
    assert training.snapshots == "all"
    assert weights.layers_of("squeezenet") == ("features.7", "features.12")
    assert re.search(folder.checkpoints["mine"].pattern, "epoch_9.pt")
    assert words.words == ("labels", "words/animals.txt")
    assert words.image_text.kind == "open-clip"
    assert captions.captioner is not None
    assert captions.captioner.encoder == "small"
    assert thresholds.track == {"8": (3, 17)}
    for each in asked:
        check_detectors(each)


@pytest.mark.parametrize("page", ["interpretation", "decomposition", "detectors"])
def test_the_whole_configs_of_other_pages_validate(page: str) -> None:
    (config,) = [Config.model_validate(tree) for tree in trees(f"docs/{page}.md")]
    assert (config.concepts if page == "detectors" else getattr(config, page)) is not None
    if config.concepts is not None:
        check_detectors(config.concepts)


def test_every_page_with_a_config_or_python_is_among_those_that_are_tested() -> None:
    configs = {page for page in PAGES if blocks(page, "yaml")}
    assert configs == {
        *("README.md", "deployments/README.md"),
        *(f"docs/{name}.md" for name in ("concepts", "tracing", "sequences", "graphs", "elsewhere")),
        *(f"docs/{name}.md" for name in ("interpretation", "decomposition", "detectors")),
    }
    python = {page for page in PAGES if "```python" in text_of(page)}
    assert python == {
        *("README.md", "CONTRIBUTING.md"),
        *(f"docs/{name}.md" for name in ("decomposition", "elsewhere", "graphs", "store", "tracing")),
    }


def test_the_concepts_page_has_every_detector_with_its_parameters() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| [^|]+ \| ([^|]+) \|$", text_of("docs/concepts.md"), flags=re.MULTILINE))
    assert set(DETECTORS) <= set(rows)
    for name, method in METHODS.items():
        found = {key: value.split(",")[0] for key, value in re.findall(r"`(\w+)` \(([^)]+)\)", rows[name])}
        assert found == {field.name: f"{field.default:g}" for field in fields(method)}
    assert re.findall(r"`(\w+)` \(", rows[NETWORK_DISSECTION]) == list(dissection_settings({}))
    found = dict(re.findall(r"`(\w+)` \(([^)]+)\)", rows["milan"]))
    assert found == {name: f"{value:g}" for name, value in milan_settings({}).items()}


def test_every_preset_is_named_and_begins_with_one_line_about_itself() -> None:
    for name, text in presets().items():
        assert f"`{name}`" in text_of("README.md")
        assert re.fullmatch(r"# \S.{20,120}", text.splitlines()[0]), name


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_are_there(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text_of(page)):
        if not target.startswith("https://"):
            assert ((ROOT / page).parent / target).is_file(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_and_make_targets_are_there(page: str) -> None:
    makefile = text_of("Makefile")
    for target in re.findall(r"^make (\w+)|`make (\w+)`", text_of(page), flags=re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, flags=re.MULTILINE), target
    for path in re.findall(r"`((?:tasks|configs|flows|storage|docs|tests)/[\w/.-]+\.(?:py|md|json))`", text_of(page)):
        added = "central" in path or "NAME" in path  # the method and the question that CONTRIBUTING adds
        assert (ROOT / path).is_file() or added, path
