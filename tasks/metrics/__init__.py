"""How far apart two views of the same rows are, how well a network does, and the tables made of these numbers."""

from typing import Protocol

from tasks.metrics.checks import Floats
from tasks.metrics.shape import shape_distance

__all__ = ["METRICS", "Metric"]


class Metric(Protocol):
    """The distance between two sets of columns over the same rows, their widths may differ: 0 for a set to itself."""

    def __call__(self, x: Floats, y: Floats) -> float: ...


METRICS: dict[str, Metric] = {
    "shape": shape_distance,
}
