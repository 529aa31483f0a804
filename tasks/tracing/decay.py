"""Weight decay as a contribution of its own, told apart from the examples' by the optimiser's recurrence.

An optimiser linear in the gradient adds to each update what decay alone would have added. With w_t = <z, W_t f>:
coupled (SGD): v_t = mu v_{t-1} + wd w_t, decay_t = -lr_t v_t, under Nesterov -lr_t (wd w_t + mu v_t); decoupled
(AdamW): decay_t = -lr_t wd w_t. Clipping acts on the gradient before decay is added, and changes nothing here.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tasks.tracing.checks import Doubles, check_values


class DecaySeries:
    """The decay's contribution to each of Q queries, step after step; carries its state across chunks of steps.

    Parameters
    ----------
    init : (Q,) float, <z, W_0 f>, the initial weights' contribution (with the bias, if the gammas have it)
    weight_decay : at least 0
    momentum : of SGD, 0 to below 1; dampening is 0
    nesterov : whether SGD looks ahead
    decoupled : whether decay is taken off the weights directly (AdamW); then without momentum
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
            raise ValueError(f"expected weight_decay >= 0 and 0 <= momentum < 1, got {weight_decay} and {momentum}")
        if decoupled and (momentum or nesterov):
            raise ValueError("decoupled decay does not pass through momentum: leave momentum and nesterov out")
        if nesterov and not momentum:
            raise ValueError("nesterov: needs a momentum above 0")
        self._weights = check_values("init", init, 1)  # w_t
        self._velocity = np.zeros_like(self._weights)  # v_{t-1}
        self._decay, self._momentum, self._nesterov = float(weight_decay), float(momentum), nesterov

    def update(self, gamma: NDArray[np.floating], rates: NDArray[np.floating]) -> Doubles:
        """Return what decay contributed in the next steps; the rest of gamma is the examples'.

        Parameters
        ----------
        gamma : (T, Q) float, the whole updates' contributions, a row a step, without a gap
        rates : (T,) float, each step's learning rate

        Returns
        -------
        (T, Q) float64
        """
        values, lr = check_values("gamma", gamma, 2), check_values("rates", rates, 1)
        if values.shape != (len(lr), len(self._weights)):
            raise ValueError(f"gamma: expected shape ({len(lr)}, {len(self._weights)}), got {values.shape}")
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
    """Return what decay contributed in each step (T, Q), all steps at once; parameters as in `DecaySeries`."""
    series = DecaySeries(init, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, decoupled=decoupled)
    return series.update(gamma, rates)


def decay_known(optimizer: Mapping[str, object], recorded: NDArray[np.bool_]) -> int:
    """Return from which step on decay cannot be told from the rest of the recorded updates.

    Parameters
    ----------
    optimizer : as for `decay_series`
    recorded : (T,) bool, whether each step's update is known by itself; of a gap only the sum is

    Returns
    -------
    T where it can always be told. Adam's decay passes through a division: 0. Momentum carries into the steps after a
    gap what decay did within it: the gap's first step, if a recorded one follows. Without momentum decay depends on
    the weights alone, which the sum of the gap gives.
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
    """Return the series of an optimiser as a config names it.

    Parameters
    ----------
    optimizer : `kind` (sgd, the default, sam, adamw, adam) with its settings
    init : (Q,) float

    Returns
    -------
    None without weight decay, and for Adam, whose coupled decay passes through a division and cannot be told apart
    """
    kind, decay = _kind_and_decay(optimizer)
    if not decay or kind == "adam":
        return None
    if kind == "adamw":
        return DecaySeries(init, weight_decay=decay, decoupled=True)
    if kind not in ("sgd", "sam"):
        raise ValueError(f"optimizer: decay of kind {kind!r} is not known; known: sgd, sam, adamw, adam")
    momentum = float(str(optimizer.get("momentum", 0.0)))
    return DecaySeries(init, weight_decay=decay, momentum=momentum, nesterov=bool(optimizer.get("nesterov", False)))


def _kind_and_decay(optimizer: Mapping[str, object]) -> tuple[str, float]:
    """Return the kind of an optimiser and its weight decay."""
    kind = str(optimizer.get("kind", "sgd"))
    default = 0.01 if kind == "adamw" else 0.0  # torch's and the config's
    return kind, float(str(optimizer.get("weight_decay", default)))
