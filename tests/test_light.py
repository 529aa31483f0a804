"""Which libraries a command loads: reading a store or planning a run starts without the heavy ones."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.flows.command import layerlore

OLD = Path(__file__).parent / "flows" / "old_store"  # a finished run of every kind of stage
NEVER = {"torchvision", "plotly", "matplotlib", "prefect", "sklearn", "scipy.stats", "distributed", "torch._dynamo"}
READING = NEVER | {"torch", "scipy"}
PROBE = """
import sys
import flows.command
from flows.cli import main
if sys.argv[1] == "start":
    flows.command.planned_stages = lambda plan, store, finished: sys.exit()
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


def test_a_run_says_what_it_makes_before_it_looks_at_networks(finished: tuple[str, str], tmp_path: Path) -> None:
    _, said, modules = loaded("start", finished[0], "--set", f"store={tmp_path / 'new'}")
    assert said.splitlines()[0].endswith(f"stages to make, in {tmp_path / 'new'}")
    assert modules & READING == set()
