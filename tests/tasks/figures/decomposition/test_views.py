"""Interactive figures of the decomposition question: values, order, caps, words."""

import json

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tasks.figures.decomposition.class_dots import MAX_CLASSES, class_views
from tasks.figures.decomposition.depth import depth_views, family_lines, family_of
from tasks.figures.decomposition.grid_map import MAX_SIDE, grid_of, grid_views, thinned
from tasks.figures.decomposition.index_histogram import MAX_BY_INDEX, MAX_RANKED, Histogram, histogram_view
from tasks.figures.decomposition.method_bars import ablation_views, control_views, spreads
from tasks.figures.decomposition.overlap_map import MAX_CLASSES as MAX_MAPPED
from tasks.figures.decomposition.overlap_map import Overlap, nearest_pairs, overlap_view, shown_classes
from tasks.figures.decomposition.retraining_curves import curve_of, retraining_views
from tasks.figures.decomposition.sample_need import sample_need_views
from tasks.figures.lines import level
from tasks.figures.views import View

GRID = pd.DataFrame(
    {
        "k1": ["coverage 0.9", "10", "2", "2", "10"],
        "k2": [2, 2, 2, 10, 10],
        "accuracy": [0.7, 0.75, 0.8, 0.82, 0.9],
        "ratio": [0.7, 0.75, 0.8, 0.82, 0.9],
        "agreement": np.nan,
    }
)
CONTROLS = pd.DataFrame(
    {
        "method": ["class-mean", "histogram", "random", "<new>"],
        "k": 5,
        "draws": [1, 1, 20, 1],
        "accuracy": [0.9, 0.8, 0.3, np.nan],
        "accuracy_std": [0.0, 0.0, 0.05, np.nan],
    }
)
ABLATION = pd.DataFrame(
    {
        "noise": ["standard", "standard", "zero"],
        "scope": ["label", "label", "union"],
        "which": ["others", "influential", "influential"],
        "draws": [5, 5, 1],
        "accuracy": [0.8, 0.5, 0.6],
        "accuracy_std": [0.01, 0.02, 0.0],
    }
)
RETRAINING = pd.DataFrame(
    {
        "scope": ["head", "network", "head", "network"],
        "epoch": [1, 0, 0, 1],
        "accuracy": [0.85, 0.8, 0.8, 0.9],
        "loss": [0.2, np.nan, np.nan, 0.1],
    }
)


def drawn(view: View) -> go.Figure:
    """Return the view as plotly validates it; its JSON has no NaN."""
    json.dumps(vars(view), allow_nan=False)
    assert "nan" not in view.alt
    return go.Figure(data=view.data, layout=view.layout)


def test_the_grid_is_ordered_and_k2_equal_to_k1_is_outlined() -> None:
    grid = grid_of(GRID)
    assert (grid.k1, grid.k2) == (("2", "10", "coverage 0.9"), (2, 10))
    np.testing.assert_array_equal(grid.values["accuracy"], [[0.8, 0.75, 0.7], [0.82, 0.9, np.nan]])
    assert grid.diagonal() == [(0, 0), (1, 1)]
    views = grid_views(GRID)
    assert [view.label for view in views] == ["A_d", "r_A"]  # agreement is not known
    figure = drawn(views[0])
    assert list(figure.data[0].z[1]) == [82.0, 90.0, None]
    assert list(figure.layout.xaxis.ticktext) == ["2", "10", "coverage 0.9"]
    assert [(s.x0, s.y0) for s in figure.layout.shapes] == [(-0.5, -0.5), (0.5, 0.5)]
    assert "largest 90.0 at k1 10 and k2 10, smallest 70.0 at k1 coverage 0.9 and k2 2" in views[0].alt
    assert grid_views(GRID[:0]) == []


def test_a_large_grid_is_thinned_and_has_no_numbers() -> None:
    cells = [(str(a), b) for a in range(1, 41) for b in range(1, 31)]
    rows = pd.DataFrame(cells, columns=["k1", "k2"]).assign(accuracy=0.5)
    grid = thinned(grid_of(rows))
    assert (len(grid.k1), len(grid.k2)) == (MAX_SIDE, MAX_SIDE)
    assert (grid.k1[0], grid.k1[-1], grid.k2[-1]) == ("1", "40", 30)
    assert drawn(grid_views(rows)[0]).data[0].texttemplate is None


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("cifar-resnet20", "cifar-resnet"),
        ("wide_resnet50_2", "wide_resnet"),
        ("efficientnet_b3", "efficientnet"),
        ("densenet121", "densenet"),
        ("mlp", "mlp"),
    ],
)
def test_family_is_the_name_without_sizes(model: str, family: str) -> None:
    assert family_of(model) == family


def test_depth_is_by_family_with_means_over_seeds() -> None:
    rows = pd.DataFrame(
        {
            "network": ["deep", "shallow", "shallow", "other"],
            "seed": [0, 0, 1, 0],
            "model": ["resnet56", "resnet20", "resnet20", "vgg16"],
            "depth": [56, 20, 20, 16],
            "n_classes": 10,
            "ratio": [0.98, 0.95, 0.97, 0.9],
            "overlap_mean": np.nan,
            "a_decomposed": [0.9, 0.8, 0.82, 0.7],
        }
    )
    resnet, vgg = family_lines(rows, "ratio")
    assert (resnet.name, resnet.networks, vgg.networks) == ("resnet", ("shallow", "deep"), ("other",))
    np.testing.assert_allclose(resnet.depth, [20, 56])
    np.testing.assert_allclose(resnet.mean, [0.96, 0.98])
    np.testing.assert_allclose(resnet.std, [0.0141421, np.nan], atol=1e-6)
    views = depth_views(rows)
    assert [view.label for view in views] == ["r_A", "A_d"]
    figure = drawn(views[1])
    assert len(figure.data) == 1  # a single depth makes no line
    np.testing.assert_allclose(figure.data[0].y, [81.0, 90.0])
    assert "resnet: shallow 0.960, deep 0.980" in views[0].alt
    assert depth_views(rows[rows["model"] == "vgg16"]) == []
    two = pd.concat([rows, rows.assign(n_classes=100)])
    assert {line.name for line in family_lines(two, "ratio")} >= {"resnet, 10 classes", "resnet, 100 classes"}


def test_controls_have_algorithm_1_first_and_whiskers_only_over_draws() -> None:
    np.testing.assert_array_equal(spreads(CONTROLS), [np.nan, np.nan, 0.05, np.nan])
    (view,) = control_views(CONTROLS, 0.95)
    figure = drawn(view)
    bars, full = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["Algorithm 1", "class mean", "random", "&lt;new&gt;"]
    assert list(bars.x) == [80.0, 90.0, 30.0, None]
    assert list(bars.error_x.array) == [0.0, 0.0, 5.0, 0.0]
    assert bars.error_x.width == 0
    assert bars.marker.color[0] != bars.marker.color[1]
    assert list(full.x) == [95.0, 95.0]
    assert "class mean 90.0 %; random 30.0 % ± 5.0." in view.alt
    assert [v.label for v in control_views(pd.concat([CONTROLS, CONTROLS.assign(k=9)]), 0.9)] == ["k = 5", "k = 9"]
    assert control_views(CONTROLS[:0], 0.9) == []


def test_noise_has_a_view_per_scope_and_the_influential_on_top() -> None:
    label, union = ablation_views(ABLATION, 0.9)
    figure = drawn(label)
    assert [trace.name for trace in figure.data] == ["influential", "all others", "full head, 90.0 %"]
    assert list(figure.data[0].x) == [50.0]
    assert list(figure.data[0].error_x.array) == [2.0]
    assert figure.data[0].error_x.width == 4
    assert (label.label, union.label) == ("scope label", "scope union")
    assert list(drawn(union).layout.yaxis.ticktext) == ["zero"]
    assert len(drawn(ablation_views(ABLATION, float("nan"))[0]).data) == 2  # no line of an unknown full head


def test_retraining_has_a_line_per_scope_and_the_full_head() -> None:
    accuracy, loss = retraining_views(RETRAINING, 0.91)
    head, network, full = drawn(accuracy).data
    assert (list(head.x), list(head.y)) == ([0, 1], [80.0, 85.0])
    assert list(network.y) == [80.0, 90.0]
    assert (list(full.x), list(full.y)) == ([0, 1], [91.0, 91.0])
    assert full.line.dash == "7px,4px"
    assert list(drawn(loss).data[1].y) == [0.1]
    assert "whole network from 80 % to 90 %" in accuracy.alt
    assert [v.label for v in retraining_views(RETRAINING.assign(loss=np.nan), 0.9)] == ["accuracy"]
    epochs, values = curve_of(RETRAINING, "head", "loss")
    assert (epochs.tolist(), values.tolist()) == ([1.0], [0.2])


def test_a_level_over_one_place_is_a_dash() -> None:
    assert level(np.array([3.0]), 5.0, "full")[0]["mode"] == "markers"
    assert level(np.array([]), 5.0, "full") == level(np.array([1.0]), float("nan"), "full") == []


def test_sample_need_is_by_images_in_order() -> None:
    rows = pd.DataFrame({"n_images": [100, 10], "overlap": [0.9, 0.6], "accuracy": [0.8, 0.7]})
    found, accuracy = sample_need_views(rows, 0.91, 0.85)
    assert list(drawn(found).data[0].y) == [60.0, 90.0]
    assert list(drawn(found).layout.xaxis.ticktext) == ["10", "100"]
    assert [list(trace.y) for trace in drawn(accuracy).data] == [[70.0, 80.0], [85.0, 85.0], [91.0, 91.0]]
    assert len(sample_need_views(rows.assign(accuracy=np.nan), 0.9, 0.8)) == 1
    assert sample_need_views(rows[:0], 0.9, 0.8) == []


def test_classes_are_in_order_of_loss_and_of_coverage_and_capped() -> None:
    classes = pd.DataFrame({"class_name": ["a", "<b>", "c"], "a_full": 0.9, "a_decomposed": [0.9, 0.5, 0.95]})
    coverage = pd.DataFrame({"class_name": ["a", "<b>", "c"], "l1_share": [0.5, 0.6, 0.4], "own_top_share": 0.7})
    coverage = coverage.assign(histogram_share=np.nan, logit_share=[0.1, 0.2, 0.3])
    accuracy, covered = class_views(classes, coverage)
    figure = drawn(accuracy)
    assert list(figure.layout.yaxis.ticktext) == ["&lt;b&gt;", "a", "c"]
    assert list(figure.data[1].x) == [50.0, 90.0, 95.0]
    figure = drawn(covered)
    assert list(figure.layout.yaxis.ticktext) == ["c", "a", "&lt;b&gt;"]
    assert [trace.name for trace in figure.data] == [
        "l1 norm, own largest k1",
        "l1 norm, set of the class",
        "own logit, set of the class",
    ]
    many = pd.DataFrame(
        {"class_name": [str(i) for i in range(1000)], "a_full": 1.0, "a_decomposed": np.arange(1000) / 1e3}
    )
    ticks = drawn(class_views(many, coverage[:0])[0]).layout.yaxis.ticktext
    assert (len(ticks), ticks[0], ticks[-1]) == (MAX_CLASSES, "0", "999")
    assert class_views(classes[:0], coverage[:0]) == []


def test_overlap_leaves_the_diagonal_out_and_names_the_nearest() -> None:
    matrix = np.array([[1.0, 0.2, 0.0], [0.2, 1.0, 0.6], [0.0, 0.6, 1.0]])
    overlap = Overlap("n", 0, ("a", "b", "<c>"), matrix)
    assert nearest_pairs(overlap, 2) == [("b", "<c>", 0.6), ("a", "b", 0.2)]
    assert overlap.mean() == pytest.approx(0.8 / 3)
    view = overlap_view(overlap)
    figure = drawn(view)
    assert [list(row) for row in figure.data[0].z] == [[None, 20.0, 0.0], [20.0, None, 60.0], [0.0, 60.0, None]]
    assert figure.data[0].customdata[1][2] == "b, &lt;c&gt;"
    assert "26.7 % on average. Most: b and <c> 60.0 %" in view.alt
    drawn(overlap_view(Overlap("n", 0, ("only",), np.ones((1, 1)))))
    with pytest.raises(ValueError, match=r"overlap of shape \(2, 2\): expected \(1, 1\)"):
        Overlap("n", 0, ("a",), np.ones((2, 2)))


def test_of_many_classes_those_that_share_most_are_mapped() -> None:
    n = MAX_MAPPED + 10
    matrix = np.eye(n)
    matrix[5:15, 5:15] = 1.0
    overlap = Overlap("n", 0, tuple(f"c{i}" for i in range(n)), matrix)
    chosen = shown_classes(overlap)
    assert len(chosen) == MAX_MAPPED
    assert set(range(5, 15)) <= set(chosen)
    assert chosen == sorted(chosen)
    assert drawn(overlap_view(overlap)).layout.xaxis.showticklabels is False


def test_histogram_is_by_index_and_of_many_features_by_rank() -> None:
    few = Histogram("n", 0, "a class of a long name", np.array([0.1, 0.6, 0.3]), np.array([1]))
    view = histogram_view(few)
    chosen, others = drawn(view).data
    assert (list(chosen.x), list(chosen.y)) == ([1], [60.0])
    assert (list(others.x), list(others.y)) == ([0, 2], [10.0, 30.0])
    assert "most frequent: 1 60.0 % (chosen), 2 30.0 %" in view.alt
    assert "Its 1 chosen features hold 60.0 %." in view.alt
    d = MAX_BY_INDEX + 1
    many = Histogram("n", 0, "c", np.arange(d) / d, np.array([d - 2]))
    chosen, others = drawn(histogram_view(many)).data
    assert (list(chosen.x), list(chosen.customdata)) == ([2], [d - 2])
    assert len(others.x) == MAX_RANKED - 1
    with pytest.raises(ValueError, match=r"class 'c': expected chosen features below 3, found 3\.\.3"):
        Histogram("n", 0, "c", np.ones(3), np.array([3]))
