"""What the figures of the concepts question draw, on tables worked by hand."""

import numpy as np
import pandas as pd
import pytest

from tasks.figures.concepts import plane as planes
from tasks.figures.concepts.ablations import tau_view, temperature_view
from tasks.figures.concepts.course import course_view, snapshot_axis
from tasks.figures.concepts.holdings import MAX_LAYERS, MAX_SNAPSHOTS, holdings, holdings_view
from tasks.figures.concepts.names import short_layers
from tasks.figures.concepts.plane import plane_of, plane_view
from tasks.figures.concepts.still import holdings_plot, plane_plot
from tasks.figures.concepts.styles import styles_of

MONITOR = pd.DataFrame(
    [
        ("a", 0, "step 0", 10, 1, 1.5, 0.1, 2.0, 0.5),
        ("a", 1, "step 5", 10, 2, 1.0, 0.9, 0.5, 0.5),
        ("b", 0, "step 0", 4, 1, 1.4, 0.1, 2.0, 0.5),
        ("b", 1, "step 5", 4, np.nan, 0.8, 0.9, 0.5, 0.5),
    ],
    columns=["layer", "snapshot", "label", "neurons", "null_interpretable", "d_anchor", "accuracy", "loss", "tau"],
)
CATEGORIES = pd.DataFrame(
    [("a", 1, "object", 3), ("a", 1, "color", 2), ("b", 0, "other", 1), ("b", 1, "object", 4)],
    columns=["layer", "snapshot", "category", "neurons"],
)


def many(n_layers: int, n_snapshots: int) -> pd.DataFrame:
    """Make a monitor of many layers and snapshots."""
    rows = [(f"l{i}", s, f"e{s}", 8, 1, 1.0) for i in range(n_layers) for s in range(n_snapshots)]
    return pd.DataFrame(rows, columns=["layer", "snapshot", "label", "neurons", "null_interpretable", "d_anchor"])


def test_counts_by_category_layer_and_snapshot() -> None:
    held = holdings(MONITOR, CATEGORIES)
    assert (held.layers, held.snapshots, held.categories) == (
        ("a", "b"),
        ("step 0", "step 5"),
        ("color", "object", "other"),
    )
    np.testing.assert_array_equal(held.counts, [[[0, 2], [0, 0]], [[0, 3], [0, 4]], [[0, 0], [1, 0]]])
    np.testing.assert_array_equal(held.null, [[1, 2], [1, np.nan]])
    np.testing.assert_array_equal(held.in_percent(held.counts[1]), [[0, 30], [0, 100]])
    np.testing.assert_array_equal(held.places, [[0, 1], [3, 4]])  # one place stays free between layers


def test_bars_in_percent_and_the_null_on_them() -> None:
    view = holdings_view(holdings(MONITOR, CATEGORIES), "here")
    assert {str(part["name"]): part["y"] for part in view.data} == {
        "color": [0, 20, 0, 0],
        "object": [0, 30, 0, 100],
        "other": [0, 0, 25, 0],
        "by chance": [10, 20, 25, None],
    }
    assert view.layout["xaxis"]["ticktext"] == ["a", "b"]  # type: ignore[index]  # a layout is plain JSON
    assert "a: 0 at step 0, 5 of 10 at step 5 (color 2, object 3)" in view.alt
    hover = view.data[1]["customdata"]
    assert isinstance(hover, list)
    assert hover[1] == "a, step 5: object, 3 of 10 neurons"


@pytest.mark.parametrize(("n_layers", "n_snapshots", "expected"), [(1, 1, [-1.5, 1.5]), (1, 2, [-1, 2]), (2, 1, None)])
def test_few_bars_do_not_fill_the_axis(n_layers: int, n_snapshots: int, expected: list[float] | None) -> None:
    layout = holdings_view(holdings(many(n_layers, n_snapshots), CATEGORIES), "").layout
    assert layout["xaxis"].get("range") == expected  # type: ignore[attr-defined]  # a layout is plain JSON


def test_many_layers_and_snapshots_are_evenly_spread() -> None:
    held = holdings(many(20, 60), CATEGORIES[:0])
    assert (len(held.layers), len(held.snapshots)) == (MAX_LAYERS, MAX_SNAPSHOTS)
    assert (held.layers[0], held.layers[-1]) == ("l0", "l19")
    assert (held.snapshots[0], held.snapshots[-1]) == ("e0", "e59")
    assert (held.n_layers, held.n_snapshots) == (20, 60)
    assert holdings_view(held, "").alt == "No neuron holds a concept."


def test_the_course_has_a_panel_for_what_is_known() -> None:
    view = course_view(MONITOR, "here")
    assert [(part["name"], part["yaxis"]) for part in view.data] == [
        *(("a", "y"), ("b", "y"), ("accuracy", "y2"), ("loss", "y3")),
    ]
    assert [part["y"] for part in view.data] == [[1.5, 1.0], [1.4, 0.8], [10, 90], [2.0, 0.5]]
    bare = course_view(MONITOR.assign(accuracy=np.nan, loss=np.nan), "here")
    assert [part["name"] for part in bare.data] == ["a", "b"]
    assert bare.layout["yaxis"]["domain"] == [0.0, 1.0]  # type: ignore[index]  # a layout is plain JSON
    assert course_view(MONITOR.assign(accuracy=np.nan, loss=np.nan, d_anchor=np.nan), "").data == []
    lines = course_view(many(20, 3).assign(accuracy=np.nan, loss=np.nan), "").data
    assert [part["name"] for part in lines] == ["l0", "l4", "l8", "l11", "l15", "l19"]


def test_a_word_that_all_snapshots_share_is_the_title_of_their_axis() -> None:
    assert snapshot_axis({0: "step 0", 1: "step 5"})["ticktext"] == ["0", "5"]
    epochs = snapshot_axis({i: f"epoch_{i}" for i in range(10)})
    assert epochs["ticktext"] == [str(i) for i in range(10)]
    assert epochs["title"]["text"] == "epoch"  # type: ignore[index]  # an axis is plain JSON
    assert snapshot_axis({0: "given weights"})["ticktext"] == ["given weights"]
    assert snapshot_axis({0: "epoch_0", 1: "round_1"})["ticktext"] == ["epoch_0", "round_1"]
    assert snapshot_axis({0: "a 1", 1: "a 1,200"})["ticktext"] == ["1", "1,200"]
    assert snapshot_axis({0: "step 0", 1: "end"})["ticktext"] == ["step 0", "end"]
    many_labels = {i: f"step {i}" for i in range(50)}
    assert snapshot_axis(many_labels)["tickvals"] == [0, 10, 20, 29, 39, 49]


@pytest.mark.parametrize(
    ("layers", "length", "expected"),
    [
        (["conv1", "conv2"], 8, ["conv1", "conv2"]),
        (["stages.0.blocks.1.conv", "stages.1.blocks.1.conv"], 10, ["stages.0", "stages.1"]),
        (["layer1.0.conv1", "layer1.0.conv2", "layer2.1.conv1"], 8, ["…0.conv1", "…0.conv2", "…1.conv1"]),
        (["alpha.beta.gamma", "delta.beta.gamma2"], 4, ["…mma", "…ma2"]),
        (["first.block", "worst.block"], 3, ["#1", "#2"]),
        (["a.very.long.name"], 6, ["….name"]),
    ],
)
def test_short_names_of_layers_differ(layers: list[str], length: int, expected: list[str]) -> None:
    assert short_layers(layers, length) == expected


def test_low_level_categories_come_first_and_every_style_differs() -> None:
    names = ["other", "scene", "color", "sign", "object", "animal"]
    styles = styles_of(names)
    assert list(styles) == ["color", "object", "scene", "animal", "sign", "other"]
    assert len({(style.colour, style.pattern) for style in styles.values()}) == 6


PLANE = pd.DataFrame(
    [
        (0, 0, 0.0, 0.0, True, False, "red", "color"),
        (0, 1, 1.0, 0.0, False, True, "car", "object"),
        (0, 2, 0.0, 1.0, False, False, "dog", "object"),
        (1, 0, 2.0, 2.0, True, True, "red", "color"),
        (1, 1, 1.0, 1.0, False, True, "car", "object"),
        (1, 2, np.nan, 1.0, False, False, "dog", "object"),
    ],
    columns=["snapshot", "neuron", "x", "y", "tracked", "interpretable", "word", "category"],
)
ANCHORS = pd.DataFrame({"word": ["red", "<b>"], "x": [-1.0, 4.0], "y": [0.0, 3.0]})


def test_neurons_of_a_snapshot_and_the_trail_that_leads_to_it() -> None:
    drawn = plane_of(PLANE, ANCHORS)
    first, last = (plane_view(drawn, snapshot, "here") for snapshot in (0, 1))
    named = {str(part["name"]): part for part in last.data}
    assert list(named) == ["anchor", "without a concept", "color", "object", "trail of 0"]
    assert (named["trail of 0"]["x"], named["trail of 0"]["y"]) == ([0.0, 2.0], [0.0, 2.0])
    assert named["object"]["customdata"] == [1]
    assert named["without a concept"]["x"] == []  # its place is not known
    assert named["anchor"]["text"] == ["red", "&lt;b&gt;"]
    assert {str(part["name"]): part["x"] for part in first.data}["trail of 0"] == [0.0]
    assert first.layout["xaxis"]["range"] == last.layout["xaxis"]["range"]  # type: ignore[index]  # plain JSON
    assert last.layout["xaxis"]["range"] == [-1.6, 4.6]  # type: ignore[index]  # plain JSON
    assert last.alt == "2 neurons among 2 anchors; 2 hold a concept: color 1, object 1."


def test_tracked_and_interpretable_neurons_are_drawn_first(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = plane_of(PLANE, ANCHORS, most=2)
    assert sorted(drawn.neurons["neuron"].unique()) == [0, 1]
    assert drawn.n_neurons == 3
    monkeypatch.setattr(planes, "MAX_ANCHORS", 1)
    assert (len(plane_of(PLANE, ANCHORS).anchors), plane_of(PLANE, ANCHORS).n_anchors) == (1, 2)


def test_tau_curves_have_their_null_and_the_chosen_tau() -> None:
    rows = pd.DataFrame(
        [
            (s, tau, n, null)
            for s, scale in ((0, 1), (1, 2))
            for tau, n, null in ((0.1, 8 * scale, 4), (0.3, 2 * scale, 0))
        ],
        columns=["snapshot", "tau", "interpretable", "null"],
    )
    view = tau_view(rows, {0: "step 0", 1: "step 5"}, 0.28, "here")
    assert [(part["name"], part["y"]) for part in view.data] == [
        *(("step 0", [8, 2]), ("step 5", [16, 4]), ("by chance", [4, 0])),
    ]
    assert view.alt == "Interpretable neurons by tau. At tau 0.300: 4, by chance 0."
    assert "shapes" not in tau_view(rows, {}, float("nan"), "").layout


def test_a_line_per_temperature() -> None:
    rows = pd.DataFrame(
        [(0, 0.1, 2.0), (1, 0.1, 1.0), (0, 1.0, 3.0), (1, 1.0, 2.5)], columns=["snapshot", "temperature", "d_anchor"]
    )
    view = temperature_view(rows, {0: "step 0", 1: "step 5"}, "here")
    assert [(part["name"], part["y"]) for part in view.data] == [("T = 0.1", [2, 1]), ("T = 1", [3, 2.5])]
    assert "T = 0.1: 2.00 to 1.00" in view.alt


@pytest.mark.parametrize("name", ["a", "_$x_1$", "stages.0.blocks.1.conv"])
def test_stills_are_pictures_whatever_the_names(name: str) -> None:
    monitor = MONITOR.assign(layer=MONITOR["layer"].map({"a": name, "b": "b"}))
    categories = CATEGORIES.assign(layer=CATEGORIES["layer"].map({"a": name, "b": "b"}))
    held = holdings(monitor, categories)
    assert holdings_plot(held, monitor, title="$").startswith(b"\x89PNG")
    neurons = plane_of(PLANE.assign(word=name, category=name), ANCHORS.assign(word=name))
    assert plane_plot(neurons, 1, title=name).startswith(b"\x89PNG")
    assert plane_plot(neurons, 1, title=name) == plane_plot(neurons, 1, title=name)
