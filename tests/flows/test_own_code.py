"""A project of the user's own: its folder is searched after layerlore's, and its functions may return weights."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from configs.cluster import Cluster
from configs.imports import _BEHIND, behind, import_object
from configs.load import load_config
from flows.plan import make_plan
from storage.stages import open_finished
from tasks.cluster.parallel import open_pool
from tasks.steps.common.networks import load_network
from tests.conftest import Run
from tests.flows.command import layerlore, refused

Tree = dict[str, Any]  # Any: YAML
NET = """
import torch
from torch import nn
{imports}
def build(width=4, start=0):
    torch.manual_seed(start)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
"""


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A folder with the names of layerlore's packages in it; what it leaves in this process is taken back."""
    folder, before = tmp_path / "project", list(sys.path)
    known = list(_BEHIND)
    for name in ("tasks", "configs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
        (folder / name / "mine.py").write_text(NET.format(imports=""))
    yield folder
    sys.path[:] = before
    _BEHIND[:] = known
    for name in [name for name in sys.modules if name.startswith("own_net_")]:
        del sys.modules[name]


def config_of(project: Path, name: str, imports: str = "", **network: object) -> tuple[Path, Tree]:
    """Write a module with a model, and the file of a config that asks question 2 of it; return file and content."""
    (project / f"{name}.py").write_text(NET.format(imports=imports))
    tree = {
        "name": "own",
        "store": str(project.parent / "store"),
        "cluster": {"kind": "serial"},
        "data": {"digits": {"source": "sklearn-digits", "per_class": {"train": 6, "val": 3}}},
        "networks": {"mine": {"model": f"{name}:build", "preprocessing": {"mode": "L"}, **network}},
        "decomposition": {"networks": ["mine"], "k1": [2], "k2": [2], "gallery": 0},
    }
    path = project / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path, tree


def test_a_module_next_to_the_config_is_found_behind_ours(project: Path) -> None:
    path, _ = config_of(project, "own_net_a", weights="builder")
    plan = make_plan(load_config(str(path)))
    assert str(project) in behind()
    assert sys.path[-1] == str(project)
    import tasks

    assert Path(str(tasks.__file__)).parent != project / "tasks"
    (learn,) = {answer.learn for answer in plan.answers["decomposition"]}
    assert set(learn.digests) == {"code", "weights"}


def test_a_folder_of_code_is_found_from_a_config_elsewhere(project: Path, tmp_path: Path) -> None:
    _, tree = config_of(project, "own_net_b", weights="builder")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "config.yaml").write_text(yaml.safe_dump(tree))
    text = refused(layerlore("plan", str(elsewhere / "config.yaml")))
    assert "own_net_b" in text
    for given in (str(project), [str(project)]):
        (elsewhere / "config.yaml").write_text(yaml.safe_dump({**tree, "code": given}))
        assert layerlore("plan", str(elsewhere / "config.yaml")).exit_code == 0
    (elsewhere / "config.yaml").write_text(yaml.safe_dump({**tree, "code": str(tmp_path / "none")}))
    text = refused(layerlore("plan", str(elsewhere / "config.yaml")))
    assert "code: expected a folder, found" in text


@pytest.mark.parametrize(
    ("name", "imports", "model"),
    [
        ("own_net_c", "from tasks import mine", "own_net_c:build"),
        ("own_net_d", "import configs.mine", "own_net_d:build"),
        ("own_net_e", "", "tasks.mine:build"),
    ],
)
def test_a_clash_of_names_is_one_line_with_two_ways_out(project: Path, name: str, imports: str, model: str) -> None:
    path, _ = config_of(
        project, name, imports, train={"data": "digits", "epochs": 1, "optimizer": {"kind": "sgd", "lr": 1}}
    )
    text = refused(layerlore("plan", str(path), "--set", f"networks.mine.model={model}"))
    clash = "configs" if "configs" in imports else "tasks"
    assert f"{project} has a folder {clash}, which is also the name of a package of layerlore's" in text
    assert "rename yours, or move it into a package of your own and import it from there" in text


def test_the_weights_of_a_builder_are_those_that_it_returns(project: Path) -> None:
    path, tree = config_of(project, "own_net_f", weights="builder", arguments={"start": 3})
    plan = make_plan(load_config(str(path)))
    run = Run.of(tree).finish()
    (answer,) = run.plan.answers["decomposition"]
    model = import_object("own_net_f:build")(start=3)
    found = open_finished(run.job.store, answer.evaluate)
    kept = load_network(run.job.store, answer.evaluate, torch.device("cpu"))
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(kept.state_dict()[name].numpy(), value.numpy())
    assert found.summary["samples"] == 30
    other = make_plan(load_config(str(path), ["networks.mine.arguments.start=4"]))
    ours, theirs = (each.answers["decomposition"][0].learn for each in (plan, other))
    assert ours.digests["weights"] != theirs.digests["weights"]
    assert ours.digests["code"] == theirs.digests["code"]


def test_a_builder_whose_weights_are_not_finite_is_refused(project: Path) -> None:
    path, _ = config_of(project, "own_net_g", weights="builder")
    module = project / "own_net_g.py"
    module.write_text(
        module.read_text() + "\nplain = build\ndef build():\n    model = plain()\n"
        "    nn.init.constant_(model[0].weight, float('nan'))\n    return model\n"
    )
    text = refused(layerlore("plan", str(path)))
    assert "model own_net_g:build: expected finite numbers, found NaN or infinity in 0.weight" in text


@pytest.mark.cluster
def test_workers_search_the_folder_too(project: Path) -> None:
    path, _ = config_of(project, "own_net_h", weights="builder")
    load_config(str(path))
    with open_pool(Cluster(kind="local", workers=1), lambda _: None) as pool:
        ((_, built),) = pool.map(_width, ["own_net_h:build"])
    assert built == 4


def _width(model: str) -> int:
    """Return the channels of a model that a worker builds."""
    return int(import_object(model)()[0].out_channels)
