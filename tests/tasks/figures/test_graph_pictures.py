"""Pictures of graphs: the same each time, with the colours of the labels and lines between the right places."""

import numpy as np
import pytest

from tasks.figures.graphs import COLOURS, LINE, colour_of, draw_graph, place_nodes

PATH = np.array([[0, 1], [1, 0], [1, 2], [2, 1]])


def test_the_same_graph_has_the_same_picture() -> None:
    kinds = np.array([0, 1, 2])
    first = draw_graph(kinds, PATH)
    assert first.shape == (96, 96, 3)
    np.testing.assert_array_equal(first, draw_graph(kinds, PATH))
    np.testing.assert_array_equal(first, draw_graph(kinds, PATH[::-1]))  # the order of edges does not matter


def test_every_label_has_its_colour() -> None:
    picture = draw_graph(np.array([0, 1, 2]), PATH, side=192).reshape(-1, 3)
    for kind in range(3):
        assert (picture == COLOURS[kind]).all(axis=1).any()
    assert not (picture == COLOURS[3]).all(axis=1).any()
    assert colour_of(7) != colour_of(0)
    assert colour_of(7) == tuple(round(part + (255 - part) * 0.25) for part in COLOURS[0].tolist())


def test_an_edge_is_a_line_and_without_it_there_is_none() -> None:
    kinds = np.zeros(2, np.int64)
    with_line = draw_graph(kinds, np.array([[0, 1]]), side=192)
    without = draw_graph(kinds, np.empty((0, 2), np.int64), side=192)
    assert (with_line == LINE).all(axis=2).sum() > 20
    assert not (without == LINE).all(axis=2).any()


@pytest.mark.parametrize("n", [1, 2, 5, 90])
def test_places_lie_within_the_picture_and_apart(n: int) -> None:
    ring = np.array([[i, (i + 1) % n] for i in range(n)])
    places = place_nodes(n, ring)
    assert places.shape == (n, 2)
    assert places.min() >= 0
    assert places.max() <= 1
    if n > 1:
        distance = np.linalg.norm(places[:, None] - places[None], axis=2) + np.eye(n)
        assert distance.min() > 1e-3


def test_parts_that_are_not_connected_are_drawn() -> None:
    assert place_nodes(4, np.array([[0, 1], [2, 3]])).shape == (4, 2)
