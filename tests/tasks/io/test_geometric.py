"""In-memory data sets of torch_geometric by import path, against the arrays that they were made from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from configs.schema import AnyDataSet
from tasks.graphs import unpack_graph
from tasks.io.samples import Vector
from tasks.io.sources import Source, open_source
from tests.graph_sets import some_graphs

pytest.importorskip("torch_geometric", reason="the extra `graph` is not installed")

MODULE = """
import torch
from torch_geometric.data import Data, InMemoryDataset


class Set(InMemoryDataset):
    def __init__(self, graphs):
        super().__init__(None)
        self.data, self.slices = self.collate(graphs)


def made(path, **changes):
    graphs = [Data(**parts) for parts in torch.load(path, weights_only=True)]
    for name, value in changes.items():
        for graph in graphs:
            graph[name] = value if value is None else torch.tensor(value)
    return Set(graphs)


def plain():
    return [1, 2]


def other(path, kind):
    found = made(path)
    if kind == "bfloat16":
        found.data.x = found.data.x.bfloat16()
    elif kind == "sparse":
        graphs = [found[i] for i in range(len(found))]
        for graph in graphs:
            graph.x = graph.x.to_sparse()
        found = Set(graphs)
    elif kind == "key":
        raise KeyError("name")
    elif kind == "division":
        1 / 0
    else:
        found.transform = lambda graph: graph.x[:, 99]
    return found
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "own_graphs.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    parts = []
    for i, graph in enumerate(some_graphs(4)):
        edges = torch.from_numpy(np.stack([graph.source, graph.target]))
        features = torch.arange(2.0 * len(graph.source)).reshape(-1, 2)
        x = torch.eye(3)[torch.from_numpy(graph.nodes)]
        parts.append({"x": x, "edge_index": edges, "edge_attr": features, "y": torch.tensor([i % 2])})
    path = tmp_path / "graphs.pt"
    torch.save(parts, path)
    return path


def opened(name: str, **arguments: Any) -> Source:  # Any: the user's own
    settings = {"source": "torch-geometric", "object": f"own_graphs:{name}", "arguments": arguments}
    return open_source(TypeAdapter(AnyDataSet).validate_python(settings))


@pytest.mark.filterwarnings("ignore")  # of torch_geometric
def test_graphs_are_those_of_the_data_set(module: Path) -> None:
    source = opened("made", path=str(module))
    assert [(row.key, row.label, row.split) for row in source.rows()] == [(f"all/{i}", i % 2, "all") for i in range(4)]
    for expected, sample in zip(some_graphs(4), source.read([f"all/{i}" for i in range(4)]), strict=True):
        assert isinstance(sample.image, Vector)
        graph = unpack_graph(sample.image.values)
        np.testing.assert_array_equal(graph.nodes, np.eye(3)[expected.nodes])
        np.testing.assert_array_equal(graph.source, expected.source)
        np.testing.assert_array_equal(graph.target, expected.target)
        np.testing.assert_array_equal(graph.edges, np.arange(2.0 * len(expected.source)).reshape(-1, 2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("plain", None, "expected an InMemoryDataset, found a list"),
        ("made", {"wrong": 1}, "graph 0: y|edge_index|missing"),
        ("made", {"y": [0, 1]}, "graph 0: y: expected one integer, found int64"),
        ("made", {"y": [0.5]}, "graph 0: y: expected one integer, found float32"),
        ("made", {"edge_index": [[0, 1]]}, r"graph 0: edge_index: expected integers \(2, E\)"),
        ("made", {"edge_index": [[0], [99]], "edge_attr": [[1.0]]}, "graph 0: edge_index: expected nodes from 0 to"),
        ("made", {"edge_attr": [[1.0]]}, "graph 0: edge_attr: expected numbers"),
        ("missing", {}, "own_graphs:missing"),
    ],
)
def test_a_fault_is_one_line(module: Path, name: str, changes: dict[str, object] | None, words: str) -> None:
    if changes == {"wrong": 1}:
        changes = {"y": None}
    arguments = {} if changes is None else {"path": str(module), **changes}
    with pytest.raises(ValueError, match=words) as error:
        opened(name, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["bfloat16", "sparse"])
def test_features_of_other_types(module: Path, kind: str) -> None:
    source = opened("other", path=str(module), kind=kind)
    for expected, sample in zip(some_graphs(4), source.read([f"all/{i}" for i in range(4)]), strict=True):
        assert isinstance(sample.image, Vector)
        np.testing.assert_array_equal(unpack_graph(sample.image.values).nodes, np.eye(3)[expected.nodes])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("key", "torch-geometric own_graphs:other: KeyError: 'name'"),
        ("division", "torch-geometric own_graphs:other: ZeroDivisionError: division by zero"),
        ("transform", "torch-geometric own_graphs:other: graph 0: IndexError: .*99.*"),
    ],
)
def test_an_error_of_the_data_set_itself_names_it(module: Path, kind: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        opened("other", path=str(module), kind=kind)


@pytest.mark.filterwarnings("ignore")
def test_question_4_takes_such_a_data_set(module: Path, tmp_path: Path) -> None:
    from storage.stages import open_finished
    from tests.conftest import Run
    from tests.plans import traces

    train = {
        "data": "own",
        "epochs": 2,
        "optimizer": {"kind": "sgd", "lr": 0.05},
        "batches": {"kind": "single-class", "size": 2, "ghosts": 2},
        "record": {"kind": "dense"},
    }
    sizes = {"nodes": 3, "classes": 2, "width": 4, "layers": 1, "edges": 2}
    source = {"source": "torch-geometric", "object": "own_graphs:made", "arguments": {"path": str(module)}}
    run = Run.of(
        {
            "name": "own",
            "store": str(tmp_path / "lore"),
            "cluster": {"kind": "serial"},
            "data": {"own": {**source, "split": {"train": 0.5, "val": 0.5}}},
            "networks": {"deep": {"model": "graph-network", "arguments": sizes, "train": train}},
            "tracing": {"networks": ["deep"], "queries": {"split": "val", "count": 2}},
        }
    )
    run.finish()
    (trace,) = traces(run.plan)
    stage = open_finished(run.job.store, trace.contributions)
    for layer in ("layers.0.edge", "layers.0.first", "layers.0.second", "output"):
        total = stage.read(f"gamma.{layer}").astype(np.float64).sum(axis=0) + stage.read(f"init.{layer}")
        square = stage.read(f"preactivation.{layer}").astype(np.float64) ** 2
        np.testing.assert_allclose(total.astype(np.float64), square, rtol=1e-4)
