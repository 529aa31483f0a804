"""The growth curve: the largest value of each run of steps, on a logarithmic axis."""

import numpy as np
import pandas as pd

from tasks.figures.tracing.growth import MAX_POINTS, growth_views


def test_long_curves_keep_their_largest_values() -> None:
    values = np.ones(3 * MAX_POINTS)
    values[[4, 3 * MAX_POINTS - 1]] = 7e5, 12.0
    (view,) = growth_views(pd.DataFrame({"step": np.arange(len(values)), "growth": values}))
    (trace,) = view.data
    assert len(trace["x"]) == MAX_POINTS  # type: ignore[arg-type]  # a list
    assert trace["y"][1] == 7e5  # type: ignore[index]  # a list
    assert trace["y"][-1] == 12.0  # type: ignore[index]  # a list
    assert view.layout["yaxis"]["type"] == "log"  # type: ignore[index]  # a mapping
    assert view.alt == "Growth of the adjoint over 3,000 steps, at most 700,000."


def test_values_without_a_logarithm_are_gaps() -> None:
    (view,) = growth_views(pd.DataFrame({"step": [0, 1, 2], "growth": [np.inf, 0.0, 2.0]}))
    assert view.data[0]["y"] == [None, None, 2.0]
