"""Metrics: distances between two views of the same rows, accuracies, and tables of both."""

from typing import Protocol

from tasks.metrics.checks import Floats
from tasks.metrics.shape import shape_distance

__all__ = ["METRICS", "Metric"]


class Metric(Protocol):
    """The distance between two sets of columns over the same rows; widths may differ; 0 from a set to itself."""

    def __call__(self, x: Floats, y: Floats) -> float: ...


METRICS: dict[str, Metric] = {
    "shape": shape_distance,
}
