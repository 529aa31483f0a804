"""Adversarial training (Madry et al. 2018): the loss of every step is that of attacked images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tasks.io.randomness import seeded
from tasks.training.adversarial import OfImages, pgd, robust
from tasks.training.neutral import Neutral

ROWS = 256  # images in one attack of an evaluation


@dataclass(frozen=True)
class Adversary(Neutral):
    """PGD as the companion of a training.

    The attack of a step sees the network in training mode, with the step's other companions before it. Its random
    start is drawn after the seed of the step: a function of (seed, step).

    Parameters
    ----------
    model : the trained network
    mean, std : (1, C, 1, 1), of the network's preprocessing
    epsilon, step, steps : of the attack in each training step, on the 0..1 scale
    evaluation : settings of `robust`, and `count`, the number of held-out images that are attacked after an epoch
    """

    model: nn.Module
    mean: Tensor
    std: Tensor
    epsilon: float
    step: float
    steps: int
    evaluation: Mapping[str, Any] = field(default_factory=dict)  # Any: of `robust`

    def inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return inputs with the first m images attacked; ghosts, which do not have labels, stay as they are."""
        m = len(labels)
        ghosts = inputs[m:].detach() if len(inputs) > m else None
        network = OfImages(self.model, self.mean, self.std, ghosts)
        images = network.images(inputs[:m])
        attacked = pgd(network, images, labels, epsilon=self.epsilon, step=self.step, steps=self.steps)
        found = network.normalised(attacked)
        return found if ghosts is None else torch.cat([found, ghosts])

    def robust_accuracy(self, fetch: Callable[..., tuple[Tensor, Tensor]], n: int) -> float:
        """Return the share of held-out images that the network classifies correctly under attack.

        Parameters
        ----------
        fetch : returns inputs and labels of the samples 0..n-1
        """
        self.model.eval()
        settings = dict(self.evaluation)
        count = min(n, settings.pop("count"))
        picked = np.unique(np.linspace(0, n - 1, count).astype(np.int64))
        network, right = OfImages(self.model, self.mean, self.std), 0
        with seeded(0, self.mean.device):  # the same starts after every epoch
            for start in range(0, len(picked), ROWS):
                inputs, labels = fetch(picked[start : start + ROWS])
                images = network.images(inputs)
                right += int(robust(network, images, labels, epsilon=self.epsilon, step=self.step, **settings).sum())
        return right / len(picked)

    def measures(self, fetch: Callable[..., tuple[Tensor, Tensor]], n: int) -> dict[str, float]:
        """Return the robust accuracy; parameters as for `robust_accuracy`."""
        return {"robust_accuracy": self.robust_accuracy(fetch, n)}


def prepare_adversary(
    settings: Mapping[str, Any], model: nn.Module, example: Tensor, images: Tensor
) -> Callable[[nn.Module], Adversary]:  # Any: fields of Adversary, with `mean` and `std` as numbers
    """Check that inputs are images in [0, 1] before normalisation; return a function that attaches an adversary."""
    rest = {name: value for name, value in settings.items() if name not in ("mean", "std")}
    if images.ndim != 4:
        raise ValueError(f"adversary: expected images (n, C, H, W), found inputs {tuple(images.shape)}")
    mean, std = _planes(settings["mean"]), _planes(settings["std"])
    OfImages(model, mean, std).images(torch.cat([images, torch.zeros_like(images[:1])]))  # a crop adds zeros

    def attach(trained: nn.Module) -> Adversary:
        device = next(trained.parameters()).device
        return Adversary(trained, mean.to(device), std.to(device), **rest)

    return attach


def _planes(values: Sequence[float]) -> Tensor:
    """Return numbers by channel as (1, C, 1, 1)."""
    return torch.tensor(values, dtype=torch.float32)[None, :, None, None]
