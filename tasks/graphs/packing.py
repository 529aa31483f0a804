"""A graph in one vector, so that graphs are batched, kept, copied and compared like images.

The vector begins with HEAD sizes: nodes and edges of the graph, the largest of both in the data set, features of a node
and of an edge, and the number of node labels (0 where nodes have features). Then follow the sections of the nodes, of
the edges' sources and targets, and of the edges' features, each padded to the data set's largest graph. All numbers are
float32, which is exact for indices up to 2^24.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEAD = 7
MOST = 2**24  # the largest index that float32 knows

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Graph:
    """One graph.

    Parameters
    ----------
    nodes : (n, d) float32 features, or (n,) int64 labels
    source, target : (e,) int64 nodes of each edge
    edges : (e, d) float32 features, d = 0 for none
    labels : number of different node labels, 0 where nodes have features
    """

    nodes: Floats | Integers
    source: Integers
    target: Integers
    edges: Floats
    labels: int = 0


def pack_graph(graph: Graph, most_nodes: int, most_edges: int) -> Floats:
    """Return the vector of a graph in a data set with graphs of so many nodes and edges at most."""
    width = 1 if graph.labels else graph.nodes.shape[1]
    n, e, d = len(graph.nodes), len(graph.source), graph.edges.shape[1]
    found = np.zeros(HEAD + most_nodes * width + most_edges * (2 + d), np.float32)
    found[:HEAD] = n, e, most_nodes, most_edges, width, d, graph.labels
    start = HEAD
    for values, room in (
        (graph.nodes, most_nodes * width),
        (graph.source, most_edges),
        (graph.target, most_edges),
        (graph.edges, most_edges * d),
    ):
        found[start : start + values.size] = values.ravel()
        start += room
    return found


def unpack_graph(vector: Floats) -> Graph:
    """Return the graph of a vector."""
    n, e, most_nodes, most_edges, width, d, labels = (int(size) for size in vector[:HEAD])
    ends = np.cumsum([HEAD, most_nodes * width, most_edges, most_edges, most_edges * d]).tolist()
    nodes = vector[ends[0] : ends[0] + n * width]
    source, target = (vector[end : end + e].astype(np.int64) for end in ends[1:3])
    edges = vector[ends[3] : ends[3] + e * d].reshape(e, d)
    return Graph(nodes.astype(np.int64) if labels else nodes.reshape(n, width), source, target, edges, labels)


def summary_of(graph: Graph) -> NDArray[np.float64]:
    """Return what a graph has of each kind: nodes by label or summed features, summed features of edges, edges."""
    nodes = np.bincount(graph.nodes.astype(np.int64), minlength=graph.labels) if graph.labels else graph.nodes.sum(0)
    return np.concatenate([nodes, graph.edges.sum(axis=0), [len(graph.source)]]).astype(np.float64)


def picture_of(graph: Graph) -> tuple[Integers, Integers]:
    """Return what a picture of a graph shows: the label or largest feature of each node (n,), and its edges (e, 2)."""
    kinds = graph.nodes if graph.labels else graph.nodes.argmax(axis=1)
    return kinds.astype(np.int64), np.stack([graph.source, graph.target], axis=1)
