"""The graph network of Pfahler & Morik 2022, Eq. 8: f(x_v) = MLP(sum over edges (u, v) of relu(x_u + W phi(u, v)))."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.graphs.batches import unpack_batch
from tasks.modules.rows import rows_of

POOLS = ("mean", "sum")


class GraphLayer(nn.Module):
    """One layer: messages along the edges, summed at each node, then an MLP of two linear layers with batch norm.

    Parameters
    ----------
    inputs : features of a node
    width : of the output; the hidden layer has twice as many units, as the network of the paper's size (7.1 MB)
    edge : features of an edge; 0 leaves W phi out
    """

    def __init__(self, inputs: int, width: int, edge: int) -> None:
        super().__init__()
        self.edge = nn.Linear(edge, inputs, bias=False) if edge else None
        self.first = nn.Linear(inputs, 2 * width, bias=False)
        self.first_norm = nn.BatchNorm1d(2 * width)
        self.second = nn.Linear(2 * width, width, bias=False)
        self.second_norm = nn.BatchNorm1d(width)

    def forward(self, nodes: Tensor, ends: tuple[Tensor, Tensor], phi: Tensor, counts: tuple[Tensor, Tensor]) -> Tensor:
        """Return new features (N, width) of nodes (N, inputs).

        Parameters
        ----------
        ends : source and target of each edge (E,)
        phi : (E, edge) features of the edges
        counts : nodes and edges of each graph
        """
        messages = nodes[ends[0]]
        if self.edge is not None:
            with rows_of(counts[1]):
                messages = messages + self.edge(phi)
        # index_add adds in the order of the edges on a CPU; on a GPU the order, and so the rounding, may differ by run
        summed = torch.zeros_like(nodes).index_add(0, ends[1], F.relu(messages))
        with rows_of(counts[0]):
            hidden = F.relu(self.first_norm(self.first(summed)))
            found: Tensor = self.second_norm(self.second(hidden))
        return found


class GraphNetwork(nn.Module):
    """Layers of Eq. 8 with ReLU between, a mean or sum over each graph's nodes, and a linear output layer."""

    scatters = True  # sums in an order that a GPU does not keep

    def __init__(
        self, nodes: int, classes: int, width: int = 64, layers: int = 5, *, edges: int, ends: bool, pool: str
    ) -> None:
        super().__init__()
        self.n_nodes, self.n_edges, self.ends, self.pool = nodes, edges, ends, pool
        phi = edges + (2 * nodes if ends else 0)
        self.layers = nn.ModuleList(GraphLayer(nodes if i == 0 else width, width, phi) for i in range(layers))
        self.output = nn.Linear(width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (n, classes) of graphs as vectors (n, K)."""
        graphs = unpack_batch(x)
        for name, wanted, found in (
            ("nodes", self.n_nodes, graphs.nodes.shape[1]),
            ("edges", self.n_edges, graphs.edges.shape[1]),
        ):
            if wanted != found:
                raise ValueError(
                    f"model: expected {wanted} features of {name}, as its arguments state, found {found} in the data; "
                    f"set `arguments: {{{name}: {found}}}`"
                )
        h, ends = graphs.nodes, (graphs.source, graphs.target)
        phi = torch.cat([graphs.edges, h[ends[0]], h[ends[1]]], dim=1) if self.ends else graphs.edges
        for number, layer in enumerate(self.layers):
            h = layer(h if number == 0 else F.relu(h), ends, phi, (graphs.node_counts, graphs.edge_counts))
        counts = graphs.node_counts.to(h.device)
        owner = torch.arange(len(counts), device=h.device).repeat_interleave(counts)
        pooled = h.new_zeros(len(counts), h.shape[1]).index_add(0, owner, h)
        logits: Tensor = self.output(pooled / counts[:, None] if self.pool == "mean" else pooled)
        return logits


def graph_network(
    nodes: int, classes: int, width: int = 64, layers: int = 5, edges: int = 0, ends: bool = False, pool: str = "mean"
) -> nn.Module:
    """Build a graph network; with one layer it is the shallow twin of a deeper one.

    Parameters
    ----------
    nodes : features of a node, or node labels
    classes : number of classes
    width : features of a node after each layer
    layers : number of layers
    edges : features of an edge in the data; 0 for none
    ends : whether the features of an edge also have those of its two nodes in the data
    pool : mean or sum over a graph's nodes
    """
    for name, count, least in (
        *(("nodes", nodes, 1), ("classes", classes, 1), ("width", width, 1)),
        *(("layers", layers, 1), ("edges", edges, 0)),
    ):
        if type(count) is not int or count < least:
            raise ValueError(
                f"{name}: expected {'an integer of ' * (type(count) is not int)}at least {least}, found {count!r}"
            )
    if pool not in POOLS:
        raise ValueError(f"pool: expected one of {', '.join(POOLS)}, found {pool!r}")
    return GraphNetwork(nodes, classes, width, layers, edges=edges, ends=ends, pool=pool)
