"""Pictures of graphs: nodes as dots, a colour for each label, edges as lines, laid out by networkx."""

import numpy as np
from numpy.typing import NDArray

SIDE = 96  # pixels of a picture
FINER = 4  # pixels drawn for one pixel of the picture
SMALL = 80  # nodes up to which distances in the graph decide the places; beyond, springs do
# Colours that people with any colour vision distinguish (Okabe & Ito); further labels get lighter ones.
COLOURS = np.array(
    [(0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233), (90, 90, 90)], np.uint8
)
LINE = (120, 120, 120)

Picture = NDArray[np.uint8]


def draw_graph(kinds: NDArray[np.integer], edges: NDArray[np.integer], side: int = SIDE) -> Picture:
    """Draw a graph; the same graph gives the same picture.

    Parameters
    ----------
    kinds : (n,) integer, the label of each node
    edges : (e, 2) integer, the two nodes of each edge; the direction does not matter
    side : height and width in pixels

    Returns
    -------
    (side, side, 3) uint8
    """
    from PIL import Image, ImageDraw

    size = side * FINER
    picture = Image.new("RGB", (size, size), (255, 255, 255))
    draw = ImageDraw.Draw(picture)
    radius = size * min(0.045, max(0.012, 0.2 / np.sqrt(max(1, len(kinds)))))
    places = radius * 1.5 + place_nodes(len(kinds), edges) * (size - 3 * radius)
    for first, second in np.unique(np.sort(edges, axis=1), axis=0).tolist():
        draw.line([tuple(places[first]), tuple(places[second])], fill=LINE, width=max(1, round(radius * 0.4)))
    for (x, y), kind in zip(places.tolist(), kinds.tolist(), strict=True):
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour_of(kind))
    return np.asarray(picture.resize((side, side), Image.Resampling.BOX))


def place_nodes(n: int, edges: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return places (n, 2) of nodes, each axis from 0 to 1."""
    import networkx as nx

    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from(edges.tolist())
    if n <= SMALL and n > 1 and nx.is_connected(graph):
        laid = nx.kamada_kawai_layout(graph)
    else:
        laid = nx.spring_layout(graph, seed=0, iterations=100)
    found = np.array([laid[node] for node in range(n)], np.float64).reshape(n, 2)
    low, high = found.min(axis=0), found.max(axis=0)
    extent = max(float((high - low).max()), 1e-9)
    centred: NDArray[np.float64] = np.clip((found - (low + high) / 2) / extent + 0.5, 0, 1)
    return centred


def colour_of(kind: int) -> tuple[int, int, int]:
    """Return the colour of a label."""
    red, green, blue = COLOURS[kind % len(COLOURS)].tolist()
    lighter = min(kind // len(COLOURS), 3) * 0.25
    red, green, blue = (round(part + (255 - part) * lighter) for part in (red, green, blue))
    return red, green, blue
