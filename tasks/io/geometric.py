"""In-memory data sets of torch_geometric as graphs."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.graphs import Graph


def read_data_set(
    made: Any,  # Any: the user's object
    path: str,
    arguments: Mapping[str, Any],  # Any: keyword arguments of that object
) -> tuple[list[Graph], list[int]]:
    """Return the graphs and labels of a data set, in its order.

    Parameters
    ----------
    made : class or function of the data set
    path : its import path, for errors
    arguments : keyword arguments

    Raises
    ------
    ValueError : not such a data set, or a graph that cannot be used; the message names it
    """
    try:
        from torch_geometric.data import InMemoryDataset
    except ImportError as error:
        raise ValueError(
            f"torch-geometric: {error}; install the extra `graph`: pip install layerlore[graph]"
        ) from error
    with _named(path):
        data = made(**arguments)
    if not isinstance(data, InMemoryDataset):
        raise ValueError(f"torch-geometric {path}: expected an InMemoryDataset, found a {type(data).__name__}")
    if not len(data):
        raise ValueError(f"torch-geometric {path}: expected graphs, found none")
    pairs = []
    for i in range(len(data)):
        with _named(f"{path}: graph {i}"):
            one = data[i]  # a data set may have a transform
        pairs.append(_graph(one, f"torch-geometric {path}: graph {i}"))
    sizes = {(graph.nodes.shape[1], graph.edges.shape[1]) for graph, _ in pairs}
    if len(sizes) > 1:
        first, second = sorted(sizes)[:2]
        raise ValueError(
            f"torch-geometric {path}: expected features of one size in all graphs, found {first} and {second} of nodes "
            "and edges"
        )
    return [graph for graph, _ in pairs], [label for _, label in pairs]


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Name the data set in an error of its own code."""
    try:
        yield
    except Exception as error:  # of a user's code, or of a damaged file that it reads
        kind = "" if isinstance(error, OSError | RuntimeError | ValueError) else f"{type(error).__name__}: "
        raise ValueError(f"torch-geometric {where}: {kind}{' '.join(str(error).split())}") from error


def _graph(data: Any, where: str) -> tuple[Graph, int]:  # Any: torch_geometric's Data
    """Return a graph and its label."""
    ends, label = _array(data.edge_index, f"{where}: edge_index"), _array(data.y, f"{where}: y")
    if label.size != 1 or label.dtype.kind not in "iub":
        raise ValueError(f"{where}: y: expected one integer, found {label.dtype} {label.shape}")
    if ends.ndim != 2 or len(ends) != 2 or ends.dtype.kind not in "iu":
        raise ValueError(f"{where}: edge_index: expected integers (2, E), found {ends.dtype} {ends.shape}")
    number = int(data.num_nodes)
    # a data set without features: all nodes are alike, as in the paper's ogbg-ppa
    nodes = np.ones((number, 1), np.float32) if data.x is None else _features(data.x, number, f"{where}: x")
    if ends.size and (ends.min() < 0 or ends.max() >= number):
        raise ValueError(
            f"{where}: edge_index: expected nodes from 0 to {number - 1}, found {ends.min()} to {ends.max()}"
        )
    count = ends.shape[1]
    none = np.zeros((count, 0), np.float32)
    edges = none if data.edge_attr is None else _features(data.edge_attr, count, f"{where}: edge_attr")
    return Graph(nodes, ends[0].astype(np.int64), ends[1].astype(np.int64), edges), int(label.reshape(-1)[0])


def _features(values: Any, count: int, where: str) -> NDArray[np.float32]:  # Any: a tensor
    """Return features (count, d) of nodes or edges."""
    found = _array(values, where)
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != count or found.dtype.kind not in "iufb":
        raise ValueError(f"{where}: expected numbers ({count}, d), found {found.dtype} {found.shape}")
    wide = found.astype(np.float32)
    if not np.isfinite(wide).all():
        raise ValueError(f"{where}: expected finite numbers, found NaN or infinity")
    return wide


def _array(values: Any, where: str) -> NDArray[Any]:  # Any: a tensor of any type
    """Return a tensor as an array."""
    if not hasattr(values, "to_dense"):
        raise ValueError(f"{where}: expected a tensor, found {'none' if values is None else type(values).__name__}")
    dense = values.detach().cpu().to_dense()
    found: NDArray[Any] = (dense.float() if str(dense.dtype) == "torch.bfloat16" else dense).numpy()
    return found
