"""Configs that a watch follows, checkpoints to put into folders, and a log of the partitions that are made."""

import copy
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tasks.engine import life
from tasks.io.networks import build_model
from tests.flows.command import Tree

if TYPE_CHECKING:
    from tasks.engine.life import Assignment
    from tasks.engine.step import Work

MODEL, ARGUMENTS = "small-cnn", {"width": 6}
SNAPSHOTS = [0, 5, 8, 16]  # of the probed training: 16 steps, a checkpoint after every 5


def trained_tree(probed: Tree) -> Tree:
    """Return a config that follows a training of 16 steps with four snapshots, two detectors, one layer."""
    tree = copy.deepcopy(probed)
    tree["networks"]["small"]["train"]["snapshots"] = SNAPSHOTS
    tree["concepts"] |= {"layers": ["2"], "track": {}, "watch": {"every": 0.1}}
    return tree


def folder_tree(probed: Tree, folder: Path) -> Tree:
    """Return a config that follows a folder of checkpoints, with one layer and one detector."""
    tree = copy.deepcopy(probed)
    first = folder.parent / "weights.pt"
    save_checkpoint(first, 0)
    network = {"model": MODEL, "arguments": ARGUMENTS, "weights": str(first), "preprocessing": {"mode": "L"}}
    tree["networks"] = {"small": network}
    del tree["data"]["digits"]
    tree["concepts"] |= {
        "layers": ["8"],
        "track": {},
        "checkpoints": {"small": {"folder": str(folder)}},
        "detectors": {"soft_wpmi": {"top_k": 10}},
        "watch": {"every": 0.1, "quiet": 0.3, "falls": {"distinct": 0.5}},
    }
    folder.mkdir(exist_ok=True)
    return tree


def save_checkpoint(path: Path, seed: int, *, identical: bool = False) -> None:
    """Write the weights of the network; with `identical` all neurons of each layer are the same."""
    state = build_model(MODEL, ARGUMENTS, seed).state_dict()
    if identical:
        state = {
            name: value[:1].expand_as(value).clone() if value.ndim and value.is_floating_point() else value
            for name, value in state.items()
        }
    torch.save(state, path)


def log_partitions(log: Path) -> Callable[[], None]:
    """Write a line to a file for each partition that this process has made; return what ends that."""
    real = life.run_partition

    def logging(function: "Callable[[Work, int], None]", item: "Assignment") -> None:
        missing = item.work.missing(item.number).stages
        real(function, item)
        lines = "".join(f"{stage.spec.path} {item.number} {os.getpid()}\n" for stage in missing)
        with log.open("a") as file:
            file.write(lines)

    life.run_partition = logging

    def end() -> None:
        life.run_partition = real

    return end


def made(log: Path) -> Counter[str]:
    """Return how often each partition was made, by stage and number."""
    return Counter(line.rsplit(" ", 1)[0] for line in log.read_text().splitlines())
