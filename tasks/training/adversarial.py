"""Projected gradient descent on images (PGD: Madry et al. 2018): training attacks, and robust accuracy."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss = Literal["cross-entropy", "margin"]


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float = 8 / 255,
    step: float = 2 / 255,
    steps: int = 7,
    random_start: bool = True,
    loss: Loss = "cross-entropy",
) -> Tensor:
    """Find images near `x` with a high loss, in the maximum norm.

    Parameters
    ----------
    model : takes images in [0, 1] and returns logits (n, C); it is called in the mode in which it is
    x : (n, ...) float, in [0, 1]
    y : (n,) int64, classes
    epsilon : largest change of a value, in [0, 1]
    step : change of each value in a step, at least 0
    steps : number of steps along the sign of the gradient
    random_start : start at a random point of the ball, else at `x`; torch's generator of the device of `x` draws it
    loss : what an attack raises: the cross-entropy, or the margin by which another class's logit exceeds the label's
        (Carlini & Wagner 2017), whose gradient does not vanish where the network is sure

    Returns
    -------
    (n, ...) of the kind of `x`, detached; in [0, 1] and at most `epsilon` from `x`, both exactly

    Raises
    ------
    TypeError : `x` is not a tensor of floats
    ValueError : values of `x` outside [0, 1], another number of labels, a parameter out of range

    Notes
    -----
    Parameters, gradients, buffers (batch norm's running statistics) and modes stay as they are. Torch's generators
    move on by the random start and by what the model draws in its present mode.
    """
    _check(x, y, epsilon, step, steps)
    with torch.inference_mode(mode=False), torch.enable_grad(), _kept_buffers(model):
        images, y = x.detach().clone(), y.clone()  # what was made in inference mode cannot be saved for a gradient
        lower, upper = _ball(images, epsilon)
        found = images
        if random_start:
            # of float32, so that a training and its twin in float64 are attacked from the same points
            start = torch.empty_like(images, dtype=torch.float32).uniform_(-epsilon, epsilon)
            found = _clamp(images + start.to(images.dtype), lower, upper)
        for _ in range(steps):
            found = _clamp(found + step * _gradient(model, found, y, loss).sign(), lower, upper)
    return found


def robust(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float = 8 / 255,
    step: float = 2 / 255,
    steps: int = 50,
    restarts: int = 1,
    loss: Loss = "cross-entropy",
) -> Tensor:
    """Say which images the model classifies correctly, as they are and after each of several attacks.

    Parameters
    ----------
    model, x, y, epsilon, step, steps, loss : as for `pgd`
    restarts : number of attacks, each from its own random start

    Returns
    -------
    (n,) bool
    """
    right = _is_right(model, x, y)
    for _ in range(restarts):
        left = right.nonzero()[:, 0]  # an image that one attack has changed needs no other
        if not len(left):
            break
        attacked = pgd(model, x[left], y[left], epsilon=epsilon, step=step, steps=steps, loss=loss)
        right = right.index_put((left,), _is_right(model, attacked, y[left]))
    return right


class OfImages(nn.Module):
    """A network as a function of images in [0, 1].

    Parameters
    ----------
    network : takes normalised images
    mean, std : (1, C, 1, 1), subtracted from and divided by
    ghosts : (k, C, H, W) normalised images that follow the images in every batch, without outputs; None for none
    """

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor, ghosts: Tensor | None = None) -> None:
        super().__init__()
        self.network, self._mean, self._std, self._ghosts = network, mean, std, ghosts

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (n, C) of images (n, C, H, W) in [0, 1]."""
        inputs = self.normalised(images)
        if self._ghosts is not None:
            inputs = torch.cat([inputs, self._ghosts])
        logits: Tensor = self.network(inputs)
        return logits[: len(images)]

    def normalised(self, images: Tensor) -> Tensor:
        """Return the network's input for images in [0, 1]."""
        return (images - self._mean) / self._std

    def images(self, inputs: Tensor) -> Tensor:
        """Return the images in [0, 1] that a network's inputs show; rounding errors beyond the ends are removed.

        Raises
        ------
        ValueError : values outside [0, 1]
        """
        images = inputs * self._std + self._mean
        low, high = float(images.min()), float(images.max())
        if not (low > -ROUNDING and high < 1 + ROUNDING):
            raise ValueError(
                f"adversary: expected images in [0, 1] before normalisation, found {low:.4g} to {high:.4g}; "
                "let `preprocessing` scale the images, with `mean` in [0, 1]"
            )
        return images.clamp(0, 1)


ROUNDING = 1e-4  # of an image that was normalised and scaled back


def _is_right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return (n,) bool: whether the model's answers are the labels."""
    with torch.no_grad(), _kept_buffers(model):
        answers: Tensor = model(x.clone()).argmax(1)
    return answers == y


def _gradient(model: nn.Module, images: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return the gradient of the loss at the images; those of the parameters stay as they are."""
    images = images.detach().requires_grad_()
    logits: Tensor = model(images.clone())  # a network may change its input
    return torch.autograd.grad(_loss(logits, y, loss), images)[0]


def _loss(logits: Tensor, y: Tensor, loss: Loss) -> Tensor:
    """Return the sum of the losses of logits (n, C)."""
    if loss == "cross-entropy":
        return F.cross_entropy(logits, y, reduction="sum")
    own = F.one_hot(y, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).amax(dim=1)
    return (others - logits[own]).sum()


def _ball(images: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the ends of the allowed values; differences of at most epsilon hold exactly, and as torch rounds them."""
    reach = torch.tensor(epsilon, dtype=torch.float64, device=images.device)
    rounded = reach.to(images.dtype)
    reach = torch.where(rounded.double() > reach, torch.nextafter(rounded, torch.zeros_like(rounded)), rounded).double()
    ends = []
    for sign, limit in ((-1.0, 0.0), (1.0, 1.0)):
        end = (images.double() + sign * reach).to(images.dtype)
        beyond = (end.double() - images.double()).abs() > reach  # rounded by at most half a unit of the last place
        end = torch.where(beyond, torch.nextafter(end, images), end)
        ends.append(end.clamp(min=limit) if sign < 0 else end.clamp(max=limit))
    return ends[0], ends[1]


def _clamp(images: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the nearest images between two ends."""
    return torch.minimum(torch.maximum(images, lower), upper)


@contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    """Lend a model copies of its buffers: batch norm's statistics and a caller's graph stay as they are."""
    kept = [(module, name, value) for module in model.modules() for name, value in module._buffers.items()]
    copies: dict[int, Tensor] = {}  # a buffer of two modules stays one
    for module, name, value in kept:
        if value is not None:
            module._buffers[name] = copies.setdefault(id(value), value.detach().clone())
    try:
        yield
    finally:
        for module, name, value in kept:
            module._buffers[name] = value


def _check(x: Tensor, y: Tensor, epsilon: float, step: float, steps: int) -> None:
    """Raise TypeError or ValueError for what `pgd` does not take."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        found = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a tensor of floats, found {found}")
    if x.ndim < 2 or len(y) != len(x):
        raise ValueError(f"x, y: expected images (n, ...) and n labels, found {tuple(x.shape)} and {tuple(y.shape)}")
    if x.numel() and not (float(x.min()) >= 0 and float(x.max()) <= 1):
        raise ValueError(f"x: expected images in [0, 1], found {float(x.min()):.6g} to {float(x.max()):.6g}")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon: expected a number in [0, 1], found {epsilon}")
    if not (math.isfinite(step) and step >= 0):
        raise ValueError(f"step: expected a number of at least 0, found {step}")
    if steps < 0:
        raise ValueError(f"steps: expected at least 0, found {steps}")
