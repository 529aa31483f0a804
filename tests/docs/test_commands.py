"""Every command of every page: known with its options, and run for real where that is cheap; else it says why not."""

import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.docs_pages import PAGES, commands, parsed
from tests.flows.command import layerlore

# What only parses, and why it does not run here. The first pattern that fits counts.
ONLY_PARSED = {
    r"layerlore (run|watch|verify)": "names a command without arguments",
    r"layerlore run .*": "minutes; tests/flows runs small configs, `make quickstart` the preset",
    r"layerlore watch .*": "ends with a training; tests/flows/test_watch.py follows one",
    r"layerlore plan (cifar10|my\.yaml|digits --set store=/tmp).*": "names files or folders of a user",
    r"layerlore (explain|card|status) .*(--image|--sample|--layer|--unit|my\.yaml|lore-of-|/srv/|--preview).*": (
        "names samples, layers or stores of other presets; tests/docs/test_elsewhere.py and tests/flows run such"
    ),
    r"layerlore compare STORE RUN RUN": "needs two runs; tests/flows/test_compare.py compares such",
    r"layerlore materialise .*": "needs an archive of another kind; tests/flows/test_materialise.py converts one",
    r"layerlore report .*": "needs a finished preset; tests/flows writes reports",
}
ALL = sorted({" ".join(command.split()) for page in PAGES for command in commands(page)})


def why_not(command: str) -> str:
    """Return why a command only parses, "" where it runs."""
    return next((why for pattern, why in ONLY_PARSED.items() if re.fullmatch(pattern, command)), "")


RUN_HERE = [command for command in ALL if not why_not(command)]


def test_every_pattern_is_used_and_some_commands_run() -> None:
    for pattern in ONLY_PARSED:
        assert any(re.fullmatch(pattern, command) for command in ALL), pattern
    names = {shlex.split(command)[1] for command in RUN_HERE}
    assert names == {"presets", "plan", "explain", "card", "status", "verify", "gc"}


@pytest.mark.parametrize("command", [each for each in ALL if len(each.split()) > 2 or each.endswith("presets")])
def test_every_command_is_known_with_its_options(command: str) -> None:
    name, _ = parsed(command)
    assert name == command.split()[1]


@pytest.fixture(scope="module")
def folder(carded_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished store, `lore`, of all four questions."""
    place = tmp_path_factory.mktemp("commands")
    carded_run.at(str(place / "lore"))
    return place


@pytest.mark.parametrize("command", RUN_HERE)
def test_a_cheap_command_runs_as_it_stands(command: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Placeholders stand for the store of a small run, and the run of the preset for the only one there."""
    monkeypatch.chdir(folder)
    here = {"STORE": "lore", "N": "1", "CONFIG": "digits", "all-digits": "carded"}
    words = [here.get(word, word) for word in shlex.split(command)[1:]]
    result = layerlore(*words)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
