"""Small sets of graphs for tests, and the network of Eq. 8 in loops over nodes and edges."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tasks.graphs import Graph, pack_graph
from tasks.io.graph_models import GraphLayer, GraphNetwork, graph_network

Arrays = dict[str, NDArray[np.integer]]


def graph_arrays(n: int = 24, seed: int = 0) -> Arrays:
    """Graphs of 3 to 7 nodes in two classes, in the arrays of a file: those of class 1 have nodes of label 2."""
    rng = np.random.default_rng(seed)
    pointers, labels, source, target, classes = [0], [], [], [], []
    for g in range(n):
        nodes, kind = int(rng.integers(3, 8)), g % 2
        labels += [*rng.integers(0, 2, nodes - 1).tolist(), 2 if kind else 0]
        pairs = [(i, i + 1) for i in range(nodes - 1)] + [(0, int(rng.integers(2, nodes)))]
        for first, second in dict.fromkeys(pairs):
            source += [pointers[-1] + first, pointers[-1] + second]
            target += [pointers[-1] + second, pointers[-1] + first]
        pointers.append(pointers[-1] + nodes)
        classes.append(kind)
    return {
        "node_ptr": np.array(pointers, np.int32),
        "edge_src": np.array(source, np.int32),
        "edge_dst": np.array(target, np.int32),
        "node_label": np.array(labels, np.uint8),
        "graph_label": np.array(classes, np.uint8),
    }


def write_graphs(path: Path, arrays: Arrays | None = None) -> Path:
    """Write a file of graphs."""
    np.savez(path, **(graph_arrays() if arrays is None else arrays))  # type: ignore[arg-type]  # the stub's flag
    return path


def some_graphs(n: int = 6, seed: int = 0) -> list[Graph]:
    """Return graphs of a set."""
    arrays = graph_arrays(n, seed)
    found, pointers = [], arrays["node_ptr"].tolist()
    for start, stop in pairwise(pointers):
        mine = (arrays["edge_src"] >= start) & (arrays["edge_src"] < stop)
        source, target = (arrays[name][mine].astype(np.int64) - start for name in ("edge_src", "edge_dst"))
        nodes = arrays["node_label"][start:stop].astype(np.int64)
        found.append(Graph(nodes, source, target, np.zeros((len(source), 0), np.float32), 3))
    return found


def packed(graphs: list[Graph]) -> Tensor:
    """Return graphs as a batch of vectors."""
    nodes, edges = max(len(graph.nodes) for graph in graphs), max(len(graph.source) for graph in graphs)
    return torch.from_numpy(np.stack([pack_graph(graph, nodes, edges) for graph in graphs]))


def small_network(layers: int = 2, width: int = 4, *, ends: bool = True, pool: str = "mean") -> GraphNetwork:
    """Return a network in evaluation mode with running statistics that are not those of its start."""
    torch.manual_seed(0)
    network = graph_network(3, 2, width, layers, ends=ends, pool=pool)
    assert isinstance(network, GraphNetwork)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean = torch.randn_like(module.weight) * 0.3
            module.running_var = torch.rand_like(module.weight) + 0.5
    return network.eval().requires_grad_(False)


def by_loops(network: GraphNetwork, graph: Graph, inputs: dict[str, list[Tensor]] | None = None) -> Tensor:
    """Return the logits of one graph in float64, node by node and edge by edge.

    Parameters
    ----------
    inputs : gets what each linear layer sees, row by row, by the layer's name
    """
    kept = {} if inputs is None else inputs
    one_hot = torch.eye(3, dtype=torch.float64)
    first = [one_hot[label] for label in graph.nodes.tolist()]
    h = list(first)
    for number, layer in enumerate(network.layers):
        assert isinstance(layer, GraphLayer)
        if number:
            h = [value.clamp(min=0) for value in h]
        sums = [torch.zeros_like(h[0]) for _ in h]
        for u, v in zip(graph.source.tolist(), graph.target.tolist(), strict=True):
            message = h[u]
            if layer.edge is not None:
                phi = torch.cat([first[u], first[v]])
                kept.setdefault(f"layers.{number}.edge", []).append(phi)
                message = message + layer.edge.weight.double() @ phi
            sums[v] = sums[v] + message.clamp(min=0)
        made = []
        for value in sums:
            kept.setdefault(f"layers.{number}.first", []).append(value)
            hidden = _normed(layer.first_norm, layer.first.weight.double() @ value).clamp(min=0)
            kept.setdefault(f"layers.{number}.second", []).append(hidden)
            made.append(_normed(layer.second_norm, layer.second.weight.double() @ hidden))
        h = made
    pooled = torch.stack(h).sum(dim=0)
    pooled = pooled / len(h) if network.pool == "mean" else pooled
    kept.setdefault("output", []).append(pooled)
    return (network.output.weight.double() @ pooled).detach()


def _normed(norm: nn.BatchNorm1d, value: Tensor) -> Tensor:
    """Return a row after batch norm in evaluation mode."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return (value - norm.running_mean.double()) * scale + norm.bias.double()
