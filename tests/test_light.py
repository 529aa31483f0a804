"""Which libraries a command loads: reading a store or planning a run starts without the heavy ones."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.flows.command import layerlore

if TYPE_CHECKING:
    from tests.conftest import Run

OLD = Path(__file__).parent / "flows" / "old_store"  # a finished run of every kind of stage
NEVER = {"torchvision", "plotly", "matplotlib", "prefect", "sklearn", "scipy.stats", "distributed", "torch._dynamo"}
READING = NEVER | {"torch", "scipy"}
PROBE = """
import sys
import flows.command
from flows.cli import main
if sys.argv[1] == "start":
    flows.command._starting_prefect = sys.exit
    sys.argv[1] = "run"
try:
    main()
finally:
    sys.stderr.write("\\n" + " ".join(sys.modules))
"""


def loaded(*arguments: str) -> tuple[str, str, set[str]]:
    """Run a command in a process of its own; return its output, what it says on stderr, and the modules it loaded."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, _, modules = done.stderr.rpartition("\n")
    return done.stdout, said, set(modules.split())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Return the config of a finished run, whose report is current, and its store."""
    folder = tmp_path_factory.mktemp("light")
    with zipfile.ZipFile(OLD / "store.zip") as archive:
        archive.extractall(folder)
    text = (OLD / "config.yaml").read_text()
    store = folder / "store"
    config = folder / "config.yaml"
    config.write_text("\n".join(f"store: {store}" if line.startswith("store:") else line for line in text.split("\n")))
    layerlore("run", str(config))  # makes the stages of kinds with a higher VERSION than the store's, and the report
    done = layerlore("run", str(config))
    assert "stages are complete in" in done.stderr
    return str(config), str(store)


@pytest.fixture(scope="module")
def probed(probed_run: "Run", tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the config of a finished run of question 3, whose report is current."""
    folder = tmp_path_factory.mktemp("probed")
    run = probed_run.at(str(folder / "store"))
    (folder / "config.yaml").write_text(yaml.safe_dump(run.tree, sort_keys=False))
    assert layerlore("report", str(folder / "config.yaml")).exit_code == 0
    return str(folder / "config.yaml")


@pytest.mark.parametrize("command", ["status", "verify", "gc"])
def test_commands_that_read_a_store_load_no_heavy_library(finished: tuple[str, str], command: str) -> None:
    output, _, modules = loaded(command, finished[1])
    assert {"status": "stages complete", "verify": " 0 damaged", "gc": "would be freed"}[command] in output
    assert modules & READING == set()


def test_a_run_with_nothing_to_do_loads_no_heavy_library(finished: tuple[str, str]) -> None:
    output, said, modules = loaded("run", finished[0])
    assert "stages are complete in" in said
    assert "index.html" in output
    assert modules & READING == set()


def test_a_plan_loads_torch_for_its_networks_and_nothing_else(finished: tuple[str, str]) -> None:
    output, _, modules = loaded("plan", finished[0])
    assert ", 0 to make" in output
    assert "torch" in modules
    assert modules & NEVER == set()


def test_concepts_are_planned_and_found_complete_without_heavy_libraries(probed: str) -> None:
    output, _, modules = loaded("plan", probed)
    assert ", 0 to make" in output
    assert modules & NEVER == set()
    _, said, modules = loaded("run", probed)
    assert "stages are complete in" in said
    assert modules & READING == set()


def test_a_new_run_of_concepts_says_what_it_makes_before_it_looks_at_networks(probed: str, tmp_path: Path) -> None:
    _, said, modules = loaded("start", probed, "--set", f"store={tmp_path / 'new'}")
    assert said.splitlines()[0].endswith(f"stages to make, in {tmp_path / 'new'}")
    assert modules & READING == set()


def test_a_run_says_what_it_makes_before_it_looks_at_networks(finished: tuple[str, str], tmp_path: Path) -> None:
    _, said, modules = loaded("start", finished[0], "--set", f"store={tmp_path / 'new'}")
    assert said.splitlines()[0].endswith(f"stages to make, in {tmp_path / 'new'}")
    assert modules & READING == set()


def test_probing_sets_words_and_features_load_no_heavy_library() -> None:
    modules = ("annotations", "broden", "digests", "feature_files", "mini_broden", "model_files", "words")
    code = "import sys\n" + "".join(f"import tasks.io.{name}\n" for name in modules) + "print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & READING == set()
