"""Graphs as inputs of a network: one vector per graph, and a batch of graphs as rows of nodes and edges.

`tasks.graphs.batches` has the tensors; what is here needs NumPy alone.
"""

from tasks.graphs.packing import Graph, pack_graph, picture_of, summary_of, unpack_graph

__all__ = ["Graph", "pack_graph", "picture_of", "summary_of", "unpack_graph"]
