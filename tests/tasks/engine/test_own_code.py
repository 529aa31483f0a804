"""Code of the user's own: a worker that has another version of it than the plan makes nothing."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.imports import check_loaded, code_digest, import_object
from configs.load import check_config
from flows.plan import make_plan
from storage.stores import Store
from storage.verify import stage_paths
from tasks.cluster.parallel import PartitionError
from tests.conftest import Run

MODEL = """
import torch
def build(classes=10):
    return torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.{0}(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Linear(4, classes))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of a module that is not imported yet."""
    file = tmp_path / f"own_{os.getpid()}_{tmp_path.name}.py"
    file.write_text(MODEL.format("ReLU"))
    monkeypatch.syspath_prepend(tmp_path)
    yield file
    sys.modules.pop(file.stem, None)


def test_what_was_imported_is_compared_not_what_lies_there_now(module: Path) -> None:
    path = f"{module.stem}:build"
    planned = code_digest(path)
    import_object(path)
    check_loaded(path, planned)
    module.write_text(MODEL.format("Tanh"))
    check_loaded(path, planned)  # what runs here is still the old one
    with pytest.raises(ValueError, match=rf"import path '{path}': expected the file that the run was planned with"):
        check_loaded(path, code_digest(path))


def test_a_run_in_a_process_with_an_older_version_stops(module: Path, tiny_tree: dict[str, Any]) -> None:
    network = {**tiny_tree["networks"]["small"], "model": f"{module.stem}:build", "arguments": {}}
    tree = {**tiny_tree, "networks": {"small": network}}
    import_object(network["model"])
    module.write_text(MODEL.format("Tanh"))
    with pytest.raises(PartitionError, match=r"partition 0 of training .*: import path .* another version"):
        Run.of(tree).finish()
    store = Store(tree["store"])
    assert [path for path in stage_paths(store) if path.startswith("training/")]
    assert not [name for name in store.files("") if "training/" in name and "/markers/" in name]
    assert make_plan(check_config(tree, "config")).stages


def test_another_process_with_the_planned_version_goes_on(module: Path) -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(module.parent)!r})\n"
        "from configs.imports import check_loaded\n"
        f"check_loaded('{module.stem}:build', {code_digest(f'{module.stem}:build')!r})"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
