"""The topics of a coreset as a method of interpretation reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.interpreters import topics as pure
from tasks.interpreters.ice import top_heat_maps
from tasks.steps.interpretation.method import Expressed, Maps

if TYPE_CHECKING:
    from torch import Tensor

    from tasks.steps.interpretation.method import Head

BEST_MAPS = 3  # topics of an image that its heat map shows


@dataclass(frozen=True)
class FittedTopics:
    """Topics as all classes share them.

    Attributes
    ----------
    topics, r1, r2 : (d, m), (m, H) and (H, d) tensors
    threshold : as in `topic_forward`
    """

    topics: Tensor
    r1: Tensor
    r2: Tensor
    threshold: float

    def express(self, maps: Maps) -> Expressed:
        """Return columns `F Tn` and the rebuilt maps of maps (n, h, w, d)."""
        import torch

        given = torch.from_numpy(maps)
        amounts = pure.topic_amounts(given, self.topics, self.threshold)  # in float32, as they were trained
        rebuilt: Maps = pure.rebuild(amounts, self.r1, self.r2).numpy()
        return Expressed(self._products(given).double().flatten(0, -2).numpy(), rebuilt)

    def heat_maps(self, maps: Maps, size: tuple[int, int]) -> Maps:
        """Return one heat map for each of n images, of the topics with the largest sums: (n, H, W) in [0, 1]."""
        import torch

        return np.stack([top_heat_maps(z, BEST_MAPS, size) for z in self._products(torch.from_numpy(maps)).numpy()])

    def responses(self, maps: Maps) -> Maps:
        """Return the amounts A (n, h, w, m) of the topics, 0 where a topic is not active."""
        import torch

        amounts: Maps = pure.topic_amounts(torch.from_numpy(maps), self.topics, self.threshold).numpy()
        return amounts

    def directions(self) -> NDArray[np.float64]:
        """Return the topics (m, d)."""
        found: NDArray[np.float64] = self.topics.double().T.numpy()
        return found

    def contributions(self, head: Head, maps: Maps, responses: Maps, label: int) -> tuple[NDArray[np.float64], float]:
        """Return what each topic's part of the rebuilt maps adds to the logit of a class, and the logit; means."""
        import torch

        gains, logit = pure.topic_importance(head, torch.from_numpy(responses), self.r1, self.r2, label)
        return gains.numpy(), float(logit)

    def _products(self, maps: Tensor) -> Tensor:
        """Return `F Tn` (n, h, w, m)."""
        return maps @ pure.unit_topics(self.topics)
