"""The measures of an answer that counterfactual influence differentiates."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


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


MEASURES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"margin": margin_of, "logit": logit_of, "loss": loss_of}
FALLS = ("loss",)  # measures that fall where the answer improves
