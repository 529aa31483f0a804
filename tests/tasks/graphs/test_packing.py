"""Graphs as vectors and back, and a batch of them as one graph."""

import numpy as np
import pytest
import torch

from tasks.graphs import Graph, pack_graph, picture_of, summary_of, unpack_graph
from tasks.graphs.batches import unpack_batch
from tests.graph_sets import packed, some_graphs


def features(n: int, seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    source, target = rng.integers(0, n, (2, 2 * n)).astype(np.int64)
    nodes, edges = rng.normal(size=(n, 3)), rng.normal(size=(2 * n, 2))
    return Graph(nodes.astype(np.float32), source, target, edges.astype(np.float32))


@pytest.mark.parametrize("graphs", [some_graphs(4), [features(3, 0), features(5, 1)]], ids=["labels", "features"])
def test_a_graph_comes_back_from_its_vector(graphs: list[Graph]) -> None:
    for graph, vector in zip(graphs, packed(graphs).numpy(), strict=True):
        found = unpack_graph(vector)
        for name in ("nodes", "source", "target", "edges"):
            np.testing.assert_array_equal(getattr(found, name), getattr(graph, name))
        assert found.labels == graph.labels


def test_a_batch_is_its_graphs_one_after_the_other() -> None:
    graphs = [features(3, 0), features(5, 1), features(2, 2)]
    batch = unpack_batch(packed(graphs))
    np.testing.assert_array_equal(batch.nodes, np.concatenate([graph.nodes for graph in graphs]))
    np.testing.assert_array_equal(batch.edges, np.concatenate([graph.edges for graph in graphs]))
    np.testing.assert_array_equal(batch.source[:6], graphs[0].source)
    np.testing.assert_array_equal(batch.source[6:16], graphs[1].source + 3)
    np.testing.assert_array_equal(batch.target[16:], graphs[2].target + 8)
    assert batch.node_counts.tolist() == [3, 5, 2]
    assert batch.edge_counts.tolist() == [6, 10, 4]


def test_labels_become_one_hot() -> None:
    graph = Graph(np.array([2, 0]), np.array([0]), np.array([1]), np.zeros((1, 0), np.float32), labels=4)
    assert unpack_batch(packed([graph])).nodes.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]


def test_a_graph_without_edges_has_a_vector() -> None:
    none = np.empty(0, np.int64)
    graph = Graph(np.array([1, 1]), none, none, np.zeros((0, 0), np.float32), labels=2)
    batch = unpack_batch(torch.from_numpy(pack_graph(graph, 3, 0))[None])
    assert batch.nodes.shape == (2, 2)
    assert batch.source.shape == (0,)


@pytest.mark.parametrize(
    ("vectors", "words"),
    [
        (torch.zeros(2, 3, 8, 8), "expected graphs as vectors"),
        (torch.zeros(0, 20), "expected graphs as vectors"),
        (torch.ones(2, 40), "expected graphs of one data set as vectors of"),
    ],
)
def test_other_inputs_are_refused(vectors: torch.Tensor, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unpack_batch(vectors)


def test_a_picture_shows_labels_or_the_largest_feature() -> None:
    kinds, edges = picture_of(some_graphs(1)[0])
    assert kinds.tolist() == some_graphs(1)[0].nodes.tolist()
    assert edges[:2].tolist() == [[0, 1], [1, 0]]
    graph = Graph(
        np.array([[0.1, 0.9], [3.0, -1.0]], np.float32), edges[:1, 0], edges[:1, 1], np.zeros((1, 0), np.float32)
    )
    assert picture_of(graph)[0].tolist() == [1, 0]


def test_a_summary_counts_what_a_graph_has() -> None:
    graph = Graph(
        np.array([2, 0, 2]), np.array([0, 1]), np.array([1, 0]), np.array([[1.0], [3.0]], np.float32), labels=4
    )
    assert summary_of(graph).tolist() == [1, 0, 2, 0, 4, 2]
    other = Graph(np.array([[0.5, 1.0], [2.0, -1.0]], np.float32), graph.source, graph.target, graph.edges)
    assert summary_of(other).tolist() == [2.5, 0.0, 4, 2]
