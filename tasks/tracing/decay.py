"""The contribution of weight decay, separated from the examples' by the optimiser's recurrence.

In an optimiser that is linear in the gradient, decay adds to each update what it would add alone. Let w_t = <z, W_t f>.
Coupled decay (SGD): v_t = mu v_{t-1} + wd w_t, decay_t = -lr_t v_t; under Nesterov decay_t = -lr_t (wd w_t + mu v_t).
Decoupled decay (AdamW): decay_t = -lr_t wd w_t. Clipping acts on the gradient before decay is added, so it does not
matter here.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.tracing.checks import Doubles, check_values


class DecaySeries:
    """The contribution of decay to each of Q queries, step by step; keeps its state between chunks of steps.

    Parameters
    ----------
    init : (Q,) float, <z, W_0 f>, the initial weights' contribution (with the bias, if the gammas have it)
    weight_decay : at least 0
    momentum : momentum of SGD, 0 <= momentum < 1; dampening is 0
    nesterov : whether SGD uses Nesterov momentum
    decoupled : whether decay is subtracted from the weights directly (AdamW); then without momentum
    """

    def __init__(
        self,
        init: NDArray[np.floating],
        *,
        weight_decay: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        decoupled: bool = False,
    ) -> None:
        if not 0 <= weight_decay < np.inf or not 0 <= momentum < 1:
            raise ValueError(f"expected weight_decay >= 0 and 0 <= momentum < 1, found {weight_decay} and {momentum}")
        if decoupled and (momentum or nesterov):
            raise ValueError("decoupled: expected no momentum or nesterov, found some; leave both out")
        if nesterov and not momentum:
            raise ValueError("nesterov: expected a momentum above 0, found 0")
        self._weights = check_values("init", init, 1)  # w_t
        self._velocity = np.zeros_like(self._weights)  # v_{t-1}
        self._decay, self._momentum, self._nesterov = float(weight_decay), float(momentum), nesterov

    def update(self, gamma: NDArray[np.floating], rates: NDArray[np.floating]) -> Doubles:
        """Return the contribution of decay in the next steps; the rest of gamma belongs to the examples.

        Parameters
        ----------
        gamma : (T, Q) float, contributions of the whole updates, a row per step, without gaps
        rates : (T,) float, each step's learning rate

        Returns
        -------
        (T, Q) float64
        """
        values, lr = check_values("gamma", gamma, 2), check_values("rates", rates, 1)
        if values.shape != (len(lr), len(self._weights)):
            raise ValueError(f"gamma: expected shape ({len(lr)}, {len(self._weights)}), found {values.shape}")
        found = np.empty_like(values)
        for t, rate in enumerate(lr):
            pull = self._decay * self._weights
            self._velocity = self._momentum * self._velocity + pull
            found[t] = -rate * (pull + self._momentum * self._velocity if self._nesterov else self._velocity)
            self._weights = self._weights + values[t]
        return found


def decay_contributions(
    gamma: NDArray[np.floating],
    init: NDArray[np.floating],
    rates: NDArray[np.floating],
    *,
    weight_decay: float,
    momentum: float = 0.0,
    nesterov: bool = False,
    decoupled: bool = False,
) -> Doubles:
    """Return the contribution of decay in each step (T, Q), all steps at once; parameters as in `DecaySeries`."""
    series = DecaySeries(init, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, decoupled=decoupled)
    return series.update(gamma, rates)


def decay_known(optimizer: Mapping[str, object], recorded: NDArray[np.bool_]) -> int:
    """Return the first step where decay cannot be separated from the rest of the recorded updates.

    Parameters
    ----------
    optimizer : as for `decay_series`
    recorded : (T,) bool, whether each step's update is known by itself; in a gap only the sum is known

    Returns
    -------
    T where decay can always be separated. 0 for Adam, where decay passes through a division. With momentum, the first
    step of a gap before a recorded step. Momentum carries decay from the gap into later steps. Without momentum decay
    depends only on the weights, which follow from the sum of the gap.
    """
    kind, decay = _kind_and_decay(optimizer)
    if not decay:
        return len(recorded)
    if kind == "adam":
        return 0
    gaps = np.flatnonzero(~recorded)
    if kind == "adamw" or not float(str(optimizer.get("momentum", 0.0))) or not len(gaps):
        return len(recorded)
    return int(gaps[0]) if recorded[gaps[0] :].any() else len(recorded)


def decay_series(optimizer: Mapping[str, object], init: NDArray[np.floating]) -> DecaySeries | None:
    """Return the decay series of an optimiser of a config.

    Parameters
    ----------
    optimizer : `kind` (sgd, the default, sam, adamw, adam) with its settings
    init : (Q,) float

    Returns
    -------
    DecaySeries; None without weight decay, and for Adam, where coupled decay passes through a division
    """
    kind, decay = _kind_and_decay(optimizer)
    if not decay or kind == "adam":
        return None
    if kind == "adamw":
        return DecaySeries(init, weight_decay=decay, decoupled=True)
    if kind not in ("sgd", "sam"):
        raise ValueError(f"optimizer: expected sgd, sam, adamw or adam, found kind {kind!r}")
    momentum = float(str(optimizer.get("momentum", 0.0)))
    return DecaySeries(init, weight_decay=decay, momentum=momentum, nesterov=bool(optimizer.get("nesterov", False)))


def _kind_and_decay(optimizer: Mapping[str, object]) -> tuple[str, float]:
    """Return the kind of an optimiser and its weight decay."""
    kind = str(optimizer.get("kind", "sgd"))
    default = 0.01 if kind == "adamw" else 0.0  # the default of torch and of the config
    return kind, float(str(optimizer.get("weight_decay", default)))
