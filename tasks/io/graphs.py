"""Sources of graphs: NumPy archives, and in-memory data sets of torch_geometric."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from configs.datasets import GraphFile, TorchGeometric
from configs.imports import import_object
from tasks.graphs import Graph, pack_graph
from tasks.graphs.packing import MOST, Integers
from tasks.io.files import look_up, reason, shown
from tasks.io.npz import member_names, read_member
from tasks.io.samples import Row, Sample, Vector, array_digest

ARRAYS = ("node_ptr", "edge_src", "edge_dst", "node_label", "graph_label")
EDGE_LABEL = "edge_label"  # an archive may have it
LARGEST = {"node_label": 10**6 - 1, EDGE_LABEL: 9_999}  # each edge label is a feature of every edge


@dataclass(frozen=True)
class Graphs:
    """The graphs of a file or data set, and the label of each."""

    graphs: tuple[Graph, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class GraphSource:
    """Graphs by split, with keys `<split>/<index in the split>`; all graphs are padded to the largest."""

    splits: dict[str, Graphs]
    etags: dict[str, str]
    classes: dict[int, int] | None = None  # network output index by label, None for the labels themselves

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all graphs, splits in alphabetical order."""
        for split in sorted(self.splits):
            for i, label in enumerate(self.splits[split].labels):
                yield Row(
                    f"{split}/{i}",
                    label if self.classes is None else self.classes[label],
                    split,
                    4 * self._size,
                    self.etags[split],
                )

    def class_names(self) -> dict[int, str]:
        """Return no names: these sources do not have any."""
        return {}

    def read(self, keys: Sequence[str]) -> list[Sample]:
        """Return the graphs of `keys` as vectors."""
        found = []
        for key in keys:
            split, _, number = key.rpartition("/")
            graphs = self.splits[split].graphs if split in self.splits else ()
            if not number.isdecimal() or int(number) >= len(graphs):
                raise ValueError(f"sample {key}: expected it in the data set, found none; check whether it changed")
            vector = pack_graph(graphs[int(number)], *self._largest)
            found.append(Sample(Vector(vector), array_digest(vector)))
        return found

    @cached_property
    def _largest(self) -> tuple[int, int]:
        """The largest numbers of nodes and edges."""
        graphs = [graph for part in self.splits.values() for graph in part.graphs]
        return max(len(graph.nodes) for graph in graphs), max(len(graph.source) for graph in graphs)

    @cached_property
    def _size(self) -> int:
        """The numbers in the vector of a graph."""
        first = next(graph for part in self.splits.values() for graph in part.graphs)
        return len(pack_graph(first, *self._largest))


def open_graph_file(data: GraphFile) -> GraphSource:
    """Return the graphs of the archives of a config; each process reads an archive once.

    Raises
    ------
    ValueError : an archive that cannot be read, or does not hold graphs; the message names the graph
    """
    etags = {}
    for split, path in data.paths.items():
        try:
            etags[split] = look_up(str(Path(path).expanduser())).etag
        except OSError as error:
            raise ValueError(f"graph-npz: file {shown(path)} {reason(error)}") from error
    names = data.node_labels
    table = names if isinstance(names, int) else None if names is None else len(names)
    files = tuple((split, str(Path(path).expanduser().resolve()), etags[split]) for split, path in data.paths.items())
    source = _read_files(files, table, data.edgeless == "keep")
    return replace(source, classes=_classes(data, source))


def _classes(data: GraphFile, source: "GraphSource") -> dict[int, int]:
    """Return the network output index of each label of a graph.

    Raises
    ------
    ValueError : a label below 0, or one that `classes` does not have
    """
    found = {}
    for split, graphs in source.splits.items():
        for number, label in enumerate(graphs.labels):
            if label not in (data.classes or {}) and (data.classes is not None or label < 0):
                wanted = "labels of `classes`" if data.classes is not None else "labels from 0"
                where = f"graph-npz {data.paths[split]}: graph {number}"
                raise ValueError(f"{where}: expected {wanted}, found {label}; map it by `classes`")
            found[label] = label if data.classes is None else data.classes[label]
    return found


@lru_cache(maxsize=4)
def _read_files(files: tuple[tuple[str, str, str], ...], table: int | None, keep: bool) -> GraphSource:
    """Return the graphs of archives by (split, path, etag), which this process caches."""
    arrays = {split: _arrays(path) for split, path, _ in files}
    with_edges = [split for split, found in arrays.items() if EDGE_LABEL in found]
    if with_edges and len(with_edges) < len(arrays):
        missing = next(path for split, path, _ in files if split not in with_edges)
        raise ValueError(f"graph-npz {missing}: expected an array {EDGE_LABEL!r}, as in the other splits, found none")
    labels = table or 1 + max(int(found["node_label"].max(initial=0)) for found in arrays.values())
    kinds = 1 + max((int(arrays[split][EDGE_LABEL].max(initial=0)) for split in with_edges), default=-1)
    splits = {split: _graphs(path, arrays[split], (labels, kinds), keep=keep) for split, path, _ in files}
    return GraphSource(splits, {split: "" for split, _, _ in files})


def _arrays(path: str) -> dict[str, Integers]:
    """Return the arrays of an archive as int64, each checked by itself."""
    found = {}
    for name in (*ARRAYS, *(EDGE_LABEL for _ in range(EDGE_LABEL in member_names(path)))):
        array = read_member(path, name)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"graph-npz {path}: array {name!r}: expected integers (n,), found {array.dtype} {array.shape}"
            )
        least, most = -MOST if name == "graph_label" else 0, LARGEST.get(name, MOST)
        if len(array) and (int(array.min()) < least or int(array.max()) > most):
            worst = int(array.min()) if int(array.min()) < least else int(array.max())
            raise ValueError(
                f"graph-npz {path}: array {name!r}: expected numbers from {least:,} to {most:,}, found {worst}"
            )
        found[name] = array.astype(np.int64)
    pointers, nodes = found["node_ptr"], len(found["node_label"])
    if len(pointers) < 2 or pointers[0] != 0 or pointers[-1] != nodes or (np.diff(pointers) < 0).any():
        raise ValueError(
            f"graph-npz {path}: array 'node_ptr': expected at least two numbers that rise from 0 to {nodes}, the "
            f"length of node_label, found {_short(pointers)}"
        )
    for name, other, count in (
        ("edge_dst", "edge_src", len(found["edge_src"])),
        ("graph_label", "node_ptr less one", len(pointers) - 1),
        *((EDGE_LABEL, "edge_src", len(found["edge_src"])) for _ in range(EDGE_LABEL in found)),
    ):
        if len(found[name]) != count:
            raise ValueError(
                f"graph-npz {path}: array {name!r}: expected {count} numbers, as {other} has, found {len(found[name])}"
            )
    return found


def _graphs(path: str, arrays: dict[str, Integers], sizes: tuple[int, int], *, keep: bool) -> Graphs:
    """Return the graphs of checked arrays; `sizes` are the numbers of node labels and of edge labels."""
    where, pointers, nodes = f"graph-npz {path}", arrays["node_ptr"], arrays["node_label"]
    owner = np.repeat(np.arange(len(pointers) - 1), np.diff(pointers))
    if (outside := np.flatnonzero(nodes >= sizes[0])).size:
        i = int(outside[0])
        raise ValueError(
            f"{where}: graph {owner[i]}, node {i - pointers[owner[i]]}: expected a label from 0 to {sizes[0] - 1}, as "
            f"node_labels says, found {nodes[i]}; correct the label, or extend node_labels"
        )
    ends = np.stack([arrays["edge_src"], arrays["edge_dst"]])
    if (outside := np.flatnonzero((ends >= len(nodes)).any(axis=0))).size:
        i = int(outside[0])
        raise ValueError(
            f"{where}: edge {i}: expected nodes from 0 to {len(nodes) - 1}, found {ends[0, i]} to {ends[1, i]}; edges "
            "name nodes by their index in the file"
        )
    of = owner[ends]
    if (across := np.flatnonzero(of[0] != of[1])).size:
        i = int(across[0])
        raise ValueError(
            f"{where}: edge {i}: expected both nodes in one graph, found node {ends[0, i]} of graph {of[0, i]} and "
            f"node {ends[1, i]} of graph {of[1, i]}"
        )
    order = np.argsort(of[0], kind="stable")  # the edges of a graph may lie anywhere, and keep their order
    bounds = np.searchsorted(of[0][order], np.arange(len(pointers)))
    found = []
    for g, (start, stop) in enumerate(pairwise(pointers.tolist())):
        edges = order[bounds[g] : bounds[g + 1]]
        check_graph(f"{where}: graph {g}", stop - start, len(edges), keep=keep)
        features = np.zeros((len(edges), sizes[1]), np.float32)
        if sizes[1]:
            features[np.arange(len(edges)), arrays[EDGE_LABEL][edges]] = 1
        source, target = ends[:, edges] - start
        found.append(Graph(nodes[start:stop], source, target, features, sizes[0]))
    return Graphs(tuple(found), tuple(arrays["graph_label"].tolist()))


def check_graph(where: str, nodes: int, edges: int, *, keep: bool) -> None:
    """Raise ValueError for a graph without nodes, or without edges where such graphs are not kept."""
    if not nodes:
        raise ValueError(f"{where}: expected at least one node, found none; leave the graph out")
    if not edges and not keep:
        raise ValueError(
            f"{where}: expected at least one edge, found none, and features reach the network along edges; leave the "
            "graph out, or set `edgeless: keep`"
        )


def _short(values: NDArray[Any]) -> str:  # Any: integers
    """Print the first and last of some numbers."""
    shown_values = values.tolist()
    return f"{shown_values}" if len(values) < 6 else f"{shown_values[:3]} ... {shown_values[-2:]}"


def open_torch_geometric(data: TorchGeometric) -> GraphSource:
    """Return the graphs of an in-memory data set of torch_geometric, in one split `all`.

    Raises
    ------
    ValueError : the package is missing, or the object is not such a data set
    """
    from tasks.io.geometric import read_data_set

    graphs, labels = read_data_set(import_object(data.object), data.object, data.arguments)
    for i, graph in enumerate(graphs):
        check_graph(f"{data.object}: graph {i}", len(graph.nodes), len(graph.source), keep=data.edgeless == "keep")
    return GraphSource({"all": Graphs(tuple(graphs), tuple(labels))}, {"all": ""})
