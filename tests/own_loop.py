"""A training loop of one's own on a few digits, recorded, and the config that asks question 4 of its archive.

The loop keeps the weights after every step, so that tests can work out what each update did without the archive.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F

from configs.schema import AnyDataSet
from tasks.io.manifest import read_manifest
from tasks.io.sources import open_source
from tasks.recording import UpdateRecorder
from tasks.recording.programs import Row

Tree = dict[str, Any]  # Any: YAML
Ids = NDArray[np.int64]

DATA = {"source": "sklearn-digits", "per_class": {"train": 6, "val": 3}}
EPOCHS, EVERY = 3, 8


def build(width: int = 4) -> nn.Sequential:
    """A network with batch norm, whose archive has more than recorded layers."""
    torch.manual_seed(0)
    side = nn.Conv2d(1, width, 3, padding=1)
    return nn.Sequential(side, nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(64 * width, 10))


class Pair(nn.Module):
    """A model whose output is a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = build()
        for name, module in self.layers.named_children():  # with the names of the model that is recorded
            self.add_module(name, module)
        del self.layers

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits twice."""
        for module in self.children():
            x = module(x)
        return x, x


def pair() -> nn.Module:
    """Return a model with the recorded weights whose output is not logits."""
    return Pair()


def deep() -> nn.Sequential:
    """A network with other layers."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))


def samples(split: str) -> pd.DataFrame:
    """The samples of a split by rising id."""
    rows = read_manifest(TypeAdapter(AnyDataSet).validate_python(DATA))
    return rows[rows["split"] == split].sort_values("id").reset_index(drop=True)


def images(keys: list[str]) -> Tensor:
    """The images with these keys as the network takes them."""
    source = open_source(TypeAdapter(AnyDataSet).validate_python(DATA))
    found = np.stack([np.asarray(sample.image) for sample in source.read(keys)])
    return torch.from_numpy(found.reshape(-1, 1, 8, 8)).float() / 255


@dataclass
class OwnLoop:
    """A finished loop.

    Attributes
    ----------
    states : state dict before each step and after the last
    batches : sample ids of each step
    labels : class of each step
    """

    url: Path
    states: list[dict[str, Tensor]] = field(default_factory=list)
    batches: list[Ids] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def updates(self, name: str) -> Tensor:
        """The updates of a parameter, (T, ...) float64."""
        values = torch.stack([state[name].double() for state in self.states])
        return values[1:] - values[:-1]


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The loop's optimiser: decay is a part of what it does."""
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def program() -> tuple[nn.Module, torch.optim.Optimizer, Callable[[Row], object]]:
    """The loop's steps as a function, for archives whose ids are sample ids."""
    rows, model = samples("train").set_index("id"), build()
    optimizer = optimizer_of(model)

    def step(row: Row) -> None:
        chosen = rows.loc[row.examples]
        optimizer.zero_grad()
        row.loss = F.cross_entropy(
            model(images(chosen["key"].tolist())), torch.from_numpy(chosen["label_given"].to_numpy().copy())
        )
        row.loss.backward()
        optimizer.step()

    return model, optimizer, step


def record(
    url: Path,
    name_ids: Callable[[Ids], Ids] = lambda ids: ids,
    *,
    kind: str = "dense",
    losses: bool = True,
    stop: int | None = None,
    label: bool = True,
) -> OwnLoop:
    """Train and record; one class a batch.

    Parameters
    ----------
    name_ids : the ledger's ids of sample ids
    losses, label : whether the loop states losses and classes
    stop : step at which the loop breaks off
    """
    rows, found = samples("train"), OwnLoop(url)
    model, optimizer, step = program()
    again = program if kind == "replay" else None
    with UpdateRecorder(model, optimizer, url, kind=kind, checkpoint_every=EVERY, program=again) as recorder:
        for epoch in range(EPOCHS):
            rng = np.random.default_rng(epoch)
            for one in rng.permutation(10).tolist():
                ids = rng.permutation(rows["id"][rows["label_given"] == one].to_numpy(np.int64))
                found.states.append({name: value.clone() for name, value in model.state_dict().items()})
                found.batches.append(ids)
                found.labels.append(one)
                if len(found.batches) - 1 == stop:
                    raise KeyboardInterrupt
                with recorder.step(name_ids(ids), label=one if label else -1, epoch=epoch) as row:
                    made = Row(row.step, epoch, one, ids, ids[:0])
                    step(made)
                    row.loss = made.loss if losses else float("nan")
    found.states.append({name: value.clone() for name, value in model.state_dict().items()})
    return found


def config(store: Path, url: Path, **updates: object) -> Tree:
    """A config that asks question 4 of an archive."""
    return {
        "name": "elsewhere",
        "store": str(store),
        "cluster": {"kind": "serial"},
        "data": {"digits": copy.deepcopy(DATA)},
        "networks": {
            "mine": {
                "model": "tests.own_loop:build",
                "updates": {"url": str(url), **updates} if updates else str(url),
                "preprocessing": {"mode": "L"},
            }
        },
        "tracing": {"networks": ["mine"], "queries": {"count": 4}},
    }
