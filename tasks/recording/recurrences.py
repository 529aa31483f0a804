"""The recurrences of SGD on any linear image of the weights: a number, a vector, or the weights themselves.

Let w_t = <W_t, H>, s_t = <momentum buffer, H>, g_t = <gradient, H> with H fixed. Then, as torch.optim.SGD defines it,

    p_t = c_t g_t + wd w_t                      (-c_t g_t under `maximize`)
    s_t = mu s_{t-1} + (1 - dampening) p_t      (p_t where the momentum begins)
    w_{t+1} = w_t - lr_t s_t                    (heavy ball)
    w_{t+1} = w_t - lr_t (p_t + mu s_t)         (Nesterov)
    w_{t+1} = w_t - lr_t p_t                    (mu = 0)

c_t is the factor of clipping. Weight decay passes through p_t like a gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from storage.updates.tables import Settings


@dataclass
class State:
    """The images of weights and momentum buffer before a step; `momentum` is None before it begins."""

    weights: Tensor | None  # None where no step needs them
    momentum: Tensor | None = None


def settings_of(group: Mapping[str, Any], *, fresh: bool, scale: float) -> Settings:  # Any: an optimiser's own
    """Return the settings of a step from a group of parameters of torch.optim.SGD."""
    return Settings(
        lr=float(group["lr"]),
        momentum=float(group["momentum"]),
        dampening=float(group["dampening"]),
        weight_decay=float(group["weight_decay"]),
        nesterov=bool(group["nesterov"]),
        maximize=bool(group["maximize"]),
        scale=scale,
        fresh=fresh,
    )


def advance(state: State, step: Settings, gradient: Tensor) -> Tensor:
    """Return the image of the update of a step, and move the state past it.

    Parameters
    ----------
    gradient : image of the gradient from the stored factors, before clipping
    """
    pull = gradient * _sign(step)
    if step.weight_decay:
        assert state.weights is not None
        pull = pull + step.weight_decay * state.weights
    if step.momentum:
        if step.fresh or state.momentum is None:
            state.momentum = pull
        else:
            state.momentum = step.momentum * state.momentum + (1 - step.dampening) * pull
        pull = pull + step.momentum * state.momentum if step.nesterov else state.momentum
    update = -step.lr * pull
    if state.weights is not None:
        state.weights = state.weights + update
    return update


def own_share(step: Settings) -> float:
    """Return the factor on a step's gradient, from the factors, in the update of this step."""
    if not step.momentum:
        return -step.lr * _sign(step)
    kept = _kept(step)
    return -step.lr * _sign(step) * (1 + step.momentum * kept if step.nesterov else kept)


def carried_shares(steps: Sequence[Settings | None]) -> list[float]:
    """Return the factor on the momentum buffer after each step in all later updates together.

    Parameters
    ----------
    steps : the settings of all steps of a training; None cuts the momentum, where what a step made of it is not known
    """
    found, later = [0.0] * len(steps), 0.0
    for t in range(len(steps) - 1, -1, -1):
        step, found[t] = steps[t], later
        if step is None:
            later = 0.0
        elif step.momentum:  # without it a buffer, if any, stays as it is
            later = (later - step.lr * (step.momentum if step.nesterov else 1.0)) * carries(step)
    return found


def whole_shares(steps: Sequence[Settings | None]) -> list[float]:
    """Return the factor on each step's gradient in all updates together, its own and those that momentum carries on.

    Parameters
    ----------
    steps : as in `carried_shares`
    """
    found = [0.0] * len(steps)
    for t, (step, later) in enumerate(zip(steps, carried_shares(steps), strict=True)):
        if step is not None:
            found[t] = own_share(step) + (_sign(step) * _kept(step) * later if step.momentum else 0.0)
    return found


def carries(step: Settings) -> float:
    """Return the factor on the momentum buffer before a step in the buffer after it."""
    if not step.momentum:
        return 1.0
    return 0.0 if step.fresh else step.momentum


def _sign(step: Settings) -> float:
    """Return the factor from the gradient of the factors to the one that the step goes down."""
    return -step.scale if step.maximize else step.scale


def _kept(step: Settings) -> float:
    """Return the share of a step's gradient that enters the momentum buffer."""
    return 1.0 if step.fresh else 1 - step.dampening
