"""Class-specific gates on the channels of a network's last map (CSG: Liang et al. 2020, section 3).

In an epoch with gates, channel k of an image of class y is multiplied by G[k, y]. The loss grows with the open gates.
Therefore each channel learns to serve few classes, and the largest gates of a class show its channels.
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
from tasks.training.batches import Positions

START = 0.5
GATE_MATRIX = "gates"  # name of the tensor in checkpoints and in a training's file of gates


class ClassGates(nn.Module):
    """The gate matrix: how far each channel is open to each class.

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
        """Return gates with given values (K, C)."""
        made = cls(*gates.shape)
        with torch.no_grad():
            made.weight.copy_(gates)
        return made

    def forward(self, maps: Tensor, labels: Tensor) -> Tensor:
        """Return maps (n, K, h, w); channels of the first m images are multiplied by the gates of their classes.

        Parameters
        ----------
        maps : (n, K, h, w) float; rows after the m-th do not have a label and stay unchanged
        labels : (m,) int64 classes, m <= n
        """
        m, n_classes = len(labels), self.weight.shape[1]
        # A product with zeros and ones is exact. Its gradient has a fixed order on GPUs, unlike that of indexing.
        picked = F.linear(F.one_hot(labels, n_classes).to(self.weight.dtype), self.weight)
        gated = maps[:m] * picked.to(maps.dtype)[:, :, None, None]
        return gated if m == len(maps) else torch.cat([gated, maps[m:]])

    def penalty(self, share: float) -> Tensor:
        """Return max(0, ||G||_1 - share K C), a number; its gradient is 0 where the penalty is 0."""
        return F.relu(self.weight.abs().sum() - share * self.weight.numel())

    @torch.no_grad()
    def normalise(self) -> None:
        """Divide each channel's row by its maximum and clamp it to [0, 1]; rows without positive entries become zeros.

        Thereby every open channel is fully open to some class. A row of equal gates becomes ones again. The penalty
        acts equally on all gates. Alone it cannot close a channel that the loss treats equally for all classes.
        """
        self.weight.copy_(normalised_gates(self.weight))


def normalised_gates(gates: Tensor) -> Tensor:
    """Return gates (K, C) after `ClassGates.normalise`; differentiable."""
    largest = gates.amax(1, keepdim=True)
    positive = largest > 0  # a negative divisor would change signs
    return torch.where(positive, gates / largest.where(positive, 1.0), 0.0).clamp(0.0, 1.0)


@dataclass(frozen=True)
class Gating:
    """Gates as the companion of a training: the gates, where they are, and when they take part.

    Parameters
    ----------
    gates : changed by every step of an epoch with gates, not by other steps
    module : the module of the network with the last map as output
    weight : weight of the penalty in the loss, lambda
    share : share of all gates that may be open without a penalty
    plain_epochs : epochs before the first with gates
    period : number of epochs; the last epoch of each period has gates, counted from the start of the training
    lr, momentum : settings of SGD for the gates, without weight decay
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
        """Return whether an epoch, counted from 0, has gates."""
        return epoch >= self.plain_epochs and epoch % self.period == self.period - 1

    def before_step(self, ids: Positions) -> None:
        """Ignore the sample ids."""

    @contextmanager
    def during(self, labels: Tensor) -> Iterator[None]:
        """Run the network with gates in the block; `labels` (m,) are the classes of its first m inputs."""
        handle = self.module.register_forward_hook(lambda module, inputs, maps: self.gates(maps, labels))
        try:
            yield
        finally:
            handle.remove()

    def inputs(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the inputs unchanged."""
        return inputs

    def loss(self) -> Tensor:
        """Return the penalty of the gates, which is added to the loss."""
        return self.weight * self.gates.penalty(self.share)

    def after_backward(self) -> None:
        """Leave the gradients as they are."""

    def after_update(self) -> None:
        """Normalise the gates after a step, and remove their gradient, which a plain step would follow."""
        self.gates.normalise()
        self.gates.weight.grad = None

    def normalised(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the gates after `after_update`; differentiable."""
        return {name: normalised_gates(tensor) for name, tensor in tensors.items()}

    def masked(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the model's tensors unchanged."""
        return tensors

    def holder(self) -> nn.Module:
        """Return the gates."""
        return self.gates

    def groups(self) -> list[dict[str, Any]]:  # Any: an optimiser's settings
        """Return the gates as a separate parameter group, which SGD treats like a second optimiser."""
        settings = {"lr": self.lr, "momentum": self.momentum, "weight_decay": 0.0, "nesterov": False}
        return [{"params": [self.gates.weight], **settings}]

    def tensors(self) -> dict[str, Tensor]:
        """Return the gates (K, C) by name."""
        return {GATE_MATRIX: self.gates.weight}

    def measures(self, fetch: Callable[..., tuple[Tensor, Tensor]], n: int) -> dict[str, float]:
        """Return an empty dict: gates do not have numbers by epoch."""
        return {}


def prepare_gates(
    settings: Mapping[str, Any], model: nn.Module, example: Tensor, images: Tensor
) -> Callable[[nn.Module], Gating]:  # Any: fields of Gating
    """Find the gated map of a model; return a function that attaches new gates; parameters as in `find_gated_map`."""
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
    next one. Ties are common, since `normalise` leaves a 1 in every row.
    """
    if not 1 <= k <= len(gates):
        raise ValueError(f"k: expected 1..{len(gates)}, found {k}")
    order = np.argsort(-gates.T, axis=1, kind="stable")
    falling = np.take_along_axis(gates.T, order, 1)
    ties = falling[:, k - 1] == falling[:, k] if k < len(gates) else np.zeros(gates.shape[1], bool)
    return order[:, :k].astype(np.int64), ties


@dataclass(frozen=True)
class GatedMap:
    """The module for gates: its name, the channels K of its map, and the outputs C of the network."""

    name: str
    n_channels: int
    n_classes: int


def find_gated_map(model: nn.Module, example: Tensor, *, images: Tensor | None = None) -> GatedMap:
    """Find the module with the network's last map as output; the rest of the network depends on it alone.

    Parameters
    ----------
    model : in evaluation mode, on the CPU, where two runs give the same bits
    example : (n, C, H, W), images like those of later calls in size and kind
    images : (m, C, H, W), real images for the same checks

    Returns
    -------
    GatedMap; of several modules with that output the last to end, which is the outermost

    Raises
    ------
    ValueError : the network does not have a last map; its channels are last; or it is not the output of a module that
        is called once (a DenseNet computes it in its forward)
    """
    try:
        split = split_at(model, LAST_MAP, example, images=images)
    except ValueError as error:
        raise ValueError(f"gates: {error}") from error
    if split.layout.name != CHANNELS_FIRST:
        raise ValueError(
            f"gates: expected the last map before pooling as {CHANNELS_FIRST}, found {split.place} as "
            f"{split.layout.name}"
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
            "gates: expected the last map before pooling as output of a module that is called once, found "
            f"{split.place} of shape {split.shape}, which a hook cannot reach"
        )
    return GatedMap(names[-1], split.shape[0], split.n_outputs)
