"""What counterfactual influence differentiates: measures of an answer, and the activation of a unit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd


def margin_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Return log p / (1 - p) of each row's class, (n,): its logit less the log of the others' summed exponentials."""
    own = F.one_hot(classes, logits.shape[1]).bool()
    return logits[own] - torch.logsumexp(logits[~own].view(len(logits), -1), 1)


def logit_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logit of each row's class, (n,)."""
    return logits.gather(1, classes[:, None])[:, 0]


def loss_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the cross-entropy of each row's class, (n,), in nats."""
    return F.cross_entropy(logits, classes, reduction="none")


def activation_of(module: nn.Module, output: Tensor, unit: int) -> Tensor:
    """Return a unit's output, mean over its positions or tokens, (n,).

    Parameters
    ----------
    module : covered module; the channels of a convolution are its second axis, the features of others the last one
    output : (n, ...)
    unit : index of an output feature or channel
    """
    channels = output.movedim(1, -1) if isinstance(module, _ConvNd) else output
    return channels[..., unit].flatten(1).mean(1) if channels.ndim > 2 else channels[..., unit]


@contextmanager
def watched_unit(model: nn.Module, layer: str, unit: int) -> Iterator[list[Tensor]]:
    """Collect the activation (n,) of a unit in each call of its layer in the block."""
    found: list[Tensor] = []

    def keep(module: nn.Module, _: object, output: Tensor) -> None:
        found.append(activation_of(module, output, unit))

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"margin": margin_of, "logit": logit_of, "loss": loss_of}
FALLS = ("loss",)  # measures that fall where the answer improves
