"""The network of Eq. 8 against loops over the nodes and edges of one graph at a time, in float64."""

import numpy as np
import pytest
import torch

from tasks.capture import capture_inputs, find_output_layer
from tasks.graphs import Graph
from tasks.io.graph_models import graph_network
from tasks.io.networks import build_model
from tasks.modules.rows import Rows, values_of
from tests.graph_sets import by_loops, packed, small_network, some_graphs


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("pool", ["mean", "sum"])
def test_logits_are_those_of_eq_8(layers: int, ends: bool, pool: str) -> None:
    network, graphs = small_network(layers, ends=ends, pool=pool), some_graphs(5)
    expected = torch.stack([by_loops(network, graph) for graph in graphs])
    with torch.inference_mode():
        found = network(packed(graphs))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        for graph, row in zip(graphs, found, strict=True):  # alone as in the batch
            np.testing.assert_allclose(network(packed([graph]))[0], row, rtol=1e-5, atol=1e-6)


def test_captured_inputs_are_the_rows_of_each_graph() -> None:
    network, graphs = small_network(2), some_graphs(4)
    names = ["layers.0.edge", "layers.0.first", "layers.1.edge", "layers.1.second", "output"]
    found = capture_inputs(network, names, packed(graphs))
    for g, graph in enumerate(graphs):
        expected: dict[str, list[torch.Tensor]] = {}
        by_loops(network, graph, expected)
        for name in names[:-1]:
            rows = found[name]
            assert isinstance(rows, Rows)
            np.testing.assert_allclose(rows[g : g + 1].values, torch.stack(expected[name]), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(values_of(found["output"])[g : g + 1], expected["output"], rtol=1e-4, atol=1e-5)


def test_a_graph_without_edges_gets_an_answer() -> None:
    none = np.empty(0, np.int64)
    graphs = [Graph(np.array([0, 2]), none, none, np.zeros((0, 0), np.float32), 3), *some_graphs(2)]
    network = small_network(2)
    np.testing.assert_allclose(network(packed(graphs))[0].detach(), by_loops(network, graphs[0]), rtol=1e-4, atol=1e-5)
    inputs = capture_inputs(network, ["layers.0.edge"], packed(graphs))["layers.0.edge"]
    assert isinstance(inputs, Rows)
    assert inputs.counts[0] == 0


def test_edge_features_enter_every_layer() -> None:
    torch.manual_seed(1)
    network = graph_network(3, 2, width=4, layers=2, edges=2).eval()
    graph = some_graphs(1)[0]
    features = np.random.default_rng(0).normal(size=(len(graph.source), 2)).astype(np.float32)
    made = Graph(graph.nodes, graph.source, graph.target, features, 3)
    rows = capture_inputs(network, ["layers.0.edge", "layers.1.edge"], packed([made]))
    for name in ("layers.0.edge", "layers.1.edge"):
        assert isinstance(rows[name], Rows)
        np.testing.assert_array_equal(values_of(rows[name]), features)


def test_a_network_of_one_layer_has_one_and_the_output_is_found() -> None:
    network = small_network(1)
    assert [name for name, _ in network.layers.named_children()] == ["0"]
    assert find_output_layer(network, packed(some_graphs(1))) == "output"


def test_data_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected 4 features of nodes, as its arguments state, found 3 in the data"):
        graph_network(4, 2)(packed(some_graphs(2)))
    with pytest.raises(ValueError, match=r"expected 2 features of edges, .* found 0 in the data"):
        graph_network(3, 2, edges=2)(packed(some_graphs(2)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"nodes": 0, "classes": 2}, "nodes: expected at least 1, found 0"),
        ({"nodes": 3, "classes": 2, "layers": 0}, "layers: expected at least 1, found 0"),
        ({"nodes": 3, "classes": 2, "edges": -1}, "edges: expected at least 0, found -1"),
        ({"nodes": 3, "classes": 2, "pool": "max"}, "pool: expected one of mean, sum, found 'max'"),
        ({"classes": 2}, "nodes"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build_model("graph-network", arguments, 0)


def test_the_paper_s_size_is_7_1_mb() -> None:
    network = graph_network(1, 37, width=300, layers=5, edges=7)
    size = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert 6.3e6 < size < 7.6e6, size
