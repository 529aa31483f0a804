"""Files of graphs and in-memory data sets of torch_geometric, and one line for each fault in them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from configs.schema import AnyDataSet
from tasks.graphs import Graph, unpack_graph
from tasks.io.manifest import read_manifest
from tasks.io.samples import Vector
from tasks.io.sources import Source, open_source
from tests.graph_sets import Arrays, graph_arrays, write_graphs

EDGES = np.zeros(0, np.int32)
Values = dict[str, Any]  # Any: YAML


def opened(path: Path, **more: object) -> Source:
    settings: Values = {"source": "graph-npz", "paths": {"all": str(path)}, **more}
    return open_source(TypeAdapter(AnyDataSet).validate_python(settings))


def graph_of(source: Source, key: str) -> Graph:
    image = source.read([key])[0].image
    assert isinstance(image, Vector)
    return unpack_graph(image.values)


def test_graphs_are_those_of_the_file(tmp_path: Path) -> None:
    arrays = graph_arrays(8)
    source = opened(write_graphs(tmp_path / "graphs.npz", arrays))
    assert [(row.key, row.label, row.split) for row in source.rows()] == [(f"all/{i}", i % 2, "all") for i in range(8)]
    for g in range(8):
        start, stop = arrays["node_ptr"][g : g + 2].tolist()
        mine = (arrays["edge_src"] >= start) & (arrays["edge_src"] < stop)
        graph = graph_of(source, f"all/{g}")
        assert graph.labels == 3
        np.testing.assert_array_equal(graph.nodes, arrays["node_label"][start:stop])
        np.testing.assert_array_equal(graph.source + start, arrays["edge_src"][mine])
        np.testing.assert_array_equal(graph.target + start, arrays["edge_dst"][mine])


def test_edges_may_lie_in_any_order_and_type(tmp_path: Path) -> None:
    arrays = graph_arrays(4)
    order = np.random.default_rng(0).permutation(len(arrays["edge_src"]))
    mixed: Arrays = {name: values.astype(np.int64) for name, values in arrays.items()}
    mixed |= {name: mixed[name][order] for name in ("edge_src", "edge_dst")}
    for g in range(4):
        plain = graph_of(opened(write_graphs(tmp_path / "a.npz", arrays)), f"all/{g}")
        other = graph_of(opened(write_graphs(tmp_path / "b.npz", mixed)), f"all/{g}")
        pairs = [sorted(zip(x.source.tolist(), x.target.tolist(), strict=True)) for x in (plain, other)]
        assert pairs[0] == pairs[1]


def test_labels_of_graphs_are_mapped(tmp_path: Path) -> None:
    arrays = graph_arrays(6)
    arrays["graph_label"] = np.array([-1, 1, 1, -1, 1, 1])
    path = write_graphs(tmp_path / "graphs.npz", arrays)
    rows = list(opened(path, classes={-1: 0, 1: 1}).rows())
    assert [row.label for row in rows] == [0, 1, 1, 0, 1, 1]
    with pytest.raises(ValueError, match="graph 1: expected labels of `classes`, found 1; map it by `classes`"):
        opened(path, classes={-1: 0})


def test_edge_labels_become_features_of_edges(tmp_path: Path) -> None:
    arrays = graph_arrays(4)
    arrays["edge_label"] = np.arange(len(arrays["edge_src"])) % 3
    graph = graph_of(opened(write_graphs(tmp_path / "graphs.npz", arrays)), "all/0")
    np.testing.assert_array_equal(graph.edges, np.eye(3)[np.arange(len(graph.source)) % 3])


def test_splits_share_one_size(tmp_path: Path) -> None:
    paths = {
        name: str(write_graphs(tmp_path / f"{name}.npz", graph_arrays(6, s))) for s, name in enumerate(("train", "val"))
    }
    source = opened(tmp_path, paths=paths)
    assert [row.key for row in source.rows()][5:7] == ["train/5", "val/0"]
    images = [sample.image for sample in source.read(["train/0", "val/3"])]
    assert len({len(image.values) for image in images if isinstance(image, Vector)}) == 1


def test_the_manifest_draws_splits_by_class(tmp_path: Path) -> None:
    path = write_graphs(tmp_path / "graphs.npz")
    settings = {"source": "graph-npz", "paths": {"all": str(path)}, "split": {"train": 0.75, "val": 0.25}}
    table = read_manifest(TypeAdapter(AnyDataSet).validate_python(settings))
    assert table.groupby(["split", "label_given"]).size().tolist() == [9, 9, 3, 3]


def changed(**more: object) -> Arrays:
    """Return arrays of four graphs with other arrays, or without those that are None."""
    arrays = {**graph_arrays(4), **more}
    return {name: np.asarray(values) for name, values in arrays.items() if values is not None}


def with_value(name: str, at: int, value: int) -> Arrays:
    arrays: Arrays = {key: values.astype(np.int64) for key, values in graph_arrays(4).items()}
    arrays[name][at] = value
    return arrays


def without_edges(graph: int) -> Arrays:
    arrays = graph_arrays(4)
    start, stop = arrays["node_ptr"][graph : graph + 2]
    kept = (arrays["edge_src"] < start) | (arrays["edge_src"] >= stop)
    return arrays | {name: arrays[name][kept] for name in ("edge_src", "edge_dst")}


def without_nodes() -> Arrays:
    """An empty graph between the first and the second."""
    arrays = graph_arrays(4)
    pointers = np.insert(arrays["node_ptr"], 1, arrays["node_ptr"][1])
    return arrays | {"node_ptr": pointers, "graph_label": np.array([0, 1, 1, 0, 1])}


FAULTS: dict[str, tuple[Arrays, str]] = {
    "no array": (changed(edge_dst=None), "expected an array 'edge_dst', found"),
    "floats": (changed(node_label=np.ones(3)), r"array 'node_label': expected integers \(n,\), found float64"),
    "two axes": (
        changed(edge_src=np.ones((2, 2), int)),
        r"array 'edge_src': expected integers \(n,\), found int64 \(2, 2\)",
    ),
    "negative": (
        with_value("graph_label", 1, -1),
        "graph 1: expected labels from 0, found -1; map it by `classes`",
    ),
    "negative node": (with_value("edge_src", 0, -2), "array 'edge_src': expected numbers from 0"),
    "ends differ": (
        changed(edge_dst=np.ones(5, int)),
        "array 'edge_dst': expected .* numbers, as edge_src has, found 5",
    ),
    "labels differ": (
        changed(graph_label=np.ones(3, int)),
        "array 'graph_label': expected 4 numbers, as node_ptr less one",
    ),
    "edge labels differ": (
        changed(edge_label=np.ones(3, int)),
        "array 'edge_label': expected .* as edge_src has, found 3",
    ),
    "pointers begin late": (
        with_value("node_ptr", 0, 1),
        "array 'node_ptr': expected at least two numbers that rise from 0",
    ),
    "pointers fall": (
        with_value("node_ptr", 1, 20),
        "array 'node_ptr': expected at least two numbers that rise from 0",
    ),
    "pointers end early": (
        with_value("node_ptr", 4, 3),
        "array 'node_ptr': expected at least two numbers that rise from 0",
    ),
    "no pointers": (
        changed(node_ptr=EDGES, graph_label=EDGES),
        r"array 'node_ptr': expected at least two numbers .*, found \[\]",
    ),
    "edge label too large": (
        changed(edge_label=np.full(len(graph_arrays(4)["edge_src"]), 10**6)),
        "array 'edge_label': expected numbers from 0 to 9,999, found 1000000",
    ),
    "node label too large": (
        with_value("node_label", 2, 2**24),
        "array 'node_label': expected numbers from 0 to 999,999, found 16777216",
    ),
    "no graphs": (
        changed(node_ptr=np.zeros(1, int), graph_label=EDGES),
        "array 'node_ptr': expected at least two numbers",
    ),
    "node outside": (with_value("edge_dst", 2, 999), "edge 2: expected nodes from 0 to .*, found .* to 999"),
    "across graphs": (
        with_value("edge_dst", 0, 20),
        "edge 0: expected both nodes in one graph, found node 0 of graph 0 and",
    ),
    "no nodes": (without_nodes(), "graph 1: expected at least one node, found none; leave the graph out"),
    "no edges": (without_edges(2), "graph 2: expected at least one edge, found none, .* or set `edgeless: keep`"),
}


@pytest.mark.parametrize(("arrays", "words"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line(tmp_path: Path, arrays: Arrays, words: str) -> None:
    path = write_graphs(tmp_path / "graphs.npz", arrays)
    with pytest.raises(ValueError, match=words) as error:
        list(opened(path).rows())
    assert "\n" not in str(error.value)
    assert "graphs.npz" in str(error.value)


def test_graphs_without_edges_are_kept_if_asked_for(tmp_path: Path) -> None:
    path = write_graphs(tmp_path / "graphs.npz", without_edges(2))
    assert len(graph_of(opened(path, edgeless="keep"), "all/2").source) == 0
    path = write_graphs(tmp_path / "none.npz", changed(edge_src=EDGES, edge_dst=EDGES))
    assert len(graph_of(opened(path, edgeless="keep"), "all/0").source) == 0


@pytest.mark.parametrize("table", [2, ["C", "N"]])
def test_a_label_outside_the_table_is_one_line(tmp_path: Path, table: object) -> None:
    arrays = graph_arrays(4)
    path = write_graphs(tmp_path / "graphs.npz", arrays)
    last = int(arrays["node_ptr"][2] - arrays["node_ptr"][1]) - 1
    words = f"graph 1, node {last}: expected a label from 0 to 1, as node_labels says, found 2"
    with pytest.raises(ValueError, match=words):
        opened(path, node_labels=table)
    assert graph_of(opened(path, node_labels=9), "all/0").labels == 9


@pytest.mark.parametrize(
    ("names", "found"), [(["C", "N", "C"], "'C' twice"), (["C", " "], "an empty name"), ([], "no names")]
)
def test_node_labels_are_different_names(tmp_path: Path, names: list[str], found: str) -> None:
    with pytest.raises(ValueError, match=f"node_labels: expected a name of its own for each label, found {found}"):
        opened(write_graphs(tmp_path / "graphs.npz"), node_labels=names)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_file_that_is_not_an_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "graphs.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="corrupted, or not an archive of numbers"):
        opened(path)
    with pytest.raises(ValueError, match=r"file .*none.npz"):
        opened(tmp_path / "none.npz")


def test_edge_labels_are_in_all_splits_or_none(tmp_path: Path) -> None:
    arrays = graph_arrays(4)
    train = write_graphs(tmp_path / "train.npz", arrays | {"edge_label": arrays["edge_src"] * 0})
    val = write_graphs(tmp_path / "val.npz", arrays)
    with pytest.raises(ValueError, match=r"val.npz: expected an array 'edge_label', as in the other splits"):
        opened(tmp_path, paths={"train": str(train), "val": str(val)})


def test_a_missing_sample_is_named(tmp_path: Path) -> None:
    source = opened(write_graphs(tmp_path / "graphs.npz", graph_arrays(4)))
    for key in ("all/4", "val/0", "all/x"):
        with pytest.raises(ValueError, match=f"sample {key}: expected it in the data set"):
            source.read([key])
