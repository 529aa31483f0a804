"""Weights that fit only without what a tool put around them: said by `plan`, on a line of its own."""

from pathlib import Path

import pytest
import torch

from tests.flows.command import Tree, Write, layerlore, refused


@pytest.mark.parametrize("start", [False, True])
def test_what_is_undone_is_said(folder_tree: Tree, write: Write, tmp_path: Path, start: bool) -> None:
    network, path = folder_tree["networks"]["net"], tmp_path / "weights.pt"
    state = torch.load(path, weights_only=True)
    if start:
        del network["weights"]
        optimizer = {"kind": "sgd", "lr": 0.1}
        network["train"] = {"data": "pets", "epochs": 1, "optimizer": optimizer, "start": str(path)}
    plain = layerlore("plan", write(folder_tree))
    assert plain.exit_code == 0, plain.output
    assert "fits by" not in plain.output
    torch.save({"ema": {f"module.{name}": value for name, value in state.items()}}, path)
    found = layerlore("plan", write(folder_tree))
    assert found.exit_code == 0, found.output
    key = "train.start" if start else "weights"
    line = f"networks.net.{key}: {path} fits by its entry 'ema' and names without 'module.'"
    assert found.stdout.splitlines().count(line) == 1
    assert found.stderr == ""


@pytest.mark.parametrize("key", ["weights", "start"])
def test_a_file_that_does_not_fit_is_one_line(folder_tree: Tree, write: Write, tmp_path: Path, key: str) -> None:
    network, path = folder_tree["networks"]["net"], tmp_path / "weights.pt"
    torch.save({"model": {"backbone.conv.weight": torch.zeros(1)}, "epoch": 1}, path)
    if key == "start":
        del network["weights"]
        optimizer = {"kind": "sgd", "lr": 0.1}
        network["train"] = {"data": "pets", "epochs": 1, "optimizer": optimizer, "start": str(path)}
    text = refused(layerlore("plan", write(folder_tree)))
    assert "\n" not in text
    assert text.startswith("networks.net.train.start: " if key == "start" else "networks.net: ")
    assert "4 of 4 tensors missing (first conv.weight); 1 unexpected (first backbone.conv.weight)" in text
    assert text.endswith("The file has the keys backbone.conv.weight (entry 'model')")
