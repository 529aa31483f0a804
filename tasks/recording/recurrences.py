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
    pull = gradient * (-step.scale if step.maximize else step.scale)
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
    sign = -step.scale if step.maximize else step.scale
    if not step.momentum:
        return -step.lr * sign
    kept = _kept(step)
    return -step.lr * sign * (1 + step.momentum * kept if step.nesterov else kept)


def whole_shares(steps: Sequence[Settings | None]) -> list[float]:
    """Return the factor on each step's gradient in all updates together, its own and those that momentum carries on.

    Parameters
    ----------
    steps : the settings of all steps of a training; None cuts the momentum, as where a record restores the weights
    """
    found, later = [0.0] * len(steps), 0.0
    for t in range(len(steps) - 1, -1, -1):  # `later`: factor on the buffer after step t in the updates after it
        step = steps[t]
        if step is None:
            later = 0.0
        elif not step.momentum:  # a buffer, if any, stays as it is
            found[t] = own_share(step)
        else:
            later -= step.lr * (step.momentum if step.nesterov else 1.0)
            sign = -step.scale if step.maximize else step.scale
            found[t] = sign * (_kept(step) * later - (step.lr if step.nesterov else 0.0))
            later *= 0.0 if step.fresh else step.momentum
    return found


def _kept(step: Settings) -> float:
    """Return the share of a step's gradient that enters the momentum buffer."""
    return 1.0 if step.fresh else 1 - step.dampening
