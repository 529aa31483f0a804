"""A batch of graphs as one graph, whose nodes and edges are rows of tensors."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tasks.graphs.packing import HEAD


@dataclass(frozen=True)
class Batch:
    """Graphs of a batch as one graph.

    Parameters
    ----------
    nodes : (N, d) float features of all nodes; labels are one-hot
    source, target : (E,) int64 nodes of each edge, by their index in the batch
    edges : (E, d) float
    node_counts, edge_counts : (n,) int64 of each graph
    """

    nodes: Tensor
    source: Tensor
    target: Tensor
    edges: Tensor
    node_counts: Tensor
    edge_counts: Tensor


def unpack_batch(vectors: Tensor) -> Batch:
    """Return the graphs of vectors (n, K) of one data set as one graph.

    Raises
    ------
    ValueError : not such vectors
    """
    if vectors.ndim != 2 or vectors.shape[1] < HEAD or not len(vectors):
        raise ValueError(f"expected graphs as vectors (n, K), found an input of shape {tuple(vectors.shape)}")
    heads = vectors[:, :HEAD].detach().cpu().long()
    most_nodes, most_edges, width, d, labels = heads[0, 2:].tolist()
    size = HEAD + most_nodes * width + most_edges * (2 + d)
    if vectors.shape[1] != size or bool((heads[:, 2:] != heads[0, 2:]).any()):
        raise ValueError(f"expected graphs of one data set as vectors of {size} numbers, found {vectors.shape[1]}")
    sections = torch.split(vectors[:, HEAD:], [most_nodes * width, most_edges, most_edges, most_edges * d], dim=1)
    counts, edge_counts = heads[:, 0], heads[:, 1]
    there = (torch.arange(most_nodes) < counts[:, None]).to(vectors.device)
    is_edge = (torch.arange(most_edges) < edge_counts[:, None]).to(vectors.device)
    nodes = sections[0].reshape(len(vectors), most_nodes, width)[there]
    first = (counts.cumsum(0) - counts).repeat_interleave(edge_counts).to(vectors.device)
    return Batch(
        functional.one_hot(nodes[:, 0].long(), labels).to(vectors.dtype) if labels else nodes,
        sections[1][is_edge].long() + first,
        sections[2][is_edge].long() + first,
        sections[3].reshape(len(vectors), most_edges, d)[is_edge],
        counts,
        edge_counts,
    )
