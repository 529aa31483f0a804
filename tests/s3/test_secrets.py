"""The command line on a real server: what it does, and that no secret is in anything it writes or says."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from flows import exits
from storage.stores import Store
from tests.shared import prefect_home

if TYPE_CHECKING:
    from tests.s3.conftest import Server

pytestmark = [
    pytest.mark.s3,
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.parametrize("server", ["swift"], indirect=True, scope="module"),
]

Tree = dict[str, Any]  # Any: YAML
WRONG = "hush-wrong-c2a1"
Layerlore = Callable[["Server"], "subprocess.CompletedProcess[str]"]


@pytest.fixture
def layerlore(tiny_tree: Tree, far: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Layerlore:
    """Return a function that runs a small config on a server by the command, in a process of its own."""
    asked = {**tiny_tree["interpretation"], "selectors": {"random": {"repeats": 1}}, "budgets": [0.5], "gallery": 0}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**tiny_tree, "store": far, "interpretation": asked}, sort_keys=False))
    prefect_home(tmp_path_factory, tmp_path / "prefect")

    def run(server: "Server") -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, **server.environment, "PREFECT_HOME": str(tmp_path / "prefect"), "COLUMNS": "200"}
        command = [sys.executable, "-c", "from flows.cli import main; main()", "run", str(config)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)

    return run


def everything(store: Store, folder: Path) -> dict[str, bytes]:
    """Return every byte that a run wrote: objects, and files below `folder`, Prefect's database among them."""
    kept = {name: store.read(name) for name in store.files("")}
    return kept | {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_keeps_secrets_to_itself(use: "Server", layerlore: Layerlore, far: str, tmp_path: Path) -> None:
    refused = layerlore(replace(use, secret=WRONG))
    assert refused.returncode == exits.FAILED
    assert refused.stdout == ""
    place = f"{far}/layerlore-store"
    messages, _, remedy = refused.stderr.partition("; ")
    assert re.fullmatch(rf"error: {re.escape(place)}: SignatureDoesNotMatch: .{{1,200}}", messages), messages
    assert remedy == "check the credentials and their rights to this bucket\n"
    done = layerlore(use)
    assert done.returncode == exits.DONE, done.stderr
    assert done.stdout == f"report: {far}/reports/tiny/index.html\n"
    stalled = layerlore(replace(use, secret=WRONG))  # the store is there now
    assert stalled.returncode == exits.FAILED
    assert len(stalled.stderr.splitlines()) == 1
    store = Store(far)
    written = everything(store, tmp_path)
    assert f"{tmp_path}/prefect/prefect.db" in written
    assert store.read("reports/tiny/index.html").startswith(b"<!DOCTYPE html>")
    said = [text.encode() for made in (refused, done, stalled) for text in (made.stdout, made.stderr)]
    for secret in (use.secret, WRONG, use.access):
        assert not [name for name, data in written.items() if secret.encode() in data]
        assert not [text for text in said if secret.encode() in text]
