"""Class shares over training, worked by hand."""

import itertools

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tasks.figures.tracing.class_share import (
    MAX_CLASSES,
    MAX_EPOCHS,
    MAX_LAYERS,
    class_share_views,
    class_shares,
    colours,
)

ROWS = pd.DataFrame(
    {
        "layer": ["b", "b", "b", "a", "a"],
        "epoch": [2, 1, 1, 1, 2],
        "label": [0, 0, 1, 1, 1],
        "class_name": ["cat", "cat", "dog", "dog", "dog"],
        "gamma": [0.1, 0.2, -0.05, 0.5, 0.25],
    }
)


def many(n_layers: int, n_classes: int, n_epochs: int) -> pd.DataFrame:
    """Return gamma = (label + 1) in every layer and epoch."""
    rows = itertools.product(range(n_layers), range(n_epochs), range(n_classes))
    table = pd.DataFrame(list(rows), columns=["layer", "epoch", "label"])
    return table.assign(layer="l" + table["layer"].astype(str), class_name="c", gamma=table["label"] + 1.0)


def test_classes_are_the_same_in_all_layers_largest_first_and_missing_rows_are_zero() -> None:
    shares = class_shares(ROWS)
    assert (shares.classes, list(shares.layers), shares.epochs.tolist()) == (("dog", "cat"), ["b", "a"], [1, 2])
    np.testing.assert_array_equal(shares.layers["b"], [[-0.05, 0.0], [0.2, 0.1]])
    np.testing.assert_array_equal(shares.layers["a"], [[0.5, 0.25], [0.0, 0.0]])
    assert (shares.n_others, shares.joined) == (0, 1)


def test_what_takes_away_is_stacked_below_zero() -> None:
    view = class_share_views(ROWS)[0]
    assert view.label == "b"
    drawn = [(t["name"], t.get("stackgroup"), t["y"]) for t in view.data]
    assert drawn == [
        ("dog", "above", [0.0, 0.0]),
        ("dog", "below", [-5.0, 0.0]),
        ("cat", "above", [20.0, 10.0]),
        ("sum of all classes", None, [15.0, 10.0]),
    ]
    assert "All classes together: 15.00 % in epoch 1, 10.00 % in epoch 2" in view.alt
    assert "Most over all epochs: cat 30.00 %, dog -5.00 %." in view.alt
    go.Figure(data=view.data, layout=view.layout)  # raises on an unknown property


def test_many_classes_are_summed_as_others() -> None:
    shares = class_shares(many(1, 14, 2))
    assert len(shares.classes) == MAX_CLASSES
    assert shares.classes[:2] == ("c (13)", "c (12)")  # labels distinguish equal names
    assert shares.classes[-1] == "5 others"
    np.testing.assert_array_equal(shares.layers["l0"][-1], [15.0, 15.0])  # 1 + 2 + 3 + 4 + 5
    assert len(set(colours(shares))) == MAX_CLASSES


def test_many_epochs_are_summed_in_runs() -> None:
    shares = class_shares(many(1, 1, 2 * MAX_EPOCHS + 1))
    assert shares.joined == 3
    assert shares.epochs[[0, 1, -1]].tolist() == [2, 5, 240]
    np.testing.assert_array_equal(shares.layers["l0"][0, [0, -1]], [3.0, 1.0])
    assert shares.layers["l0"].sum() == 2 * MAX_EPOCHS + 1


def test_layers_are_capped_and_one_epoch_gives_points() -> None:
    views = class_share_views(many(2 * MAX_LAYERS, 2, 1))
    assert len(views) == MAX_LAYERS
    assert (views[0].label, views[-1].label) == ("l0", "l15")
    assert views[0].data[0]["mode"] == "markers"
