"""Class-specific gates on the channels of a network's last map (CSG: Liang et al. 2020, section 3).

In an epoch with gates, channel k of an image of class y is multiplied by G[k, y], and the loss grows with the gates
that are open. So each channel comes to serve few classes, and the largest gates of a class name its channels.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tasks.capture import LAST_MAP, split_at
from tasks.splitting.channels import CHANNELS_FIRST
from tasks.splitting.replay import watching

START = 0.5
GATE_MATRIX = "gates"  # name of the tensor in checkpoints and in a training's file of gates


class ClassGates(nn.Module):
    """How far each channel is open to each class.

    Parameters
    ----------
    n_channels, n_classes : K, C

    Attributes
    ----------
    weight : (K, C) float32 parameter, in [0, 1] after `normalise`
    """

    def __init__(self, n_channels: int, n_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((n_channels, n_classes), START))

    @classmethod
    def of(cls, gates: Tensor) -> Self:
        """Return gates of given values (K, C)."""
        made = cls(*gates.shape)
        with torch.no_grad():
            made.weight.copy_(gates)
        return made

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return maps (n, K, h, w) with the channels of the first m images multiplied by the gates of their classes.

        Parameters
        ----------
        maps : (n, K, h, w) float; rows beyond the m-th, which have no label, come out as they are
        labels : (m,) int64 classes, m <= n
        """
        m, n_classes = len(labels), self.weight.shape[1]
        # A product with zeros and ones picks exactly; unlike that of indexing, its gradient has a fixed order on GPUs.
        picked = F.linear(F.one_hot(labels, n_classes).to(self.weight.dtype), self.weight)
        gated = maps[:m] * picked.to(maps.dtype)[:, :, None, None]
        return gated if m == len(maps) else torch.cat([gated, maps[m:]])

    def penalty(self, share: float) -> Tensor:
        """Return max(0, ||G||_1 - share K C), a number; its gradient is 0 where the penalty is."""
        return F.relu(self.weight.abs().sum() - share * self.weight.numel())

    @torch.no_grad()
    def normalise(self) -> None:
        """Divide each channel's row by its maximum and clamp it to [0, 1]; a row without a positive entry is zeros.

        Every channel that is open at all is so wholly open to some class. A row of equal gates becomes ones again: the
        penalty alone, which pulls equally on all gates, never closes a channel that the loss does not tell apart.
        """
        largest = self.weight.amax(1, keepdim=True)
        positive = largest > 0  # dividing by less would turn signs round
        self.weight.copy_(torch.where(positive, self.weight / largest.where(positive, 1.0), 0.0).clamp(0.0, 1.0))


@dataclass(frozen=True)
class Gating:
    """Gates as the companion of a training: the gates, where they are, and when they take part.

    Parameters
    ----------
    gates : changed by every step of an epoch with gates, by no other
    module : of the network, whose output is the last map
    weight : of the penalty in the loss, lambda
    share : of all gates that may be open without a penalty
    plain_epochs : epochs before the first with gates
    period : epochs of which the last has gates, counted from the start of the training
    lr, momentum : of the gates, which SGD learns without weight decay
    """

    gates: ClassGates
    module: nn.Module
    weight: float = 1e-3
    share: float = 0.2
    plain_epochs: int = 10
    period: int = 3
    lr: float = 0.1
    momentum: float = 0.9

    def takes_part(self, epoch: int) -> bool:
        """Say whether an epoch, counted from 0, has gates."""
        return epoch >= self.plain_epochs and epoch % self.period == self.period - 1

    @contextmanager
    def during(self, labels: Tensor) -> Iterator[None]:
        """For the block, the network runs with the gates of `labels` (m,), the classes of its first m inputs."""
        handle = self.module.register_forward_hook(lambda module, inputs, maps: self.gates(maps, labels))
        try:
            yield
        finally:
            handle.remove()

    def inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the inputs as they are."""
        return inputs

    def loss(self) -> Tensor:
        """Return what the gates add to the loss."""
        return self.weight * self.gates.penalty(self.share)

    def settle(self) -> None:
        """Put the gates in order after a step: normalised, and without a gradient that a plain step would follow."""
        self.gates.normalise()
        self.gates.weight.grad = None

    def groups(self) -> list[dict[str, Any]]:  # Any: an optimiser's settings
        """Return the gates as a group of their own, to which SGD does what a second optimiser would."""
        settings = {"lr": self.lr, "momentum": self.momentum, "weight_decay": 0.0, "nesterov": False}
        return [{"params": [self.gates.weight], **settings}]

    def tensors(self) -> dict[str, Tensor]:
        """Return the gates (K, C)."""
        return {GATE_MATRIX: self.gates.weight}


def prepare_gates(
    settings: Mapping[str, Any], model: nn.Module, example: Tensor, images: Tensor
) -> Callable[[nn.Module], Gating]:  # Any: fields of Gating
    """Find where a model's gates go, and return what puts fresh ones there; parameters as in `find_gated_map`."""
    place = find_gated_map(model, example, images=images)

    def attach(trained: nn.Module) -> Gating:
        device = next(trained.parameters()).device
        gates = ClassGates(place.n_channels, place.n_classes).to(device)
        return Gating(gates, trained.get_submodule(place.name), **settings)

    return attach


def largest_gates(gates: NDArray[np.floating[Any]], k: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Find the channels that are most open to each class.

    Parameters
    ----------
    gates : (K, C) float
    k : channels per class, 1 <= k <= K

    Returns
    -------
    indices (C, k) int64 by falling gate, equal gates by lower index; ties (C,) bool, where the k-th gate equals the
    next one: common, since `normalise` leaves a 1 in every row
    """
    if not 1 <= k <= len(gates):
        raise ValueError(f"k: expected 1..{len(gates)}, found {k}")
    order = np.argsort(-gates.T, axis=1, kind="stable")
    falling = np.take_along_axis(gates.T, order, 1)
    ties = falling[:, k - 1] == falling[:, k] if k < len(gates) else np.zeros(gates.shape[1], bool)
    return order[:, :k].astype(np.int64), ties


@dataclass(frozen=True)
class GatedMap:
    """Where gates go: the module's name, and the channels of its map and the outputs of the network, K and C."""

    name: str
    n_channels: int
    n_classes: int


def find_gated_map(model: nn.Module, example: Tensor, *, images: Tensor | None = None) -> GatedMap:
    """Find the module whose output is the network's last map, on which the rest of the network depends alone.

    Parameters
    ----------
    model : in evaluation mode, on the CPU, where two runs give the same bits
    example : (n, C, H, W), images of the size and kind that will come
    images : (m, C, H, W), real ones, on which the network is checked too

    Returns
    -------
    GatedMap; of several modules with that output the last one to end, which is the outermost

    Raises
    ------
    ValueError : there is no last map, its channels are last, or no module that is called once puts it out (as in a
        DenseNet, whose own forward makes it)
    """
    try:
        split = split_at(model, LAST_MAP, example, images=images)
    except ValueError as error:
        raise ValueError(f"no place for class-specific gates: {error}") from error
    if split.layout.name != CHANNELS_FIRST:
        raise ValueError(
            f"no place for class-specific gates: the last map before pooling, {split.place}, is {split.layout.name}, "
            f"expected {CHANNELS_FIRST}"
        )
    with torch.inference_mode():
        maps = split.trunk(example)
    calls: Counter[str] = Counter()
    same: dict[str, None] = {}

    def look(name: str, module: nn.Module, output: object) -> None:
        calls[name] += 1
        if isinstance(output, Tensor) and output.shape == maps.shape and torch.equal(output, maps):
            same.pop(name, None)
            same[name] = None

    with watching(model, look):
        model(example.clone())
    names = [name for name in same if calls[name] == 1]
    if not names:
        raise ValueError(
            f"no place for class-specific gates: the last map before pooling, {split.place} of shape {split.shape}, "
            "is the output of no module that is called once, so that no hook can reach it"
        )
    return GatedMap(names[-1], split.shape[0], split.n_outputs)
