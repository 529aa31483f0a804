"""What a user brings: a network and image folders of their own, a config file, a terminal."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmarks.kills.servers import Servers
from tasks.io.networks import build_model
from tests.deployments.conftest import clean_environment
from tests.flows.command import Tree, Write
from tests.shared import prefect_home

NETWORKS = '''
import torch
from torch import nn


class Small(nn.Module):
    """White images divide by zero; `gain` scales the map; `side` is the kernel of the only convolution."""

    def __init__(self, gain: float = 1.0, side: int = 3, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, side, padding=1 if side == 3 else 0)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, 2)
        self.gain = gain

    def forward(self, x):
        dark = 1 - (x.amin(dim=(1, 2, 3), keepdim=True) >= 1).float()
        maps = self.act(self.conv(x)) * self.gain / dark
        return self.fc(self.pool(maps).flatten(1))


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 2))
'''
_NUMBERS = itertools.count()


def save_image(path: Path, seed: int, mode: str = "RGB") -> None:
    """Write an 8 x 8 image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 200, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def add_image() -> Callable[..., None]:
    """Return a function that writes a noise image: path, seed, mode."""
    return save_image


@pytest.fixture
def folder_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A config on an image folder of 2 classes, 6 training and 3 validation images each, and a network by path."""
    module = f"networks_{next(_NUMBERS)}"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{module}.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    images = tmp_path / "images"
    for split, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("cat", "dog")):
            for number in range(count):
                save_image(images / split / name / f"{number}.png", 100 * label + 10 * count + number)
    torch.save(build_model(f"{module}:Small", {}, 0).state_dict(), tmp_path / "weights.pt")
    return {
        "name": "folder",
        "store": str(tmp_path / "store"),
        "cluster": {"kind": "serial"},
        "data": {"pets": {"source": "image-folder", "paths": {s: str(images / s) for s in ("train", "val")}}},
        "networks": {"net": {"model": f"{module}:Small", "weights": str(tmp_path / "weights.pt")}},
        "interpretation": {
            "networks": ["net"],
            "selectors": {"random": {}},
            "budgets": [0.5, 1.0],
            "interpreters": {"ice": {"components": 2}},
            "gallery": 2,
        },
    }


@pytest.fixture(scope="session")
def standing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The variables by which runs find a Prefect server that is there: one of their own takes as long as the run."""
    folder = tmp_path_factory.mktemp("standing")
    variables = {"PREFECT_HOME": str(prefect_home(tmp_path_factory, folder / "home"))}
    servers = Servers(folder, clean_environment(**variables, PREFECT_SERVER_ANALYTICS_ENABLED="false"))
    try:
        servers.prefect()
        yield {**variables, "PREFECT_API_URL": servers.environment["PREFECT_API_URL"]}
    finally:
        servers.stop()


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Terminals of one width, without colours."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a config file and returns its path."""

    def write_file(tree: Tree) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        return str(path)

    return write_file
