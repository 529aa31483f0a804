"""Bad graphs and settings of graph networks: one line that names the key, code 2, and nothing is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.flows.command import layerlore, refused
from tests.graph_sets import graph_arrays, write_graphs

Tree = dict[str, Any]  # Any: YAML


def small_tree(folder: Path) -> Tree:
    path = write_graphs(folder / "graphs.npz", graph_arrays(16))
    train = {
        "data": "graphs",
        "epochs": 1,
        "optimizer": {"kind": "sgd", "lr": 0.1},
        "batches": {"kind": "single-class", "size": 4, "ghosts": 4},
        "checkpoint_every": 9,
        "record": {"kind": "dense"},
    }
    return {
        "name": "graphs",
        "store": str(folder / "lore"),
        "cluster": {"kind": "serial"},
        "data": {"graphs": {"source": "graph-npz", "paths": {"all": str(path)}, "split": {"train": 0.75, "val": 0.25}}},
        "networks": {
            "deep": {"model": "graph-network", "arguments": {"nodes": 3, "classes": 2, "width": 4}, "train": train}
        },
        "tracing": {"networks": ["deep"], "queries": {"split": "val"}},
    }


BAD: dict[str, tuple[str, object, str]] = {
    "no paths": ("data.graphs.paths", {}, "data.graphs.paths: dictionary should have at least 1 item"),
    "no file": ("data.graphs.paths", {"all": "none.npz"}, "none.npz does not exist"),
    "label table": ("data.graphs.node_labels", 2, "expected a label from 0 to 1, as node_labels says, found 2"),
    "label number": (
        "data.graphs.node_labels",
        0,
        "data.graphs.node_labels: input should be greater than or equal to 1, found 0",
    ),
    "edgeless": ("data.graphs.edgeless", "drop", "data.graphs.edgeless: input should be 'refuse' or 'keep'"),
    "nodes": ("networks.deep.arguments.nodes", 4, "expected 4 features of nodes, as its arguments state, found 3"),
    "edges": ("networks.deep.arguments.edges", 2, "expected 2 features of edges, as its arguments state, found 0"),
    "layers": ("networks.deep.arguments.layers", 0, "layers: expected at least 1, found 0"),
    "pool": ("networks.deep.arguments.pool", "max", "pool: expected one of mean, sum, found 'max'"),
    "argument": ("networks.deep.arguments.depth", 3, "depth"),
    "classes": ("networks.deep.arguments.classes", 1, "data graphs: expected labels 0 to 0"),
    "augment": ("networks.deep.train.augment", {"flip": True}, "train.augment: expected images, found graphs"),
    "preprocessing": (
        "networks.deep.preprocessing",
        {"mode": "L"},
        "expected an image for preprocessing.mode, found a vec",
    ),
    "mapping": ("data.graphs.classes", {0: 0}, "graph 1: expected labels of `classes`, found 1; map it by `classes`"),
    "layer names": ("tracing.layers", ["layers.7.first"], "tracing.layers: expected recorded layers"),
    "unit": ("tracing.units", ["layers.0.first:99"], "tracing.units: expected layers.0.first:0 to layers.0.first:7"),
    "sequence network": (
        "networks.deep",
        {"model": "lstm", "arguments": {"vocabulary": 999}},
        "networks.deep: expected sequences (n, steps, numbers) or images for this model, found graphs as vectors",
    ),
    "image network": ("networks.deep", {"model": "small-cnn"}, "networks.deep"),
}


def planned(folder: Path, tree: Tree) -> str:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    text = refused(layerlore("plan", str(path)))
    assert not (folder / "lore").exists()
    return text


@pytest.mark.parametrize(("key", "value", "words"), BAD.values(), ids=BAD)
def test_a_bad_setting_is_one_line(tmp_path: Path, key: str, value: object, words: str) -> None:
    tree = small_tree(tmp_path)
    *place, last = key.split(".")
    node = tree
    for name in place:
        node = node[name]
    node[last] = {"train": node[last]["train"], **value} if last == "deep" and isinstance(value, dict) else value
    assert words in planned(tmp_path, tree)


FAULTS = {
    "no nodes": ("node_ptr", lambda a: np.insert(a, 1, a[1]), "graph 1: expected at least one node, found none"),
    "across": ("edge_dst", lambda a: np.concatenate([[30], a[1:]]), "edge 0: expected both nodes in one graph"),
    "type": ("edge_src", lambda a: a.astype(np.float32), "array 'edge_src': expected integers (n,), found float32"),
    "length": ("edge_src", lambda a: a[:-1], "as edge_src has"),
}


@pytest.mark.parametrize(("name", "change", "words"), FAULTS.values(), ids=FAULTS)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str, change: Any, words: str) -> None:  # Any: a function
    tree, arrays = small_tree(tmp_path), graph_arrays(16)
    more = {"graph_label": np.arange(17) % 2} if name == "node_ptr" else {}
    write_graphs(tmp_path / "graphs.npz", arrays | {name: change(arrays[name])} | more)
    assert words in planned(tmp_path, tree)


@pytest.mark.parametrize("question", ["interpretation", "decomposition", "concepts"])
def test_questions_of_images_refuse_graphs_in_one_line(tmp_path: Path, question: str) -> None:
    tree = small_tree(tmp_path)
    del tree["tracing"]
    more: dict[str, Tree] = {
        "interpretation": {"selectors": {"random": {}}, "budgets": [1.0], "interpreters": {"ice": {"components": 2}}},
        "decomposition": {},
        "concepts": {"data": "graphs", "split": "val"},
    }
    tree[question] = {"networks": ["deep"], **more[question]}
    planned(tmp_path, tree)
